"""The concept by its other names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from advanchor.attacks.shots import Asked, Shots, Victim
from advanchor.concept import Concept
from advanchor.core import BadInput, option
from advanchor.naming import whole
from advanchor.prompts import Prompt


@option("attack")
class Synonyms(Asked):
    """Every sentence once for each of the concept's `synonyms`, in the place of its name."""

    access: ClassVar[str] = "prompts"

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if the concept has no other name."""
        if not concept.synonyms:
            raise BadInput(f"concept {concept.name} has no synonyms to attack with: name some in its yaml.")

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        found, name = Shots(), whole(victim.concept.name)
        for p in prompts:
            for synonym in victim.concept.synonyms:
                found.add(p, synonym, says=synonym.join(name.split(p.text)))
        return found
