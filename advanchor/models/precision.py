"""Half precision inside a network, float32 around it: inputs, outputs, edits and what learns are float32 whatever the
weights are, so each of them is rounded once on its way in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from advanchor.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

SCALE = 1024.0  # of gradients inside a network in float16, whose smallest number is 6e-8


@cache
def across() -> Any:
    """A function (x, dtype, factor): a tensor in another dtype, and its gradient times a factor."""

    class Across(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, dtype: torch.dtype, factor: float) -> Tensor:
            ctx.before, ctx.factor = x.dtype, factor
            return x.to(dtype)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
            return (grad.float() * ctx.factor).to(ctx.before), None, None

    return Across.apply


@dataclass(frozen=True)
class Precision:
    """What a network computes with.

    Float16 has too small a range for most gradients (Micikevicius et al. 2018, arXiv 1710.03740, 3.2): they are
    multiplied by a constant where they enter the network, at its outputs, and divided by it where they leave it, at its
    inputs and weights. What stands around it sees neither.

    Attributes:
        dtype: of the weights.
        half: some of its products are in float16, by dtype or autocast.
    """

    dtype: torch.dtype
    half: bool

    def into(self, x: Tensor) -> Tensor:
        """A float32 tensor that the network, or its place for a weight, is given."""
        return self._across(x, self.dtype, 1 / SCALE if self.half else 1.0)

    def out(self, x: Tensor) -> Tensor:
        """What the network puts out, as float32."""
        return self._across(x, torch.float32, SCALE if self.half else 1.0)

    def _across(self, x: Tensor, dtype: torch.dtype, factor: float) -> Tensor:
        if factor == 1 and x.dtype == dtype:
            return x
        moved: Tensor = across()(x, dtype, factor)
        return moved


def of(network: Any, autocast: str = "none") -> Precision:
    """That of a network, from what reads its input: T5 has some of its layers in float32 even in float16."""
    dtype = next(network.parameters()).dtype
    return Precision(dtype, dtype == torch.float16 or autocast == "float16")
