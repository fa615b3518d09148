"""The concept in other sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from advanchor.attacks.shots import Asked, Shots, Victim
from advanchor.core import Texts, option
from advanchor.naming import fill, slots
from advanchor.prompts import Prompt


@option("attack")
class Paraphrase(Asked):
    """Every attacked image under other sentences, with the concept's phrase in them: was the concept erased, or the
    sentences that erasing looked at?

    The noise is that of the attacked image; the rest of its own sentence is gone.

    Attributes:
        sentences: each with one {} for the phrase.
    """

    access: ClassVar[str] = "prompts"
    sentences: Texts

    def __post_init__(self) -> None:
        for sentence in self.sentences:
            if slots(sentence) != ["{}"]:
                raise ValueError(f"sentence '{sentence}' must contain exactly one {{}} and no other braces")

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        found = Shots()
        for p in prompts:
            for sentence in self.sentences:
                found.add(p, sentence, says=fill(sentence, "", victim.concept.phrase))
        return found
