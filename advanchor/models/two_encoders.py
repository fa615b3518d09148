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
from advanchor.models.edits import part
from advanchor.models.sentences import Sentences
from advanchor.protocols import Edit

if TYPE_CHECKING:
    from torch import Tensor


class TwoEncoders:
    """Two frozen text encoders whose tokenizers split alike. L: tokens that they read, `length`; the last row of a
    condition is L.

    Attributes:
        encoders: as those of `Sentences`.
        blank: no prompt is all zeros when sampling, as in SDXL's own folder, and not the empty prompt.
    """

    def __init__(
        self, tokenizers: Sequence[Any], encoders: Mapping[str, Any], device: torch.device, blank: bool
    ) -> None:
        self.encoders, self.device, self.blank = dict(encoders), device, blank
        self._one, self._two = (
            Sentences(tokenizer, encoder, device)
            for tokenizer, encoder in zip(tokenizers, encoders.values(), strict=True)
        )
        self.length = min(self._one.length, self._two.length)
        self._known: dict[str, Tensor] = {}

    def encode(
        self,
        texts: Sequence[str],
        delta: Tensor | None = None,
        spans: Sequence[Sequence[int]] = (),
        weights: Edit | None = None,
    ) -> Tensor:
        """Conditions (b, L + 1, d), with a gradient to `weights` only.

        Raises:
            BadInput: a `delta` is given: which of two inputs it is to move is not said.
        """
        if delta is not None:
            raise BadInput(
                "this model has two text encoders, and what moves the input of one (anchor.place=input, attacks that "
                "search for tokens or words) is for models with one: use anchor.place=output, or another attack."
            )
        edits = [part(weights or {}, prefix) for prefix in self.encoders]
        if not any(edits):
            return torch.stack([self._embed(text) for text in texts])
        return self._pack([self._read(one, texts, edit) for one, edit in zip(self._both, edits, strict=True)])

    @property
    def _both(self) -> tuple[Sentences, Sentences]:
        return self._one, self._two

    def _read(self, one: Sentences, texts: Sequence[str], edit: Mapping[str, Tensor]) -> Any:
        settings = {"padding": "max_length", "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        ids = one.tokenizer(list(texts), **settings).input_ids.to(self.device)
        return torch.func.functional_call(one.encoder, dict(edit), (ids,), {"output_hidden_states": True})

    def _pack(self, read: Sequence[Any]) -> Tensor:
        tokens = torch.cat([out.hidden_states[-2] for out in read], -1)
        pooled = read[1].text_embeds
        return torch.cat([tokens, F.pad(pooled, (0, tokens.shape[-1] - pooled.shape[-1]))[:, None]], 1)

    def _embed(self, text: str) -> Tensor:
        """(L + 1, d); alone and once, as `Sentences`."""
        if text not in self._known:
            if len(self._known) >= 512:
                self._known.clear()
            with torch.no_grad():
                self._known[text] = self._pack([self._read(one, [text], {}) for one in self._both])[0]
        return self._known[text]

    def nothing(self) -> Tensor:
        """(L + 1, d), what stands for no prompt when sampling."""
        empty = self._embed("")
        return torch.zeros_like(empty) if self.blank else empty

    def forget(self) -> None:
        """The encoders' own tensors changed: encode every sentence anew."""
        self._known.clear()

    def vocabulary(self, weights: Edit | None = None) -> Tensor:
        """Refused: each encoder reads tokens of its own.

        Raises:
            BadInput: always.
        """
        raise BadInput(
            "this model has two text encoders, and attacks that search for tokens are for models with one: leave "
            "ring_a_bell, mma, unlearn_diff, p4d, concept_inversion and soft_prompt out."
        )

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than the text encoders."""
        return self._one.cut(texts)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without start and end."""
        return self._one.ids(text)

    def spoken(self) -> list[int]:
        """All tokens that a sentence can hold: neither start, end nor padding."""
        return self._one.spoken()

    def words(self, ids: Sequence[int]) -> str:
        """Tokens as words."""
        return self._one.words(ids)

    def end(self, text: str) -> int:
        """Position of the end token."""
        return self._one.end(text)

    def span(self, text: str, words: str) -> list[int]:
        """Positions of all BPE pieces of `words`, as in `Sentences`."""
        return self._one.span(text, words)
