"""Concept semi-permeable membrane with any anchor as its neutral concept (Lyu et al. 2024, arXiv 2312.16145, eqs. 3 to 5).

Minimised over rank-r factors of the weight matrices in the U-Net's transformer blocks (e; e0 is the frozen model):

    L = MSE( e(e_c), e0(e_a) - eta * (e0(e_c) - e0(e_a)) ) + surround * MSE( e(r), e0(r) )

r are random embeddings around the concept ("latent anchoring"): Gaussian directions of whole sentences, kept with probability 1 - cos(r, e_c), of 0.8 to 1.2 times its norm.
Against the release: the membranes are always open (no "facilitated transport", which scales them by each prompt's similarity when it is drawn), Adam with a constant
learning rate instead of AdamW with cosine restarts, and latents of the frozen model instead of the one in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from advanchor.core import Edit, Log, Model, Positive, Rate, Target, UNetScope, option
from advanchor.pools import Latents, looked_at, random
from advanchor.step import Step
from advanchor.training import anchor_of, descend


@option("method")
class SemiPermeableMembrane:
    """Settings of the erasure.

    Attributes:
        scope: where the matrices are chosen; the release's is transformers: every linear and convolution layer of the transformer blocks.
        rank: of the factors.
        steps, lr, batch: Adam updates, learning rate, latents per update.
        eta: negative guidance.
        surround: weight of latent anchoring; 0 leaves it out.
        surroundings: random embeddings per update.
        latents: where it looks (pools.looked_at); pool, pool_steps, pool_guidance: how many runs or images and how they are drawn.
    """

    name: str
    scope: UNetScope
    rank: Positive
    steps: Annotated[int, Field(ge=0)]
    lr: Rate
    batch: Positive
    eta: float
    surround: Annotated[float, Field(ge=0)]
    surroundings: Positive
    latents: Latents
    pool: Positive
    pool_steps: Positive
    pool_guidance: Annotated[float, Field(ge=1)]
    version: int = 1

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        theta = factors(model.weights(self.scope), self.rank, random(seed, 3, 0, 0))
        source = looked_at(self.latents, model, targets, seed, folder, pool=self.pool, steps=self.pool_steps, guidance=self.pool_guidance)

        def loss(i: int, step: Step) -> Tensor:
            return self.loss(step, theta, anchor_of(targets, step).embed(step), surrounding(step, self.surroundings, random(seed, 3, 1, i)))

        descend(theta, loss, source, targets, folder, log, steps=self.steps, lr=self.lr, batch=self.batch)
        return theta

    def loss(self, step: Step, theta: Edit, anchor: Tensor, around: Tensor) -> Tensor:
        """The formula above; `anchor` is e_a (b, L, d), `around` r (n, L, d), each at the step's latents in turn."""
        model, rows = step.model, torch.arange(len(around)) % len(step.x)
        with torch.no_grad():
            e_a = model.eps(step.x, step.t, anchor)
            goal = e_a - self.eta * (step.frozen(step.concept.phrase) - e_a)
        erased = F.mse_loss(model.eps(step.x, step.t, model.encode(step.texts(step.concept.phrase)), theta), goal)
        if self.surround == 0:
            return erased
        with torch.no_grad():
            before = model.eps(step.x[rows], step.t[rows], around)
        return erased + self.surround * F.mse_loss(model.eps(step.x[rows], step.t[rows], around, theta), before)


def factors(weights: Edit, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Leaves "lowrank.<name>.down" (r, in), uniform on +-1/sqrt(in), and ".up" (out, r), zero, for every matrix and kernel."""
    theta: dict[str, Tensor] = {}
    for name, w in weights.items():
        if w.ndim > 1:
            wide = w[0].numel()
            down = (2 * torch.rand(rank, wide, generator=generator) - 1) / wide**0.5
            theta |= {f"lowrank.{name}.down": down.to(w.device), f"lowrank.{name}.up": torch.zeros(w.shape[0], rank, device=w.device)}
    return {name: tensor.requires_grad_() for name, tensor in theta.items()}


def surrounding(step: Step, n: int, generator: torch.Generator) -> Tensor:
    """n random embeddings (n, L, d) around the sentences of a step."""
    e_c = step.model.encode(step.texts(step.concept.phrase))
    found: list[Tensor] = []
    while len(found) < n:
        own = e_c[len(found) % len(e_c)]
        direction = torch.randn(own.shape, generator=generator).to(own.device)
        if float(torch.rand((), generator=generator)) < 1 - float(F.cosine_similarity(direction.flatten(), own.flatten(), dim=0)):
            found.append((0.8 + 0.4 * float(torch.rand((), generator=generator))) * own.norm() * direction / direction.norm())
    return torch.stack(found)
