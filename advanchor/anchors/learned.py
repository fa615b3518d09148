"""A learned mixture over nearby vocabulary, after AGE (Bui et al. 2025, "Adaptive Guided Erasure")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from advanchor.anchors.search import Loss, Schedule, Search
from advanchor.anchors.words import Fixed, nearest, vocabulary, words
from advanchor.concept import Concept
from advanchor.core import BadInput, Positive, Rate, option
from advanchor.lazy import torch
from advanchor.naming import fill
from advanchor.protocols import Model

if TYPE_CHECKING:
    from torch import Tensor


@option("anchor")
class Learned:
    """e_a = sum_k softmax(w / temperature)_k E(sentence with phrase k), with w found by search.py.

    The vocabulary is the `words` phrases nearest to the concept (cosine of the sentences' embeddings) among its kept
    neighbours of the same kind and its superclass. Against AGE: AdvAnchor's loss on the frozen model instead of AGE's
    min-max on the preservation term (whose released ascent step carries no gradient to the target), softmax instead of
    Gumbel-softmax, whole sentences are mixed, and only the target is learned.

    Attributes:
        loss, schedule, steps, lr, stop: see search.py.
        words: size of the vocabulary, at most: the nearest so many, or all where a concept has fewer around it.
        temperature: of the softmax; the mixture starts uniform. As a divisor of w it acts as Adam's learning rate does:
            lr / temperature is what counts.
    """

    name: str
    loss: Loss
    schedule: Schedule
    steps: Positive
    lr: Rate
    stop: float
    words: Annotated[int, Field(ge=2)]
    temperature: Rate
    version: int = 1

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if there is nothing to mix: known before a model is loaded."""
        if len(vocabulary(concept, around(concept))) < 2:
            raise BadInput(
                f"anchor=learned mixes phrases around {concept.name}, and there are no two: fill `keep`, "
                "or take another."
            )

    def start(self, model: Model, concept: Concept, seed: int) -> Search:
        self.suits(concept)
        phrases = nearest(model, concept, around(concept))[: self.words]
        w = torch.zeros(len(phrases), device=model.device, requires_grad=True)

        def mixture(templates: Sequence[str]) -> Tensor:
            each = torch.stack([model.encode([fill(t, "", p) for t in templates]) for p in phrases])
            return torch.einsum("k,kbld->bld", (w / self.temperature).softmax(0), each)

        def heaviest() -> Fixed:
            """A mixture of sentences of different lengths has no end of its own."""
            return words(model, concept, phrases[int(w.argmax())])

        return Search(
            concept,
            w,
            mixture,
            lambda templates: heaviest().ends(templates),
            lambda templates: heaviest().subjects(templates),
            loss=self.loss,
            schedule=self.schedule,
            steps=self.steps,
            lr=self.lr,
            stop=self.stop,
        )


def around(concept: Concept) -> list[str]:
    """What a mixture is made of: the concept's kept neighbours of the same kind and its superclass."""
    return [*concept.keep.values(), concept.superclass]
