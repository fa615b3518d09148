"""Sentences as a transformer of image and text together is given them: Stable Diffusion 3's (MMDiT, Esser et al. 2024,
arXiv 2403.03206) and FLUX's, packed into one tensor as two_encoders.py does.

(L + 1, d): for each token of CLIP's kind the penultimate layers of the CLIP encoders side by side, padded with zeros to
the width of T5 (FLUX has none of these rows); for each of T5's its last layer; in the last row what the CLIP encoders
make of the whole sentence ("pooled"), side by side, padded with zeros.

Stable Diffusion 3 can do without T5, whose rows are zeros then, as in diffusers. A transformer whose text comes from a
single CLIP encoder, which diffusers' pipeline cannot encode for, has no such rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput
from advanchor.lazy import F, torch
from advanchor.models import precision
from advanchor.models.edits import part
from advanchor.models.sentences import Memory, moved, table
from advanchor.models.tokens import Pieces, Tokens
from advanchor.models.two_encoders import REFUSED
from advanchor.protocols import Edit

if TYPE_CHECKING:
    from torch import Tensor

    from advanchor.models.precision import Precision


class Joint:
    """Frozen text encoders: of CLIP's kind, and at most one of T5's.

    Args:
        tokenizers, encoders: by what the names of an encoder's tensors in an edit begin with; CLIP's first.
        width: d. `read`: tokens that T5 reads at most.
        flux: CLIP's tokens have no rows.

    Attributes:
        streams: the tokenizers whose tokens have rows.
        pooled: numbers of the last row that are the sentence's.
    """

    def __init__(
        self,
        tokenizers: Mapping[str, Any],
        encoders: Mapping[str, Any],
        device: torch.device,
        *,
        width: int,
        read: int,
        flux: bool,
    ) -> None:
        self.encoders, self.width, self.flux = dict(encoders), width, flux
        t5 = [prefix for prefix, encoder in encoders.items() if encoder.config.model_type == "t5"]
        self._clip = {p: Tokens(tokenizers[p], one, device) for p, one in encoders.items() if p not in t5}
        first = next(iter(self._clip.values()))
        self._t5 = {p: Pieces(tokenizers[p], read, 0 if flux else first.length, device) for p in t5}
        self.streams: list[Tokens | Pieces] = [*([] if flux else [first]), *self._t5.values()]
        self.blank = 0 if self._t5 or len(self._clip) == 1 else read
        self.length = self.blank + sum(stream.length for stream in self.streams)
        self.pooled = sum(encoders[prefix].config.projection_dim for prefix in self._clip)
        if flux:  # whose encoder projects nothing
            self.pooled = encoders[next(iter(self._clip))].config.hidden_size
        self.memory = Memory(self._packed)

    def encode(
        self, texts: Sequence[str], delta: Tensor | None, spans: Sequence[Sequence[int]], weights: Edit | None
    ) -> Tensor:
        """As `LatentDiffusion.encode`.

        Raises:
            BadInput: a `delta` is given, and which of several inputs it is to move is not said.
        """
        if delta is not None and len(self.encoders) > 1:
            raise BadInput(REFUSED)
        if delta is None and not any(part(weights or {}, prefix) for prefix in self.encoders):
            return torch.stack([self.memory(text) for text in texts])
        with moved(next(iter(self.encoders.values())), delta, spans):
            return self._packed(texts, weights)

    def _packed(self, texts: Sequence[str], weights: Edit | None = None) -> Tensor:
        """(b, L + 1, d)."""
        states, pooled = [], []
        for prefix, tokens in self._clip.items():
            encoder, ids = self.encoders[prefix], tokens.padded(texts)
            half, own = self._own(prefix, weights)
            out = torch.func.functional_call(encoder, own, (ids,), {"output_hidden_states": True})
            states.append(half.out(out.hidden_states[-2]))
            pooled.append(half.out(out.pooler_output if self.flux else out.text_embeds))
        rows = [] if self.flux else [self._wide(torch.cat(states, -1))]
        for prefix, pieces in self._t5.items():
            half, own = self._own(prefix, weights)
            rows.append(half.out(torch.func.functional_call(self.encoders[prefix], own, (pieces.padded(texts),))[0]))
        if self.blank:
            rows.append(rows[0].new_zeros(len(texts), self.blank, self.width))
        return torch.cat([*rows, self._wide(torch.cat(pooled, -1))[:, None]], 1)

    def _own(self, prefix: str, weights: Edit | None) -> tuple[Precision, dict[str, Tensor]]:
        """What an encoder computes with, and what an edit puts in the place of its tensors."""
        half = precision.of(self.encoders[prefix])
        return half, {name: half.into(tensor) for name, tensor in part(weights or {}, prefix).items()}

    def _wide(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self.width - x.shape[-1]))

    def nothing(self) -> Tensor:
        """(L + 1, d), what stands for no prompt when sampling: the empty one."""
        return self.memory("")

    def vocabulary(self, weights: Edit | None = None) -> Tensor:
        """What the encoder reads for each token, (V, d).

        Raises:
            BadInput: there are several.
        """
        if len(self.encoders) > 1:
            raise BadInput(REFUSED)
        ((prefix, encoder),) = self.encoders.items()
        return table(encoder, prefix, weights)
