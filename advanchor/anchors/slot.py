"""The place of the concept's name in its sentences, token by token, and embeddings with something added there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from advanchor.concept import Concept
from advanchor.core import BadInput
from advanchor.models.sentences import add_at
from advanchor.naming import fill, whole
from advanchor.protocols import Model

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Slot:
    """Positions S of the name in sentences: of every one of its occurrences, wherever they stand.

    b sentences, s tokens of the name, d text width, L tokens.

    Attributes:
        suffix: appended to the name ("'s" in the released AdvAnchor code), wherever it stands as words of their own.
        by: tokens (all BPE pieces of the name), or words (one position per space-separated word, the released code's
            slip).
    """

    model: Model
    concept: Concept
    suffix: str = ""
    by: Literal["tokens", "words"] = "tokens"

    def texts(self, templates: Sequence[str]) -> list[str]:
        texts = [fill(t, "", self.concept.phrase) for t in templates]
        return [whole(self.concept.name).sub(lambda name: name[0] + self.suffix, text) for text in texts]

    def places(self, templates: Sequence[str]) -> list[list[list[int]]]:
        """For each sentence the positions of each occurrence: b lists of lists of s.

        Raises:
            BadInput: there is none, or one stands behind the text encoder's limit.
        """
        return [self._places(text) for text in self.texts(templates)]

    def _places(self, text: str) -> list[list[int]]:
        words, found = self.concept.name + self.suffix, []
        for place in whole(words).finditer(text):
            if self.by == "tokens":
                before = self.model.end(text[: place.start()]) - 1  # tokens before it, without the start token
                found.append([before + p for p in self.model.span(text[place.start() :], words)])
            else:
                first = text[: place.start()].count(" ") + 1  # position 0 is the start token
                found.append(list(range(first, first + len(words.split()))))
            if found[-1][-1] >= self.model.end(text):
                remedy = "shorten the concept's phrase or templates"
                raise BadInput(f"'{text}' is too long for the text encoder to see every '{words}' in it: {remedy}.")
        if not found:
            remedy = "correct the concept's name, phrase or templates"
            raise BadInput(f"'{words}' does not stand in '{text}' as a word of its own: {remedy}.")
        return found

    def spans(self, templates: Sequence[str]) -> list[list[int]]:
        """S for each sentence: b lists of s positions, or of a multiple of s where the name stands several times."""
        return [[p for place in places for p in place] for places in self.places(templates)]

    def ends(self, templates: Sequence[str]) -> list[int]:
        return [self.model.end(text) for text in self.texts(templates)]

    def subjects(self, templates: Sequence[str]) -> list[int]:
        """The name's last token in each sentence, of its last occurrence."""
        return [span[-1] for span in self.spans(templates)]

    def encode(
        self, templates: Sequence[str], delta: Tensor | None = None, place: Literal["output", "input"] = "output"
    ) -> Tensor:
        """E(sentences) (b, L, d) with delta (s, d) added at each occurrence, at the encoder's output or input."""
        if delta is None:
            return self.model.encode(self.texts(templates))
        if place == "input":
            return self.model.encode(self.texts(templates), delta, self.spans(templates))
        return add_at(self.model.encode(self.texts(templates)), delta, self.spans(templates))

    def tokens(self) -> Tensor:
        """e_c on the first occurrence in the first sentence: (s, d)."""
        template = self.concept.templates[:1]
        return self.encode(template)[0, self.places(template)[0][0]]
