"""How a condition, one tensor (b, rows, d) whatever the family, becomes what its denoiser is called with, and what that
puts out becomes latents again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from advanchor.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Inputs = Callable[["Tensor", "Tensor", "Tensor"], tuple[tuple["Tensor", "Tensor"], dict[str, Any]]]
SHARE = 1000  # FLUX is told t as a share of so many timesteps


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


def sd3(pooled: int) -> Inputs:
    """Of Stable Diffusion 3: the last row is the sentence, of `pooled` numbers (joint.py)."""

    def inputs(x: Tensor, t: Tensor, cond: Tensor) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
        named = {"pooled_projections": cond[:, -1, :pooled], "timestep": t.float().expand(len(x))}
        return (x, cond[:, :-1]), named

    return inputs


def flux(pooled: int, distilled: float | None) -> Inputs:
    """Of FLUX: as of Stable Diffusion 3; latents are packed, and the scale of a guidance that was distilled into the
    weights is told them, if there is one.
    """

    def inputs(x: Tensor, t: Tensor, cond: Tensor) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
        high, wide = x.shape[2] // 2, x.shape[3] // 2
        places = torch.zeros(high, wide, 3, device=x.device)
        places[..., 1], places[..., 2] = torch.arange(high)[:, None], torch.arange(wide)
        named = {
            "pooled_projections": cond[:, -1, :pooled],
            "timestep": t.float().expand(len(x)) / SHARE,
            "img_ids": places.flatten(0, 1),
            "txt_ids": torch.zeros(cond.shape[1] - 1, 3, device=x.device),
            "guidance": None if distilled is None else torch.full((len(x),), distilled, device=x.device),
        }
        return (packed(x), cond[:, :-1]), named

    return inputs


def packed(x: Tensor) -> Tensor:
    """Latents (b, c, h, w) as FLUX's tokens, 2 x 2 of them each: (b, h w / 4, 4 c)."""
    squares = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # b, c, h/2, 2, w/2, 2
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(tokens: Tensor, x: Tensor) -> Tensor:
    """The latents of FLUX's tokens, of the shape of x."""
    b, c, h, w = x.shape
    return tokens.view(b, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)
