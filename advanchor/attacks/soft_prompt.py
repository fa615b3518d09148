"""A few searched vectors before the sentence, which need not be tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from advanchor.attacks.shots import Shots, Victim, chance
from advanchor.attacks.tokens import Descent, before, descended
from advanchor.core import Need, option
from advanchor.lazy import torch
from advanchor.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor


@option("attack")
class SoftPrompt(Descent):
    """k vectors before the sentence at the input of the text encoder (prompt tuning, Lester et al. 2021, arXiv
    2104.08691), each free, descend the attacked network's denoising loss on what the unedited model drew: the search of
    `unlearn_diff` on the same budget, without its simplex. No sentence says them: it bounds what any prefix of k words
    can do, and can also teach what was never known, so `never` belongs to it.

    The vectors begin as k tokens of the vocabulary, drawn by the prompt's chance; after every timestep they are a shot.
    No release has this attack: k, timesteps and steps are UnlearnDiffAtk's.
    """

    access: ClassVar[str] = "white box"
    needs: ClassVar[tuple[Need, ...]] = ("a single text encoder",)

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        found, table, texts = Shots(), victim.vocabulary(), [p.text for p in prompts]
        first = [torch.randint(len(table), (self.tokens,), generator=chance(self, p, 1)) for p in prompts]
        vectors = table[torch.stack(first).to(table.device)].clone().requires_grad_(True)

        def under(*_: object) -> Tensor:
            return before(victim, texts, vectors)

        for place in descended(self, victim, prompts, vectors, under):
            with torch.no_grad():
                conds = under()
            for p, cond in zip(prompts, conds, strict=True):
                found.add(p, f"t{place}", cond)
        return found
