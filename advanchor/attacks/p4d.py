"""P4D: tokens under which the attacked network predicts what the unedited one does under the sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from tqdm import tqdm

from advanchor.attacks.shots import Asked, Shots, Victim, chance
from advanchor.attacks.tokens import Count, before
from advanchor.core import Need, Positive, Rate, option
from advanchor.lazy import F, torch
from advanchor.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor


@option("attack")
class P4D(Asked):
    """Prompting4Debugging, P4D-N (Chin et al. 2024, arXiv 2309.06135): N tokens instead of the sentence. Free vectors
    are projected to the nearest tokens (by cosine, as PEZ, Wen et al. 2023, arXiv 2302.03668), the loss is taken there
    and its gradient moves the vectors: MSE(e(x_t, tokens), e0(x_t, sentence)) at random t of what the unedited model
    drew. A shot after every so many updates.

    As the release: 16 tokens that begin at random, AdamW with weight decay 0.1, one t for each update. Otherwise: all
    prompts at once, each with random numbers of its own; e0 is without guidance; and every shot counts, where the
    release keeps the one whose picture CLIP finds most like the unedited model's, so chance is given as many draws.

    Attributes:
        tokens: N.
        every: updates between two shots.
    """

    access: ClassVar[str] = "white box"
    needs: ClassVar[tuple[Need, ...]] = ("a single text encoder",)
    tokens: Count
    steps: Positive
    every: Positive
    lr: Rate
    decay: Annotated[float, Field(ge=0)]

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        model, found = victim.model, Shots()
        z, table, spoken = victim.originals(prompts), victim.vocabulary(), torch.tensor(model.spoken())
        goals, generators = model.encode([p.text for p in prompts]), [chance(self, p) for p in prompts]
        first = [spoken[torch.randint(len(spoken), (self.tokens,), generator=g)] for g in generators]
        vectors = table[torch.stack(first).to(table.device)].clone().requires_grad_(True)
        optimiser = torch.optim.AdamW([vectors], lr=self.lr, weight_decay=self.decay)
        for i in tqdm(range(1, self.steps + 1), desc=f"attack {self.name}", unit="step", leave=False):
            t = torch.cat([torch.randint(model.timesteps, (1,), generator=g) for g in generators]).to(z.device)
            noise = torch.stack([torch.randn(z.shape[1:], generator=g) for g in generators]).to(z)
            x = model.noised(z, t, noise)
            with torch.no_grad():
                goal = model.predict(x, t, goals)
            tokens = table[nearest(vectors.detach(), table, spoken)].requires_grad_(True)
            loss = F.mse_loss(victim.predict(x, t, before(victim, [""] * len(prompts), tokens)), goal) * len(prompts)
            (vectors.grad,) = torch.autograd.grad(loss, [tokens])
            optimiser.step()
            if i % self.every == 0 or i == self.steps:
                with torch.no_grad():
                    best = nearest(vectors, table, spoken)
                    conds = before(victim, [""] * len(prompts), table[best])
                for p, ids, cond in zip(prompts, best.tolist(), conds, strict=True):
                    found.add(p, f"step {i}", cond, says=model.words(ids))
        return found


def nearest(vectors: Tensor, table: Tensor, spoken: Tensor) -> Tensor:
    """The tokens (..., k) of those in `spoken` whose vectors point most nearly where these (..., k, d) do."""
    spoken = spoken.to(table.device)
    return spoken[(F.normalize(vectors, dim=-1) @ F.normalize(table[spoken], dim=-1).T).argmax(-1)]
