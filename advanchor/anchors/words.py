"""Anchors that are words: the concept's sentences with other words, or none, in its place. Nothing is learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from advanchor.anchors.slot import Slot
from advanchor.concept import Concept
from advanchor.core import BadInput, option
from advanchor.lazy import F, torch
from advanchor.naming import fill, whole
from advanchor.protocols import Model, Step, Target

if TYPE_CHECKING:
    from torch import Tensor


class Fixed:
    """An anchor that never changes.

    Args:
        condition: sentences with a slot -> e_a (b, L, d).
        ends, subjects: rows of those sentences' end tokens, and of the last token of what stands in the slot, one for
            each stream of tokens.
    """

    def __init__(
        self,
        concept: Concept,
        condition: Callable[[Sequence[str]], Tensor],
        ends: Callable[[Sequence[str]], list[int]],
        subjects: Callable[[Sequence[str]], list[list[int]]],
    ) -> None:
        self.concept, self.condition, self.ends, self.subjects = concept, condition, ends, subjects

    def rehearsals(self, steps: int) -> int:
        return 0

    def rehearse(self, step: Step) -> None:
        """Nothing to learn."""

    def embed(self, step: Step) -> Tensor:
        return self.condition(step.templates)

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """No state."""

    def scalars(self) -> dict[str, float]:
        return {}

    def report(self) -> dict[str, float]:
        return {}


def words(model: Model, concept: Concept, phrase: str | None) -> Fixed:
    """Sentences with `phrase` in the slot; None is the empty prompt, whatever the sentence."""

    def texts(templates: Sequence[str]) -> list[str]:
        return ["" if phrase is None else fill(t, "", phrase) for t in templates]

    def subjects(templates: Sequence[str]) -> list[list[int]]:
        ahead = ["" if phrase is None else fill(t.partition("{}")[0] + "{}", "", phrase) for t in templates]
        return [[model.last(text, stream) for stream in range(len(model.streams))] for text in ahead]

    return Fixed(
        concept,
        lambda templates: model.encode(texts(templates)),
        lambda templates: [model.end(t) for t in texts(templates)],
        subjects,
    )


def phrase_of(concept: Concept, name: str) -> str:
    """How another concept's name stands in a sentence: its kept phrase ("an owl"), or this concept's with the name
    exchanged.
    """
    return concept.keep.get(name, whole(concept.name).sub(lambda _: name, concept.phrase))


@option("anchor")
class Superclass:
    """The concept's superclass: "an animal" for a fox (Kumari et al. 2023, arXiv 2303.13516)."""

    name: str
    version: int = 1

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        return words(model, concept, concept.superclass)


@option("anchor")
class Empty:
    """The empty prompt (the neutral prediction of ESD, arXiv 2303.07345)."""

    name: str
    version: int = 1

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        return words(model, concept, None)


@option("anchor")
class Text:
    """Any words in the concept's place, for example anchor.text="a dog"; no words leave the rest of the sentence."""

    name: str
    text: str
    version: int = 1

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        return words(model, concept, self.text)


@option("anchor")
class Same:
    """The concept itself: the identity, under which nothing is erased. A control."""

    name: str
    version: int = 1

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        slot = Slot(model, concept)
        return Fixed(concept, slot.encode, slot.ends, slot.subjects)


@option("anchor")
class Sibling:
    """A look-alike: "a wolf" for a fox.

    Attributes:
        of: a name ("wolf"), first (of the concept's `siblings`), or nearest (among the kept concepts of its kind, in
            text-embedding space).
    """

    name: str
    of: str
    version: int = 1

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if the concept has none: known before a model is loaded."""
        if self.of == "first" and not concept.siblings:
            raise BadInput(f"concept {concept.name} names no siblings: set anchor.of to a name, or to nearest.")
        if self.of == "nearest" and not concept.keep:
            raise BadInput(
                f"concept {concept.name} keeps nothing to take the nearest of: set anchor.of to a name, or fill `keep`."
            )

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        self.suits(concept)
        if self.of == "nearest":
            return words(model, concept, nearest(model, concept, list(concept.keep.values()))[0])
        return words(model, concept, phrase_of(concept, concept.siblings[0] if self.of == "first" else self.of))


@option("anchor")
class Unrelated:
    """The concept's `unrelated` object or style: "a guitar" for a fox."""

    name: str
    version: int = 1

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if the concept has none: known before a model is loaded."""
        if concept.unrelated is None:
            raise BadInput(
                f"concept {concept.name} names nothing unrelated: add `unrelated` to its yaml, or use anchor=text."
            )

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        self.suits(concept)
        assert concept.unrelated is not None
        return words(model, concept, phrase_of(concept, concept.unrelated))


def sentences(model: Model, cond: Tensor, ends: Sequence[int]) -> Tensor:
    """What conditions (b, L, d) have of the whole sentence, (b, n): a row of its own, or what stands at its end."""
    return cond[:, -1, : model.pooled] if model.pooled else cond[torch.arange(len(cond)), list(ends)]


def vocabulary(concept: Concept, phrases: Sequence[str]) -> list[str]:
    """The distinct phrases that are not the concept's own."""
    return [p for p in dict.fromkeys(phrases) if p != concept.phrase]


def nearest(model: Model, concept: Concept, phrases: Sequence[str]) -> list[str]:
    """The phrases, most similar to the concept first: cosine of the embeddings of whole sentences, mean over the
    templates.
    """

    def pooled(phrase: str) -> Tensor:
        texts = [fill(t, "", phrase) for t in concept.templates]
        return sentences(model, model.encode(texts), [model.end(t) for t in texts])

    own = pooled(concept.phrase)
    return sorted(vocabulary(concept, phrases), key=lambda p: -float(F.cosine_similarity(pooled(p), own).mean()))
