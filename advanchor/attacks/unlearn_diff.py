"""UnlearnDiffAtk: a few searched tokens before the sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from advanchor.attacks.shots import Shots, Victim
from advanchor.attacks.tokens import Descent, Generators, before, descended
from advanchor.core import Need, option
from advanchor.lazy import F, torch
from advanchor.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor


@option("attack")
class UnlearnDiff(Descent):
    """UnlearnDiffAtk (Zhang et al. 2024, arXiv 2310.11868): k tokens before the sentence, each a point on the simplex
    of the vocabulary, descend the attacked network's denoising loss on what the unedited model drew. A token is drawn
    from the point on the way forward, and the gradient goes straight through to the point, clipped to [-1, 1]. After
    every step each point is projected back to the simplex; after every timestep the likeliest tokens are a shot.

    As the release: uniform start, Adam with L2 weight decay, timesteps in ascending order, 3 tokens for objects and
    styles (5 for nudity). Otherwise: all prompts at once, each with random numbers of its own; the noise of the loss is
    drawn anew for each step from the prompt's seed, where the release leaves it unseeded; the search does not stop at
    the first success, so that every budget is the same and chance can be given as many draws; the loss is taken without
    guidance, as there.
    """

    access: ClassVar[str] = "white box"
    needs: ClassVar[tuple[Need, ...]] = ("a single text encoder",)

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        found, table, texts = Shots(), victim.vocabulary(), [p.text for p in prompts]
        points = torch.full((len(prompts), self.tokens, len(table)), 1 / len(table), device=table.device)
        points.requires_grad_(True)

        def under(generators: Generators) -> Tensor:
            each = zip(points.detach().cpu(), generators, strict=True)
            drawn = torch.stack([torch.multinomial(p, 1, generator=g)[:, 0] for p, g in each]).to(table.device)
            return before(victim, texts, straight(points, drawn) @ table)

        for place in descended(self, victim, prompts, points, under, lambda: points.copy_(simplex(points))):
            best = points.detach().argmax(-1)
            with torch.no_grad():
                conds = before(victim, texts, table[best])
            for p, ids, cond in zip(prompts, best.tolist(), conds, strict=True):
                found.add(p, f"t{place}", cond, says=f"{victim.model.words(ids)} {p.text}")
        return found


def straight(points: Tensor, drawn: Tensor) -> Tensor:
    """Points (b, k, V) and tokens drawn from them (b, k) -> one-hot (b, k, V); the gradient goes to the points as it
    is, clipped to [-1, 1].
    """
    through = points - points.detach()  # 0, with the points' gradient
    through.register_hook(lambda gradient: gradient.clamp(-1, 1))
    return F.one_hot(drawn, points.shape[-1]).to(points) + through


def simplex(points: Tensor) -> Tensor:
    """The nearest point (Euclidean) of the simplex for each row (..., V), by sorting (Duchi et al. 2008, ICML)."""
    ordered = points.sort(-1, descending=True).values
    excess = ordered.cumsum(-1) - 1
    count = torch.arange(1, points.shape[-1] + 1, device=points.device)
    last = (ordered - excess / count > 0).sum(-1, keepdim=True)
    return (points - excess.gather(-1, last - 1) / last).clamp(min=0)
