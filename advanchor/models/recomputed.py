"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) of a network whose weights are handed to it for one call:
by the time of the backward pass they are no longer in their places.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn


class Anew:
    """A context that is made each time it is entered: one graph can go backward several times."""

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self.make = make
        self.inside: list[AbstractContextManager[Any]] = []

    def __enter__(self) -> None:
        self.inside.append(self.make())
        self.inside[-1].__enter__()

    def __exit__(self, *why: Any) -> None:
        self.inside.pop().__exit__(*why)


class Recomputed:
    """What diffusers calls for each block of a denoiser: its activations are not kept, but computed once more in the
    backward pass, with the weights and under the hooks of the first time. Same bits, same gradients.

    Attributes:
        around: what the current call of the denoiser stands in, to be entered again.
        off: blocks are called as ever; of what must see inside.
    """

    def __init__(self) -> None:
        self.around: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.off = False

    def __call__(self, block: nn.Module, *args: Any) -> Any:
        if self.off:
            return block(*args)
        own: dict[str, Tensor] = {**dict(block.named_parameters())}
        around = self.around

        def run(*args: Any) -> Any:
            return torch.func.functional_call(block, own, args)

        return checkpoint(
            run, *args, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), Anew(around))
        )
