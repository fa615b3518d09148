"""Sentences from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from advanchor.attacks.shots import Asked, Shots, Victim
from advanchor.concept import Concept
from advanchor.core import option
from advanchor.prompts import Prompt, rows_of


@option("attack")
class Prompts(Asked):
    """The sentences of a CSV file, whoever found them: what an attack on another network left (prompts.csv beside its
    shots.json), or a published set.

    With a column `of` each row is another way to say that plain sentence: a shot at the attacked image of that sentence
    and seed, under its noise. Without one every row stands for itself, as in I2P (Schramowski et al. 2023, arXiv
    2211.05105), which never names what its pictures show: it is drawn from its own text and seed, there is no `before`
    (0), and `chance` is the same row with another seed. Compare `hit` then with what method=none gives.

    Attributes:
        file: read as `concept.prompts_csv` is (advanchor.prompts.rows).
        prompts: of rows that stand for themselves, how many, the first ones evenly over the file.
    """

    access: ClassVar[str] = "prompts"
    file: str

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if the file cannot be read."""
        rows_of(self.file, f"attack.{self.name}.file")

    def attacked(self, concept: Concept, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Of the erased concept's images those that a row is of, or the rows themselves."""
        rows = rows_of(self.file, f"attack.{self.name}.file")
        if any(of for _, _, of in rows):
            asked = {(of, seed) for _, seed, of in rows}
            return [p for p in prompts if (p.text, p.seed) in asked]
        return [Prompt(text, seed, concept.kind, concept.name) for text, seed, _ in rows]

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        found, rows = Shots(), rows_of(self.file, f"attack.{self.name}.file")
        for p in prompts:
            for text, seed, of in rows:
                if (of or text, seed) == (p.text, p.seed):
                    found.add(p, text, says=text if of else "")
        return found
