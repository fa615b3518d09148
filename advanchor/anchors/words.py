"""Anchors that are words: the concept's sentences with other words, or none, in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F

from advanchor.core import Concept, Model, Step, Target, fill, option

if TYPE_CHECKING:
    from torch import Tensor


class Fixed:
    """Embeds each sentence with a phrase in the concept's place; nothing is learned.

    Args:
        phrase: what fills `{}`; None is the empty prompt, whatever the sentence.
    """

    def __init__(self, model: Model, concept: Concept, phrase: str | None) -> None:
        self.model, self.concept, self.phrase = model, concept, phrase

    def rehearsals(self, steps: int) -> int:
        return 0

    def rehearse(self, step: Step) -> None:
        """Words have nothing to learn."""

    def embed(self, step: Step) -> Tensor:
        return self.model.encode([self._text(t) for t in step.templates])

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Words have no state."""

    def scalars(self) -> dict[str, float]:
        return {}

    def report(self) -> dict[str, float]:
        """Mean cosine of the pooled text embedding with the concept's, over the templates."""
        texts = self.concept.templates
        a, c = self.model.pooled([self._text(t) for t in texts]), self.model.pooled([fill(t, "", self.concept.phrase) for t in texts])
        return {"anchor/cosine_pooled": float(F.cosine_similarity(a, c).mean())}

    def _text(self, template: str) -> str:
        return "" if self.phrase is None else fill(template, "", self.phrase)


@option
class Superclass:
    """The concept's superclass: "an animal" for a fox (Kumari et al. 2023, arXiv 2303.13516)."""

    name: str
    version: int = 1

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        return Fixed(model, concept, concept.superclass)


@option
class Empty:
    """The empty prompt (the neutral prediction of ESD, arXiv 2303.07345)."""

    name: str
    version: int = 1

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        return Fixed(model, concept, None)


@option
class Text:
    """Any words in the concept's place, for example anchor.text="a dog"."""

    name: str
    text: str
    version: int = 1

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        return Fixed(model, concept, self.text)


@option
class Same:
    """The concept itself: the identity, under which nothing is erased. A control."""

    name: str
    version: int = 1

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        return Fixed(model, concept, concept.phrase)
