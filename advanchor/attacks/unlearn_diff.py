"""UnlearnDiffAtk: a few searched tokens before the sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from pydantic import Field
from tqdm import tqdm

from advanchor.attacks.shots import Asked, Shots, Victim, chance
from advanchor.core import Positive, Rate, option
from advanchor.lazy import F, torch
from advanchor.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor


@option("attack")
class UnlearnDiff(Asked):
    """UnlearnDiffAtk (Zhang et al. 2024, arXiv 2310.11868): k tokens before the sentence, each a point on the simplex
    of the vocabulary, descend the attacked network's denoising loss on what the unedited model drew. A token is drawn
    from the point on the way forward, and the gradient goes straight through to the point, clipped to [-1, 1]. After
    every step each point is projected back to the simplex; after every timestep the likeliest tokens are a shot.

    As the release: uniform start, Adam with L2 weight decay, timesteps in ascending order. Otherwise: all prompts at
    once, each with random numbers of its own; the noise of the loss is drawn anew for each step from the prompt's seed,
    where the release leaves it unseeded; the search does not stop at the first success, so that every budget is the
    same and chance can be given as many draws; the loss is taken without guidance, as there.

    Attributes:
        tokens: k. The release has 5 for nudity, 3 for objects and styles.
        timesteps: how many, spread evenly from T / (2 timesteps) on (10, 30, ..., 990 of 1000 in the release).
        steps: updates at each of them.
        lr, decay: Adam's.
    """

    access: ClassVar[str] = "white box"
    tokens: Annotated[int, Field(ge=1, le=16)]
    timesteps: Positive
    steps: Positive
    lr: Rate
    decay: Annotated[float, Field(ge=0)]

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        model, found = victim.model, Shots()
        z, table = victim.originals(prompts), victim.vocabulary()
        points = torch.full((len(prompts), self.tokens, len(table)), 1 / len(table), device=model.device)
        points.requires_grad_(True)
        optimiser = torch.optim.Adam([points], lr=self.lr, weight_decay=self.decay)
        generators = [chance(self, p) for p in prompts]
        places = [round((2 * i + 1) * model.timesteps / (2 * self.timesteps)) for i in range(self.timesteps)]
        with tqdm(total=self.timesteps * self.steps, desc=f"attack {self.name}", unit="step", leave=False) as bar:
            for place in places:
                t = torch.full((len(prompts),), min(place, model.timesteps - 1), device=model.device)
                for _ in range(self.steps):
                    noise = torch.stack([torch.randn(z.shape[1:], generator=g) for g in generators]).to(z)
                    each = zip(points.detach().cpu(), generators, strict=True)
                    drawn = torch.stack([torch.multinomial(p, 1, generator=g)[:, 0] for p, g in each]).to(z.device)
                    cond = self.under(victim, prompts, straight(points, drawn) @ table)
                    loss = F.mse_loss(victim.eps(model.noised(z, t, noise), t, cond), noise) * len(prompts)
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    with torch.no_grad():
                        points.copy_(simplex(points))
                    bar.update()
                best = points.detach().argmax(-1)
                with torch.no_grad():
                    conds = self.under(victim, prompts, table[best])
                for p, ids, cond in zip(prompts, best.tolist(), conds, strict=True):
                    found.add(p, f"t{place}", cond, says=f"{model.words(ids)} {p.text}")
        return found

    def under(self, victim: Victim, prompts: Sequence[Prompt], tokens: Tensor) -> Tensor:
        """Embeddings (b, L, d) of the sentences with tokens, given by what the encoder reads for them (b, k, d), before
        them.
        """
        model = victim.model
        filler = model.words(model.ids("a")[:1])
        texts = [" ".join([*[filler] * self.tokens, p.text]) for p in prompts]
        own = victim.vocabulary()[model.ids("a")[0]]
        spans = [list(range(1, 1 + self.tokens)) for _ in prompts]
        return victim.encode(texts, (tokens - own).flatten(0, 1), spans)


class Straight(torch.autograd.Function):
    """Points (b, k, V) and tokens drawn from them (b, k) -> one-hot (b, k, V); the gradient goes to the points as it
    is, clipped to [-1, 1].
    """

    @staticmethod
    def forward(ctx: Any, points: Tensor, drawn: Tensor) -> Tensor:
        return F.one_hot(drawn, points.shape[-1]).to(points)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp(-1, 1), None


def straight(points: Tensor, drawn: Tensor) -> Tensor:
    """See `Straight`."""
    return cast("Tensor", Straight.apply(points, drawn))  # type: ignore[no-untyped-call]


def simplex(points: Tensor) -> Tensor:
    """The nearest point (Euclidean) of the simplex for each row (..., V), by sorting (Duchi et al. 2008, ICML)."""
    ordered = points.sort(-1, descending=True).values
    excess = ordered.cumsum(-1) - 1
    count = torch.arange(1, points.shape[-1] + 1, device=points.device)
    last = (ordered - excess / count > 0).sum(-1, keepdim=True)
    return (points - excess.gather(-1, last - 1) / last).clamp(min=0)
