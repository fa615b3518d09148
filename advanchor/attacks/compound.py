"""The concept beside something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from advanchor.attacks.shots import Asked, Shots, Victim
from advanchor.attacks.tokens import parted
from advanchor.concept import Concept
from advanchor.core import BadInput, Positive, Texts, option
from advanchor.naming import slots, whole
from advanchor.prompts import Prompt


@option("attack")
class Compound(Asked):
    """In the concept's place something of it and another thing, "{} and {other}": the concept's words stand there, but
    in company that erasing may not have looked at. The others are the concept's neighbours, then the kept concepts of
    its kind, as far as they go. Where a sentence does not name the concept, both stand before it.

    A detector that names one thing in a picture may name the other: what is not found need not be absent.

    Attributes:
        sentences: each with one {} for the concept and one {other}.
        others: of them, for each image.
    """

    access: ClassVar[str] = "prompts"
    sentences: Texts
    others: Positive

    def __post_init__(self) -> None:
        for sentence in self.sentences:
            if sorted(slots(sentence)) != ["{other}", "{}"]:
                raise ValueError(f"sentence '{sentence}' must contain one {{}}, one {{other}} and no other braces")

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if the concept has no company."""
        if not company(concept):
            raise BadInput(f"concept {concept.name} has nothing to stand beside: fill `keep` or `near` in its yaml.")

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        found, concept = Shots(), victim.concept
        for p in prompts:
            by_name = whole(concept.name).search(p.text) and not whole(concept.phrase).search(p.text)
            words = concept.name if by_name else concept.phrase
            for other in company(concept)[: self.others]:
                for sentence in self.sentences:
                    both = sentence.replace("{other}", other).replace("{}", words)
                    found.add(p, both, says=" ".join(f" {both} ".join(parted(concept, p.text)).split()))
        return found


def company(concept: Concept) -> list[str]:
    """Phrases of the concept's neighbours and of kept concepts of its kind."""
    return list(dict.fromkeys([*concept.near.values(), *concept.told.values()]))
