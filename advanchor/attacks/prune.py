"""The attacked network without its smallest weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from advanchor.attacks.shots import Asked, Shots, Victim, at_doses, network
from advanchor.core import option
from advanchor.lazy import torch
from advanchor.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor

Share = Annotated[float, Field(ge=0, lt=1)]


@option("attack")
class Prune(Asked):
    """Magnitude pruning (Han et al. 2015, arXiv 1506.02626) of the attacked network, without its retraining: of each
    matrix and kernel the weights of smallest magnitude are 0. An erasure that hides in small weights goes with them.

    Everything that has weights is pruned: U-Net with low-rank factors multiplied out, added networks, and the text
    encoder if the edit changed some of it. The share is the same in each tensor, vectors stay.

    Attributes:
        doses: shares of the weights.
    """

    access: ClassVar[str] = "weights"
    doses: Annotated[tuple[Share, ...], Field(min_length=1)]

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        weights = network(victim)
        guided = {name: tensor for name, tensor in victim.edit.items() if name.startswith("guidance.")}
        each = {
            share: {**guided, **{name: thinned(w, share) for name, w in weights.items()}}
            for share in sorted(set(self.doses) - {0.0})
        }
        return at_doses(prompts, ({0.0: victim.edit} if 0 in self.doses else {}) | each)


def thinned(weight: Tensor, share: float) -> Tensor:
    """A tensor whose smallest numbers, rounded down to whole ones, are 0; of equal ones the first."""
    weight = weight.detach()
    if weight.ndim < 2:
        return weight
    smallest = weight.abs().flatten().argsort(stable=True)[: int(share * weight.numel())]
    return torch.index_fill(weight.flatten(), 0, smallest, 0.0).view_as(weight)
