"""Sentences as a Stable Diffusion's text encoder sees them: tokens, their places, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput
from advanchor.lazy import torch
from advanchor.models.edits import part
from advanchor.protocols import Edit

if TYPE_CHECKING:
    from torch import Tensor, nn


class Sentences:
    """A tokenizer and a frozen text encoder. L: tokens that it reads, `length`; d: its width.

    Attributes:
        encoders: the text encoders, by what the names of their tensors in an edit begin with.
    """

    def __init__(self, tokenizer: Any, encoder: Any, device: torch.device) -> None:
        self.tokenizer, self.encoder, self.device = tokenizer, encoder, device
        self.encoders: dict[str, Any] = {"text_encoder.": encoder}
        # a tokenizer need not know
        self.length: int = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        self._known: dict[str, Tensor] = {}

    def encode(
        self,
        texts: Sequence[str],
        delta: Tensor | None = None,
        spans: Sequence[Sequence[int]] = (),
        weights: Edit | None = None,
    ) -> Tensor:
        """Embeddings (b, L, d), with a gradient to `delta` and `weights` only.

        Args:
            delta: (s, d), added to the encoder's *input* at each text's `spans` (b lists of s positions); or
                (b * s, d), each text's own one after the other.
            weights: an edit; what it holds of the encoder takes the place of its own tensors.
        """
        own = part(weights or {}, "text_encoder.")
        if delta is None and not own:
            return torch.stack([self._embed(text) for text in texts])

        def shift(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            return out if delta is None else add_at(out, delta, spans)

        hook = self.encoder.get_input_embeddings().register_forward_hook(shift)
        try:
            return torch.func.functional_call(self.encoder, own, (self._ids(texts),))[0]
        finally:
            hook.remove()

    def _embed(self, text: str) -> Tensor:
        """(L, d). The encoder is frozen and every sentence comes back thousands of times; encoded alone, once, it
        cannot depend on its batch on any machine.
        """
        if text not in self._known:
            if len(self._known) >= 512:
                self._known.clear()
            with torch.no_grad():
                self._known[text] = self.encoder(self._ids([text]))[0][0]
        return self._known[text]

    def forget(self) -> None:
        """The encoder's own tensors changed: encode every sentence anew."""
        self._known.clear()

    def _ids(self, texts: Sequence[str]) -> Tensor:
        settings = {"padding": "max_length", "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        return self.tokenizer(list(texts), **settings).input_ids.to(self.device)

    def _tokens(self, text: str) -> list[int]:
        """All of a text's tokens, start and end among them, however long."""
        return list(self.tokenizer(text, verbose=False).input_ids)

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than the text encoder: what stands behind its last token is not drawn, and
        two of them can be the same picture.
        """
        return [text for text in texts if len(self._tokens(text)) > self.length]

    def nothing(self) -> Tensor:
        """(L, d), what stands for no prompt when sampling."""
        return self._embed("")

    def vocabulary(self, weights: Edit | None = None) -> Tensor:
        """What the encoder reads for each token, (V, d)."""
        table: Tensor = self.encoder.get_input_embeddings().weight
        own = next(name for name, tensor in self.encoder.named_parameters() if tensor is table)
        return (weights or {}).get(f"text_encoder.{own}", table).detach()

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without start and end."""
        return self._tokens(text)[1:-1]

    def spoken(self) -> list[int]:
        """All tokens that a sentence can hold: neither start, end nor padding."""
        marks = set(self.tokenizer.all_special_ids)
        return [i for i in range(self.encoder.config.vocab_size) if i not in marks]

    def words(self, ids: Sequence[int]) -> str:
        """Tokens as words."""
        return str(self.tokenizer.decode(list(ids))).strip()

    def end(self, text: str) -> int:
        """Position of the end token, at which the encoder's output is the embedding of the whole sentence."""
        return min(len(self._tokens(text)), self.length) - 1

    def span(self, text: str, words: str) -> list[int]:
        """Positions of all BPE pieces of `words` in the encoded text, counted with the start token.

        Raises:
            BadInput: the words are not in the text, or some of them are cut off behind the text encoder's last token.
        """
        whole, part = self._tokens(text)[:-1], self._tokens(words)[1:-1]
        for i in range(len(whole) - len(part) + 1):
            if part and whole[i : i + len(part)] == part:
                if i + len(part) > self.length - 1:  # the last place is the end token's
                    raise BadInput(
                        f"the words '{words}' are cut off: the text encoder reads {self.length} tokens, "
                        f"and '{text}' has {len(whole) + 1}: shorten it."
                    )
                return list(range(i, i + len(part)))
        raise BadInput(
            f"the words '{words}' are not among the tokens of '{text}': "
            "correct the concept's name, phrase or templates."
        )


def add_at(embeddings: Tensor, delta: Tensor, spans: Sequence[Sequence[int]]) -> Tensor:
    """embeddings (b, L, d) with delta (s, d) added at each row's s positions, or at each s of a multiple of them; with
    (b * s, d) each row's own.
    """
    placed = torch.zeros_like(embeddings)
    rows = torch.tensor([row for row, span in enumerate(spans) for _ in span])
    columns = torch.tensor([p for span in spans for p in span])
    each = delta.repeat(len(rows) // len(delta), 1).to(placed.dtype)
    return embeddings + placed.index_put((rows.to(placed.device), columns.to(placed.device)), each)
