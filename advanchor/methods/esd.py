"""Erased Stable Diffusion with any anchor in the place of the empty prompt (Gandikota et al. 2023, arXiv 2303.07345, eq. 7).

Minimised over theta, the trained weights (e; e0 is the frozen model):

    L = MSE( e(e_c), e0(e_a) - eta * (e0(e_c) - e0(e_a)) )

With anchor=empty this is the paper's. The released code writes it as e0(e_c) - 2 (e0(e_c) - e0(empty)): the same for eta = 1. With `erase_from` the concept is
taken out of another phrase f, as in the release:  L = MSE( e(e_f), e0(e_f) - eta * (e0(e_c) - e0(e_a)) ), on latents of f.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from advanchor.core import Concept, Edit, Log, Model, Positive, Rate, Step, Target, option
from advanchor.pools import Denoising, Pool, Trajectories
from advanchor.training import descend


@option
class ErasedStableDiffusion:
    """Settings of the erasure.

    Attributes:
        scope: the U-Net weights that are trained: attn2 is ESD-x, noxattn ESD-u, full ESD-all, attn2.kv ESD-x-strict.
        steps, lr, batch: Adam updates, learning rate, latents per update.
        eta: negative guidance.
        erase_from: a phrase that keeps everything but the concept ("a cowboy" for the concept "hat"); null erases the concept itself.
        latents: denoise (as published: the frozen model denoises to a random step for each update), pool (`pool` whole runs, drawn once, looked at
            in random places), or images (`pool` finished images, noised again).
        pool: how many runs or images; nothing for denoise.
        pool_steps, pool_guidance: how they are drawn.
    """

    name: str
    scope: str
    steps: Annotated[int, Field(ge=0)]
    lr: Rate
    batch: Positive
    eta: float
    erase_from: str | None
    latents: Literal["denoise", "pool", "images"]
    pool: Positive
    pool_steps: Positive
    pool_guidance: Annotated[float, Field(ge=1)]
    version: int = 1

    def erase(self, model: Model, concept: Concept, target: Target, seed: int, folder: Path, log: Log) -> tuple[Edit, dict[str, float]]:
        theta = {name: w.detach().clone().requires_grad_() for name, w in model.weights(self.scope).items()}
        phrase = self.erase_from or concept.phrase
        source: Denoising | Pool | Trajectories
        if self.latents == "denoise":
            source = Denoising(model, concept, seed, self.pool_steps, self.pool_guidance, phrase)
        else:
            kind = Pool if self.latents == "images" else Trajectories
            source = kind.drawn(model, concept, self.pool, seed, folder, steps=self.pool_steps, guidance=self.pool_guidance, phrase=phrase)

        def loss(i: int, step: Step) -> Tensor:
            return self.loss(step, theta, target.embed(step))

        cost = descend(theta, loss, lambda i, stream: source.step(i, stream, self.batch), target, folder, log, steps=self.steps, lr=self.lr)
        return theta, cost

    def loss(self, step: Step, theta: Edit, anchor: Tensor) -> Tensor:
        """The formula above; `anchor` is e_a (b, L, d)."""
        model, phrase = step.model, self.erase_from or step.concept.phrase
        with torch.no_grad():
            e_a = model.eps(step.x, step.t, anchor)
            e_f = e_a if self.erase_from is None else step.frozen(self.erase_from)
            goal = e_f - self.eta * (step.frozen(step.concept.phrase) - e_a)
        return F.mse_loss(model.eps(step.x, step.t, model.encode(step.texts(phrase)), theta), goal)
