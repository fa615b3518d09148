"""The unedited model begins the picture, the attacked one finishes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from advanchor.attacks.shots import Asked, Shots, Victim
from advanchor.core import option
from advanchor.prompts import Prompt

Share = Annotated[float, Field(gt=0, lt=1)]


@option("attack")
class Completion(Asked):
    """In-context completion ("When Are Concepts Erased from Diffusion Models?", Lu et al. 2025, arXiv 2505.17013): the
    unedited model takes the first steps of sampling, the attacked one the others. A shot for each share of the steps.

    The release has 1, 2 and 3 of 50 steps. Pictures of a model that never learned the concept are finished as well by
    it to some degree, so `never` belongs to it.

    Attributes:
        begun: shares of the sampling steps that the unedited model takes.
    """

    access: ClassVar[str] = "latents"
    begun: Annotated[tuple[Share, ...], Field(min_length=1)]

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        found, looks = Shots(), victim.sample
        texts, seeds = [p.text for p in prompts], [p.seed for p in prompts]
        for taken in dict.fromkeys(max(1, round(share * looks.steps)) for share in self.begun):
            seen, _ = victim.model.trajectory(texts, seeds, steps=looks.steps, guidance=looks.guidance, until=taken)
            for p, x in zip(prompts, seen[:, -1], strict=True):
                shot = found.add(p, f"after {taken}")
                found.starts[shot.file] = (x.cpu(), taken)
        return found
