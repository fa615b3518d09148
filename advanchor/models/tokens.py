"""Sentences as a tokenizer of CLIP's kind splits them: tokens and their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Tokens:
    """A tokenizer beside its text encoder, which reads `length` of them."""

    def __init__(self, tokenizer: Any, encoder: Any, device: torch.device) -> None:
        self.tokenizer, self.size, self.device = tokenizer, encoder.config.vocab_size, device
        # a tokenizer need not know
        self.length: int = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)

    def padded(self, texts: Sequence[str]) -> Tensor:
        """What the encoder reads of each text, (b, length)."""
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

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without start and end."""
        return self._tokens(text)[1:-1]

    def spoken(self) -> list[int]:
        """All tokens that a sentence can hold: neither start, end nor padding."""
        marks = set(self.tokenizer.all_special_ids)
        return [i for i in range(self.size) if i not in marks]

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
