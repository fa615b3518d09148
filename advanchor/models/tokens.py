"""Sentences as a tokenizer splits them, tokens and their places: of CLIP's kind, and of T5's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput
from advanchor.naming import whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Tokens:
    """A tokenizer of CLIP's kind beside its text encoder, which reads `length` tokens. Their places are the first rows
    of a condition.
    """

    kind = "clip"
    first = 1  # row of a sentence's first token, behind the start token

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
        """Row of the end token, at which the encoder's output is the embedding of the whole sentence."""
        return min(len(self._tokens(text)), self.length) - 1

    def span(self, text: str, words: str, at: int = 0) -> list[int]:
        """Rows of all BPE pieces of `words`, where they first stand in the text from its character `at` on.

        Raises:
            BadInput: the words are not in the text, or some of them are cut off behind the text encoder's last token.
        """
        every, part = self._tokens(text)[:-1], self._tokens(words)[1:-1]
        for i in range(self.end(text[:at]), len(every) - len(part) + 1):
            if part and every[i : i + len(part)] == part:
                if i + len(part) > self.length - 1:  # the last place is the end token's
                    raise cut_off(words, text, self.length, len(every) + 1)
                return list(range(i, i + len(part)))
        raise absent(words, text)


class Pieces:
    """A tokenizer of T5's kind (SentencePiece: no start token) beside its text encoder, of which `length` tokens are
    read. Its tokens stand in a condition from row `first` on.
    """

    kind = "t5"

    def __init__(self, tokenizer: Any, length: int, first: int, device: torch.device) -> None:
        self.tokenizer, self.first, self.device = tokenizer, first, device
        self.length: int = min(length, tokenizer.model_max_length)

    def padded(self, texts: Sequence[str]) -> Tensor:
        """What the encoder reads of each text, (b, length)."""
        settings = {"padding": "max_length", "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        return self.tokenizer(list(texts), **settings).input_ids.to(self.device)

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than what is read of them."""
        return [text for text in texts if len(self.ids(text)) + 1 > self.length]

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without the end."""
        return list(self.tokenizer(text, verbose=False).input_ids)[:-1]

    def spoken(self) -> list[int]:
        """All tokens that a sentence can hold: neither end, padding nor one of T5's own marks."""
        marks = set(self.tokenizer.all_special_ids)
        return [i for i in range(len(self.tokenizer)) if i not in marks]

    def words(self, ids: Sequence[int]) -> str:
        """Tokens as words."""
        return str(self.tokenizer.decode(list(ids))).strip()

    def end(self, text: str) -> int:
        """Row of the end token."""
        return self.first + min(len(self.ids(text)) + 1, self.length) - 1

    def span(self, text: str, words: str, at: int = 0) -> list[int]:
        """Rows of all pieces of `words`, where they first stand in the text from its character `at` on: pieces that
        share a character with them, since what stands before a word decides how it is split.

        Raises:
            BadInput: as `Tokens.span`.
        """
        found = whole(words).search(text, at) if words else None
        if found is None:
            raise absent(words, text)
        offsets = self.tokenizer(text, verbose=False, return_offsets_mapping=True).offset_mapping
        rows = [i for i, (a, b) in enumerate(offsets[:-1]) if a < found.end() and b > found.start()]
        if not rows:
            raise absent(words, text)
        if rows[-1] >= self.length - 1:
            raise cut_off(words, text, self.length, len(offsets))
        return [self.first + row for row in rows]


def cut_off(words: str, text: str, length: int, tokens: int) -> BadInput:
    return BadInput(
        f"the words '{words}' are cut off: the text encoder reads {length} tokens, and '{text}' has {tokens}: "
        "shorten it."
    )


def absent(words: str, text: str) -> BadInput:
    remedy = "correct the concept's name, phrase or templates"
    return BadInput(f"the words '{words}' are not among the tokens of '{text}': {remedy}.")
