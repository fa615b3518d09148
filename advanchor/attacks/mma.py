"""MMA-Diffusion: a sentence that the text encoder takes for the concept's, without the concept's words."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, ClassVar

from tqdm import tqdm

from advanchor.attacks.shots import Asked, Shots, Victim, chance
from advanchor.attacks.tokens import Count, before, filler
from advanchor.concept import Concept
from advanchor.core import Need, Positive, option
from advanchor.lazy import F, torch
from advanchor.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor


@option("attack")
class MMA(Asked):
    """The text attack of MMA-Diffusion (Yang et al. 2024, arXiv 2311.17516), which looks at the text encoder alone:
    greedy coordinate gradients (Zou et al. 2023, arXiv 2307.15043) on the cosine between the embedding at the end token
    and that of the plain sentence. No token may hold one of the concept's words.

    As the release: 20 tokens, of each the `top` by gradient, `candidates` rows with one token exchanged, the nearest of
    them goes on; rows that would be read as other tokens are passed over. Otherwise: it begins at random whole words;
    the nearest row ever is the shot, one for each restart, without a filter or a checker to get past; words that are
    banned are the concept's name and synonyms, not a list of nudity; and where the edit changed the text encoder, the
    plain sentence is embedded by the unedited one, the tokens by the attacked one.

    Attributes:
        restarts: searches for each image, each a shot.
    """

    access: ClassVar[str] = "text encoder"
    needs: ClassVar[tuple[Need, ...]] = ("a single text encoder",)
    tokens: Count
    steps: Positive
    candidates: Positive
    top: Positive
    restarts: Positive

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        model, found = victim.model, Shots()
        allowed = permitted(victim)
        work = [(p, i) for p in prompts for i in range(self.restarts)]
        for p, i in tqdm(work, desc=f"attack {self.name}", unit="search", leave=False):
            goal = model.encode([p.text])[0, model.end(p.text)]
            ids = self.search(victim, goal, allowed, chance(self, p, i))
            found.add(p, f"restart {i}", says=model.words(ids))
        return found

    def search(self, victim: Victim, goal: Tensor, allowed: Tensor, g: torch.Generator) -> list[int]:
        """Tokens whose embedding at the end token points where `goal` (d,) does, the nearest that were tried."""
        model, table = victim.model, victim.vocabulary()
        end = model.end(" ".join([filler(victim)] * self.tokens))
        order = allowed[torch.randperm(len(allowed), generator=g)].tolist()
        whole_words = (one for one in order if model.ids(model.words([one])) == [one])
        row = [next(whole_words) for _ in range(self.tokens)]
        best, nearest = row, -2.0
        places = torch.arange(self.candidates) * self.tokens // self.candidates
        for _ in range(self.steps):
            one_hot = F.one_hot(torch.tensor(row), len(table)).to(table).requires_grad_(True)
            near = F.cosine_similarity(before(victim, [""], (one_hot @ table)[None])[0, end], goal, dim=0)
            if float(near.detach()) > nearest:
                best, nearest = row, float(near.detach())
            (gradient,) = torch.autograd.grad(near, [one_hot])
            ranked = gradient[:, allowed.to(table.device)].topk(min(self.top, len(allowed)), 1).indices.cpu()
            picked = torch.randint(ranked.shape[1], (self.candidates,), generator=g)
            rows = torch.tensor(row).repeat(self.candidates, 1)
            rows[torch.arange(self.candidates), places] = allowed[ranked[places, picked]]
            same = [list(one) for one in dict.fromkeys(map(tuple, rows.tolist())) if said(victim, one)]
            if not same:
                continue
            with torch.no_grad():
                states = before(victim, [""] * len(same), table[torch.tensor(same).to(table.device)])[:, end]
                row = same[int(F.cosine_similarity(states, goal, dim=1).argmax())]
        with torch.no_grad():
            last = F.cosine_similarity(before(victim, [""], table[torch.tensor([row])])[0, end], goal, dim=0)
        return row if float(last) > nearest else best


def said(victim: Victim, row: Sequence[int]) -> bool:
    """Is the row read as itself when it is written out?"""
    return victim.model.ids(victim.model.words(row)) == list(row)


def permitted(victim: Victim) -> Tensor:
    """Tokens that hold none of the concept's words."""
    banned = words(victim.concept)
    return torch.tensor([i for i in victim.model.spoken() if not holds(victim.model.words([i]), banned)])


def words(concept: Concept) -> set[str]:
    """Of the concept's name and synonyms, in small letters."""
    return {word for name in (concept.name, *concept.synonyms) for word in re.findall(r"[^\W_]+", name.lower())}


def holds(token: str, banned: Collection[str]) -> bool:
    """Is one of the words in the token?"""
    return any(word in token.lower() for word in banned)
