"""More noise in sampling than the model is used to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from advanchor.attacks.shots import Asked, Shots, Victim
from advanchor.core import Need, option
from advanchor.prompts import Prompt

Factor = Annotated[float, Field(ge=0, le=10)]


@option("attack")
class Noise(Asked):
    """The noise-based probe ("When Are Concepts Erased from Diffusion Models?", Lu et al. 2025, arXiv 2505.17013): each
    image drawn by DDIM with every eta, and every factor on the noise of its steps. A shot for each pair.

    The values are the release's. Otherwise: each image and pair has random numbers of its own, where the release goes
    on with one generator from pair to pair, so that their order matters there; every picture starts from its own noise;
    and no CLIP score chooses the best, so chance is given as many draws. How the release keeps DDIM's formula defined
    above eta 1 is in a file that we could not read; advanchor/models/noisy.py says how we do.

    Attributes:
        eta: of DDIM; 0 draws no noise, 1 as much as DDPM.
        spread: factors on the noise of the steps.
    """

    access: ClassVar[str] = "sampler"
    needs: ClassVar[tuple[Need, ...]] = ("a diffusion's noise schedule",)
    eta: Annotated[tuple[Factor, ...], Field(min_length=1)]
    spread: Annotated[tuple[Factor, ...], Field(min_length=1)]

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        found = Shots()
        for p in prompts:
            for eta in dict.fromkeys(self.eta):
                for spread in dict.fromkeys(self.spread):
                    found.noisy[found.add(p, f"eta {eta:g} spread {spread:g}").file] = (eta, spread)
        return found
