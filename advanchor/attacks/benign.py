"""A few steps of ordinary training on images of other things: does the concept come back by itself?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from advanchor.attacks.relearn import Training, trained
from advanchor.attacks.shots import Shots, Victim
from advanchor.concept import Concept, kept
from advanchor.core import option
from advanchor.prompts import Prompt


@option("attack")
class Benign(Training):
    """Concept resurgence (Suriyakumar et al. 2024, arXiv 2410.08074): the attacked network is fine-tuned as by
    `relearn`, on pictures of kept concepts of the erased one's kind, none of which shows it. Nobody need want it back.

    The pictures are the unedited model's own, in the concept's templates, and few, as of a user; the paper's data and
    settings are not followed. What comes back in a model that never learned the concept was learned from what it shares
    with others, so `never` belongs to it.
    """

    access: ClassVar[str] = "weights"

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if the concept keeps nothing of its own kind."""
        kept(concept)

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        texts = kept(victim.concept)
        chosen = [texts[i * len(texts) // self.pictures % len(texts)] for i in range(self.pictures)]
        return trained(self, victim, prompts, chosen)
