"""The attacked network with its weights rounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from advanchor.attacks.shots import Asked, Shots, Victim, at_doses, network
from advanchor.core import option
from advanchor.lazy import torch
from advanchor.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor


@option("attack")
class Quantise(Asked):
    """Post-training quantisation of the attacked network, which brought forgotten text back in language models (Zhang
    et al. 2025, arXiv 2410.16454): a small edit may be rounded away. Round to nearest; no calibration.

    Everything that has weights is rounded: U-Net with low-rank factors multiplied out, added networks, and the text
    encoder if the edit changed some of it. Integers are symmetric and per output channel (the rows of a matrix), each
    with a scale of its own, and take matrices and kernels alone: vectors stay, as in common practice. Activations stay
    in full precision. fp16 takes all.

    Attributes:
        doses: bits dropped of 32: 16 is fp16, 24 is int8, 28 is int4.
    """

    access: ClassVar[str] = "weights"
    doses: Annotated[tuple[Literal[0, 16, 24, 28], ...], Field(min_length=1)]

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        weights = network(victim)
        guided = {name: tensor for name, tensor in victim.edit.items() if name.startswith("guidance.")}
        each = {
            float(dropped): {**guided, **{name: rounded(w, dropped) for name, w in weights.items()}}
            for dropped in sorted(set(self.doses) - {0})
        }
        return at_doses(prompts, ({0.0: victim.edit} if 0 in self.doses else {}) | each)


def rounded(weight: Tensor, dropped: int) -> Tensor:
    """A tensor as a number format with so many bits less than 32 has it, in float32."""
    weight = weight.detach()
    if dropped == 16:
        return weight.half().float()
    if weight.ndim < 2:
        return weight
    most = 2 ** (31 - dropped) - 1
    scale = weight.flatten(1).abs().amax(1).clamp(min=1e-30).view(-1, *[1] * (weight.ndim - 1)) / most
    return torch.round(weight / scale) * scale
