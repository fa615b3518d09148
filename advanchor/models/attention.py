"""What a U-Net's cross-attention looks at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def watched(unet: Any) -> Iterator[list[Tensor]]:
    """Inside, the probabilities of each cross-attention layer (b, heads, pixels, L) are appended to the list, in order
    of execution, and a gradient goes through them.
    """
    seen: list[Tensor] = []

    def attend(attn: Any, states: Tensor, encoder_hidden_states: Tensor, **ignored: Any) -> Tensor:
        q, k, v = (
            z.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for z in (attn.to_q(states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
        )
        seen.append((attn.scale * q @ k.transpose(-1, -2)).softmax(-1))
        return attn.to_out[0]((seen[-1] @ v).transpose(1, 2).flatten(2))

    before = unet.attn_processors
    unet.set_attn_processor({name: attend if ".attn2." in name else own for name, own in before.items()})
    try:
        yield seen
    finally:
        unet.set_attn_processor(before)
