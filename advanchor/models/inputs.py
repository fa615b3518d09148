"""How a condition, one tensor (b, rows, d) whatever the family, becomes what a family's denoiser is called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from advanchor.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Inputs = Callable[["Tensor", "Tensor", "Tensor"], tuple[tuple["Tensor", "Tensor"], dict[str, Any]]]


def plain(x: Tensor, t: Tensor, cond: Tensor) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
    """Of Stable Diffusion 1.x and 2.x: every row is a token."""
    return (x, t), {"encoder_hidden_states": cond}


def xl(pixels: int, pooled: int) -> Inputs:
    """Of Stable Diffusion XL: the last row is the sentence (two_encoders.py). Images are `pixels` wide, uncropped and
    unscaled; the sentence has `pooled` numbers.
    """

    def inputs(x: Tensor, t: Tensor, cond: Tensor) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
        sizes = torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]], dtype=x.dtype, device=x.device)
        added = {"text_embeds": cond[:, -1, :pooled], "time_ids": sizes.expand(len(x), -1)}
        return (x, t), {"encoder_hidden_states": cond[:, :-1], "added_cond_kwargs": added}

    return inputs
