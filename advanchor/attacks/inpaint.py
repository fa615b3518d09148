"""A hole in a picture of the concept, for the attacked network to fill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from advanchor.attacks.shots import Asked, Shots, Victim
from advanchor.core import option
from advanchor.lazy import torch
from advanchor.prompts import Prompt

Share = Annotated[float, Field(gt=0, lt=1)]


@option("attack")
class Inpaint(Asked):
    """The inpainting probe ("When Are Concepts Erased from Diffusion Models?", Lu et al. 2025, arXiv 2505.17013): the
    attacked network, an ordinary U-Net, repaints the centre of what the unedited model drew. After each step what lies
    outside is the picture, noised to that step (as RePaint, Lugmayr et al. 2022, arXiv 2201.09865, without its
    resampling), so it is the picture in the end. A shot for each size of the hole.

    The release cuts 256 of 512 pixels. Otherwise: the hole is of whole latents, and each picture starts from its own
    noise. What is around shows the concept in every model, erased or not, so `never` belongs to it: the larger the
    hole, the less it shows.

    Attributes:
        side: of the hole, as shares of the picture's.
    """

    access: ClassVar[str] = "sampler"
    side: Annotated[tuple[Share, ...], Field(min_length=1)]

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        found, z = Shots(), victim.originals(prompts).cpu()
        h, w = z.shape[-2:]
        for side in dict.fromkeys(self.side):
            stays = torch.ones(1, h, w)
            high, wide = max(1, round(side * h)), max(1, round(side * w))
            top, left = (h - high) // 2, (w - wide) // 2
            stays[:, top : top + high, left : left + wide] = 0
            for p, picture in zip(prompts, z, strict=True):
                found.around[found.add(p, f"side {side:g}").file] = torch.cat([picture, stays])
        return found
