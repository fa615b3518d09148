"""Where in the image the model looks for the concept, read off its own cross-attention: a stand-in for a segmenter,
good to a few pixels of the latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from advanchor.core import BadInput
from advanchor.lazy import F, torch
from advanchor.protocols import Model

if TYPE_CHECKING:
    from torch import Tensor


def fits(model: Model, side: int) -> None:
    """Raise BadInput if no cross-attention of the model has side x side pixels: one U-Net call on noise tells."""
    x, t = model.trajectory([""], [0], steps=1, guidance=1.0, until=0)
    with torch.no_grad():
        of_side(model.attention(x[:, 0], t, model.encode([""])), side)


def of_side(maps: Sequence[Tensor], side: int) -> list[Tensor]:
    """Those of the layers with side x side pixels.

    Raises:
        BadInput: there are none.
    """
    chosen = [a for a in maps if a.shape[2] == side * side]
    if not chosen:
        sides = sorted({round(a.shape[2] ** 0.5) for a in maps})
        among = ", ".join(map(str, sides))
        raise BadInput(
            f"no cross-attention of this model has {side} x {side} pixels: set method.mask_side to one of {among}."
        )
    return chosen


def mask(maps: Sequence[Tensor], spans: Sequence[Sequence[int]], side: int, threshold: float) -> Tensor:
    """(b, side, side), 1 where the concept is and 0 elsewhere.

    The attention of the layers with side x side pixels, mean over those layers, heads and the tokens of each row's
    span, scaled to [0, 1] and cut at `threshold` (Huang et al. 2024, arXiv 2311.17717, after MasaCtrl, arXiv
    2304.08465, which takes 16 x 16).

    Args:
        maps: `Model.attention`, (b, heads, pixels, L) each.

    Raises:
        BadInput: no layer has side x side pixels.
    """
    chosen = of_side(maps, side)
    each = torch.stack(
        [torch.stack([a[i, :, :, list(span)].mean((0, 2)) for i, span in enumerate(spans)]) for a in chosen]
    ).mean(0)
    low, high = each.amin(1, keepdim=True), each.amax(1, keepdim=True)
    return ((each - low) / (high - low).clamp(min=1e-12) >= threshold).float().unflatten(1, (side, side))


def resized(shape: Tensor, pixels: int) -> Tensor:
    """The mask (b, side, side) at another layer's pixels: (b, pixels)."""
    side = round(pixels**0.5)
    return F.interpolate(shape[:, None], (side, side), mode="nearest").flatten(1)
