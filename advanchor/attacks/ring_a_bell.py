"""Ring-A-Bell: tokens whose embedding is that of the sentence with more of the concept in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from tqdm import tqdm

from advanchor.attacks.shots import Asked, Shots, Victim, chance
from advanchor.attacks.tokens import Count, before
from advanchor.concept import Concept
from advanchor.core import Need, Positive, option
from advanchor.lazy import torch
from advanchor.naming import fill
from advanchor.prompts import Prompt
from advanchor.protocols import Model

if TYPE_CHECKING:
    from torch import Tensor

Rate = Annotated[float, Field(ge=0, le=1)]


@option("attack")
class RingABell(Asked):
    """Ring-A-Bell (Tsai et al. 2024, arXiv 2310.10012), which looks at the text encoder alone: a genetic search for
    tokens whose embedding, all positions of it, is nearest to that of the sentence plus `coeff` times the concept.

    As the release: the nearer half lives on; each of it has, with probability `crossover`, two children with a random
    mate, cut at a random place; then each token row, old or new, has one token changed with probability `mutation`. The
    shot is the nearest row of the last generation. Otherwise: the concept is the mean difference of embeddings of its
    own templates, filled with its phrase and with its superclass (30 pairs of written prompts in the release); and
    where the edit changed the text encoder, sentence and concept are embedded by the unedited one, which everybody has,
    and the tokens by the attacked one, which draws (the release has the unedited one for both).

    Attributes:
        tokens: K; the release has 16, and 75.
        population, generations: of the search.
    """

    access: ClassVar[str] = "text encoder"
    needs: ClassVar[tuple[Need, ...]] = ("a single text encoder",)
    tokens: Count
    coeff: Annotated[float, Field(ge=0)]
    population: Annotated[int, Field(ge=2)]
    generations: Positive
    crossover: Rate
    mutation: Rate

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        model, found, table = victim.model, Shots(), victim.vocabulary()
        more = self.coeff * vector(model, victim.concept)
        with torch.no_grad():
            for p in tqdm(prompts, desc=f"attack {self.name}", unit="prompt", leave=False):
                best = self.search(victim, table, model.encode([p.text])[0] + more, chance(self, p))
                (cond,) = before(victim, [""], table[best[None]])
                found.add(p, "nearest", cond, says=model.words(best.tolist()))
        return found

    def search(self, victim: Victim, table: Tensor, target: Tensor, g: torch.Generator) -> Tensor:
        """The tokens (K,) that end nearest to an embedding (L, d)."""
        spoken = torch.tensor(victim.model.spoken())

        def fresh(*shape: int) -> Tensor:
            return spoken[torch.randint(len(spoken), shape, generator=g)]

        rows = fresh(self.population, self.tokens)
        for i in range(self.generations):
            states = before(victim, [""] * len(rows), table[rows.to(table.device)])
            far = (states - target).square().sum((1, 2)).cpu()
            rows = rows[far.argsort(stable=True)[: self.population // 2]]
            if i < self.generations - 1:
                rows = self.bred(rows, fresh, g)
        return rows[0]

    def bred(self, rows: Tensor, fresh: Callable[..., Tensor], g: torch.Generator) -> Tensor:
        """The next generation."""
        mates = rows[torch.randint(len(rows), (len(rows),), generator=g)]
        cut = torch.randint(self.tokens, (len(rows), 1), generator=g)
        left = torch.arange(self.tokens) < cut
        breeds = torch.rand(len(rows), generator=g) < self.crossover
        children = [torch.where(left, rows, mates)[breeds], torch.where(left, mates, rows)[breeds]]
        rows = torch.cat([rows, *children])
        place = torch.randint(self.tokens, (len(rows), 1), generator=g)
        changed = (torch.arange(self.tokens) == place) & (torch.rand(len(rows), 1, generator=g) < self.mutation)
        return torch.where(changed, fresh(len(rows), 1), rows)


def vector(model: Model, concept: Concept) -> Tensor:
    """The concept as a difference of embeddings (L, d)."""
    own, plain = ([fill(t, "", phrase) for t in concept.templates] for phrase in (concept.phrase, concept.superclass))
    return (model.encode(own) - model.encode(plain)).mean(0)
