"""Anchors that are points in embedding space, in closed form from the concept's own embedding; nothing is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from advanchor.anchors.slot import Slot
from advanchor.anchors.words import Fixed, phrase_of, words
from advanchor.concept import Concept
from advanchor.core import BadInput, option
from advanchor.lazy import torch
from advanchor.naming import fill
from advanchor.protocols import Model, Target

if TYPE_CHECKING:
    from torch import Tensor


@option("anchor")
class Random:
    """Each of the concept's tokens becomes a random direction of the same norm, drawn once from the seed: a point that
    means nothing.
    """

    name: str
    version: int = 1

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        slot = Slot(model, concept)
        direction = torch.randn(slot.tokens().shape, generator=torch.Generator().manual_seed(seed)).to(model.device)
        direction /= direction.norm(dim=-1, keepdim=True)

        def condition(templates: Sequence[str]) -> Tensor:
            e = slot.encode(templates)
            for row, span in zip(e, slot.spans(templates), strict=True):
                row[span] = row[span].norm(dim=-1, keepdim=True) * direction.repeat(len(span) // len(direction), 1)
            return e

        return Fixed(concept, condition, slot.ends, slot.subjects)


@option("anchor")
class Interpolate:
    """e_a = (1 - weight) e_c + weight e_other, whole sentences, position by position.

    Attributes:
        other: superclass, sibling (the concept's first), unrelated, or empty.
        weight: 0 is the concept, 1 the other anchor.
    """

    name: str
    other: Literal["superclass", "sibling", "unrelated", "empty"]
    weight: Annotated[float, Field(ge=0, le=1)]
    version: int = 1

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if the concept does not have the other one: known before a model is loaded."""
        if self.other in ("sibling", "unrelated") and self._name(concept) is None:
            raise BadInput(
                f"concept {concept.name} has no {self.other}: choose another anchor.other, "
                "or add it to the concept's yaml."
            )

    def _name(self, concept: Concept) -> str | None:
        return {"sibling": (concept.siblings or (None,))[0], "unrelated": concept.unrelated}.get(self.other)

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        self.suits(concept)
        name = self._name(concept)
        other = words(
            model,
            concept,
            None if self.other == "empty" else concept.superclass if name is None else phrase_of(concept, name),
        )
        slot = Slot(model, concept)
        own = Fixed(concept, slot.encode, slot.ends, slot.subjects)
        nearer = own if self.weight < 0.5 else other
        return Fixed(
            concept,
            lambda templates: torch.lerp(own.condition(templates), other.condition(templates), self.weight),
            nearer.ends,
            nearer.subjects,
        )


@option("anchor")
class Project:
    """The concept without the direction in which it differs from its superclass.

    v is the unit vector of mean(e_c on the name's tokens) - mean(e_b on the superclass's tokens), averaged over the
    templates, m that of the superclass alone, in each stream of tokens by itself. On the name's tokens
    e_a = e_c - <e_c - m, v> v: nothing is left of the difference along v, all else stays.
    """

    name: str
    version: int = 1

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        slot = Slot(model, concept)
        each = [(Slot(model, concept, among=(k,)), *self._axis(model, concept, k)) for k in slot.streams]

        def condition(templates: Sequence[str]) -> Tensor:
            e = slot.encode(templates)
            for own, mean, v in each:
                for row, span in zip(e, own.spans(templates), strict=True):
                    row[span] = row[span] - ((row[span] - mean) @ v)[:, None] * v
            return e

        return Fixed(concept, condition, slot.ends, slot.subjects)

    def _axis(self, model: Model, concept: Concept, stream: int) -> tuple[Tensor, Tensor]:
        """m and v, each (d,), of the tokens of one stream."""
        above = [fill(t, "", concept.superclass) for t in concept.templates]
        places = [model.span(text, concept.superclass, stream=stream) for text in above]
        slot = Slot(model, concept, among=(stream,))
        own, mean = (
            torch.stack([e[s].mean(0) for e, s in zip(cond, spans, strict=True)]).mean(0)
            for cond, spans in (
                (slot.encode(concept.templates), slot.spans(concept.templates)),
                (model.encode(above), places),
            )
        )
        if not (own - mean).norm() > 0:
            raise BadInput(
                f"'{concept.superclass}' leaves anchor=project nothing to take from {concept.name}: "
                "correct concept.superclass."
            )
        return mean, (own - mean) / (own - mean).norm()
