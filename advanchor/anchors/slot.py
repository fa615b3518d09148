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
    """Rows S of the name in sentences: of every one of its occurrences, wherever they stand, in each stream of tokens.

    b sentences, s tokens of the name, of one stream after the other, d text width, L rows.

    Attributes:
        among: the streams that are looked at; all unless given.
        sentence: the row of the whole sentence is the name's too.
        suffix: appended to the name ("'s" in the released AdvAnchor code), wherever it stands as words of their own.
        by: tokens (all BPE pieces of the name), or words (one position per space-separated word, the released code's
            slip).
    """

    model: Model
    concept: Concept
    suffix: str = ""
    by: Literal["tokens", "words"] = "tokens"
    among: tuple[int, ...] | None = None
    sentence: bool = False

    @property
    def streams(self) -> tuple[int, ...]:
        return tuple(range(len(self.model.streams))) if self.among is None else self.among

    def texts(self, templates: Sequence[str]) -> list[str]:
        texts = [fill(t, "", self.concept.phrase) for t in templates]
        return [whole(self.concept.name).sub(lambda name: name[0] + self.suffix, text) for text in texts]

    def places(self, templates: Sequence[str]) -> list[list[list[int]]]:
        """For each sentence the rows of each occurrence: b lists of lists of s.

        Raises:
            BadInput: there is none, or one stands behind the text encoder's limit.
        """
        return [self._places(text) for text in self.texts(templates)]

    def _places(self, text: str) -> list[list[int]]:
        words = self.concept.name + self.suffix
        found: list[list[int]] = []
        for place in whole(words).finditer(text):
            found.append([])
            for stream in self.streams:
                if self.by == "tokens":
                    own = self.model.span(text, words, place.start(), stream)
                else:
                    first = self.model.end("", stream) + text[: place.start()].count(" ")
                    own = list(range(first, first + len(words.split())))
                if own[-1] >= self.model.end(text, stream):
                    remedy = "shorten the concept's phrase or templates"
                    raise BadInput(f"'{text}' is too long for the text encoder to see every '{words}' in it: {remedy}.")
                found[-1] += own
        if not found:
            remedy = "correct the concept's name, phrase or templates"
            raise BadInput(f"'{words}' does not stand in '{text}' as a word of its own: {remedy}.")
        return found

    def spans(self, templates: Sequence[str]) -> list[list[int]]:
        """S for each sentence: b lists of s rows, or of a multiple of s where the name stands several times."""
        return [[p for place in places for p in place] for places in self.places(templates)]

    def ends(self, templates: Sequence[str]) -> list[int]:
        return [self.model.end(text) for text in self.texts(templates)]

    def subjects(self, templates: Sequence[str]) -> list[list[int]]:
        """The name's last token in each sentence, of its last occurrence, in each stream."""
        each = [Slot(self.model, self.concept, self.suffix, self.by, (stream,)) for stream in self.streams]
        return [[span[-1] for span in row] for row in zip(*(one.spans(templates) for one in each), strict=True)]

    def encode(
        self, templates: Sequence[str], delta: Tensor | None = None, place: Literal["output", "input"] = "output"
    ) -> Tensor:
        """E(sentences) (b, L, d) with delta (s, d) added at each occurrence, at the encoder's output or input; with
        `sentence` delta is (s + 1, d), and its last row is added to that of the whole sentence, at the output.
        """
        if delta is None:
            return self.model.encode(self.texts(templates))
        if place == "input":
            return self.model.encode(self.texts(templates), delta, self.spans(templates))
        e = self.model.encode(self.texts(templates))
        if not self.sentence:
            return add_at(e, delta, self.spans(templates))
        e = add_at(e, delta[:-1], self.spans(templates))
        return add_at(e, delta[-1:], [[self.model.length]] * len(e))

    def tokens(self) -> Tensor:
        """e_c on the first occurrence in the first sentence, and with `sentence` of the whole of it: (s, d)."""
        template = self.concept.templates[:1]
        rows = self.places(template)[0][0]
        return self.encode(template)[0, [*rows, *([self.model.length] if self.sentence else [])]]
