"""Sentences as Stable Diffusion XL's two text encoders see them (Podell et al. 2023, arXiv 2307.01952), packed into one
tensor: what it is to mix, move and compare a condition is the same for every family.

(L + 1, d), d the width of both together: for each token the penultimate layer of the one and of the other, side by
side; in the last row what the second makes of the whole sentence ("pooled"), padded with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput
from advanchor.lazy import F, torch
from advanchor.models import precision
from advanchor.models.edits import part
from advanchor.models.sentences import Memory
from advanchor.models.tokens import Tokens
from advanchor.protocols import Edit

if TYPE_CHECKING:
    from torch import Tensor

REFUSED = (
    "this model has several text encoders, and what moves the input of one (anchor.place=input, attacks that search "
    "for tokens or words) is for models with one: use anchor.place=output, or another attack."
)


class TwoEncoders:
    """Two frozen text encoders, whose tokenizers split alike and fill up with other tokens. L: tokens that they read.

    Attributes:
        encoders, streams, length, pooled: as those of `Sentences`.
        blank: no prompt is all zeros when sampling, as in SDXL's own folder, and not the empty prompt.
    """

    def __init__(
        self, tokenizers: Sequence[Any], encoders: Mapping[str, Any], device: torch.device, blank: bool
    ) -> None:
        self.encoders, self.blank = dict(encoders), blank
        self._each = [Tokens(*pair, device) for pair in zip(tokenizers, encoders.values(), strict=True)]
        self.streams, self.length = self._each[:1], self._each[0].length
        self.pooled: int = list(encoders.values())[-1].config.projection_dim
        self.memory = Memory(self._packed)

    def encode(
        self, texts: Sequence[str], delta: Tensor | None, spans: Sequence[Sequence[int]], weights: Edit | None
    ) -> Tensor:
        """As `LatentDiffusion.encode`.

        Raises:
            BadInput: a `delta` is given: which of two inputs it is to move is not said.
        """
        if delta is not None:
            raise BadInput(REFUSED)
        if not any(part(weights or {}, prefix) for prefix in self.encoders):
            return torch.stack([self.memory(text) for text in texts])
        return self._packed(texts, weights)

    def _packed(self, texts: Sequence[str], weights: Edit | None = None) -> Tensor:
        """(b, L + 1, d)."""
        read = []
        for tokens, (prefix, encoder) in zip(self._each, self.encoders.items(), strict=True):
            half, ids = precision.of(encoder), tokens.padded(texts)
            own = {name: half.into(tensor) for name, tensor in part(weights or {}, prefix).items()}
            out = torch.func.functional_call(encoder, own, (ids,), {"output_hidden_states": True})
            read.append((half, out))
        states = torch.cat([half.out(out.hidden_states[-2]) for half, out in read], -1)
        pooled = read[1][0].out(read[1][1].text_embeds)
        return torch.cat([states, F.pad(pooled, (0, states.shape[-1] - pooled.shape[-1]))[:, None]], 1)

    def nothing(self) -> Tensor:
        """(L + 1, d), what stands for no prompt when sampling."""
        empty = self.memory("")
        return torch.zeros_like(empty) if self.blank else empty

    def vocabulary(self, weights: Edit | None = None) -> Tensor:
        """Raise BadInput: each encoder reads tokens of its own."""
        raise BadInput(REFUSED)
