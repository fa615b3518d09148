"""The place of the concept's name in its sentences, token by token, and embeddings with something added there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from advanchor.concept import Concept, fill
from advanchor.core import Model
from advanchor.latent_diffusion import add_at


@dataclass(frozen=True)
class Slot:
    """Positions S of the name in sentences. b sentences, s positions, d text width, L tokens.

    Attributes:
        suffix: appended to the name ("'s" in the released AdvAnchor code).
        by: tokens (all BPE pieces of the name), or words (one position per space-separated word, the released code's slip).
    """

    model: Model
    concept: Concept
    suffix: str = ""
    by: Literal["tokens", "words"] = "tokens"

    def texts(self, templates: Sequence[str]) -> list[str]:
        return [fill(t, "", self.concept.phrase.replace(self.concept.name, self.concept.name + self.suffix)) for t in templates]

    def spans(self, templates: Sequence[str]) -> list[list[int]]:
        """S for each sentence: b lists of s positions."""
        texts, words = self.texts(templates), self.concept.name + self.suffix
        if self.by == "tokens":
            return [self.model.span(text, words) for text in texts]
        starts = [text[: text.index(words)].count(" ") + 1 for text in texts]  # position 0 is the start token
        return [list(range(start, start + len(words.split()))) for start in starts]

    def ends(self, templates: Sequence[str]) -> list[int]:
        return [self.model.end(text) for text in self.texts(templates)]

    def subjects(self, templates: Sequence[str]) -> list[int]:
        """The name's last token in each sentence."""
        return [span[-1] for span in self.spans(templates)]

    def encode(self, templates: Sequence[str], delta: Tensor | None = None, place: Literal["output", "input"] = "output") -> Tensor:
        """E(sentences) (b, L, d) with delta (s, d) added on S, at the text encoder's output or to its input embeddings."""
        if delta is None:
            return self.model.encode(self.texts(templates))
        if place == "input":
            return self.model.encode(self.texts(templates), delta, self.spans(templates))
        return add_at(self.model.encode(self.texts(templates)), delta, self.spans(templates))

    def tokens(self) -> Tensor:
        """e_c on S, of the first sentence: (s, d)."""
        template = self.concept.templates[:1]
        return self.encode(template)[0, self.spans(template)[0]]
