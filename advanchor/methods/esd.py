"""Erased Stable Diffusion with any anchor in the place of the empty prompt (Gandikota et al. 2023, arXiv 2303.07345,
eq. 7).

Minimised over theta, the trained weights (e; e0 is the frozen model):

    L = MSE( e(e_c), e0(e_a) - eta * (e0(e_c) - e0(e_a)) )

With anchor=empty this is the paper's. With `erase_from` the concept is taken out of another phrase f, on latents of f:

    L = MSE( e(e_f), e0(e_f) - (1 + eta) * (e0(e_c) - e0(e_a)) )          the formula above for f = c

The released code has the second formula alone and calls 1 + eta, its 2, negative guidance: our eta = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from advanchor.core import Log, Positive, Rate, Scope, Steps, option
from advanchor.lazy import F, torch
from advanchor.protocols import Edit, Model, Step, Target
from advanchor.training.loop import anchor_of, descend, leaves
from advanchor.training.pools import Latents, looked_at

if TYPE_CHECKING:
    from torch import Tensor


@option("method")
class ErasedStableDiffusion:
    """Settings of the erasure.

    Attributes:
        scope: the U-Net weights that are trained: attn2 is ESD-x, noxattn ESD-u, full ESD-all, attn2.kv ESD-x-strict.
        steps, lr, batch: Adam updates, learning rate, latents per update.
        eta: negative guidance, of the paper; the release's number is one more.
        erase_from: a phrase that keeps everything but the concept ("a cowboy" for the concept "hat"); null erases the
            concept itself.
        latents: where it looks: denoise as published, pool or images (pools.looked_at).
        pool: how many runs or images; not used by denoise.
        pool_steps, pool_guidance: how they are drawn.
    """

    open_ended: ClassVar = True
    name: str
    scope: Scope
    steps: Annotated[int, Field(ge=0)]
    lr: Rate
    batch: Positive
    eta: float
    erase_from: Annotated[str, Field(min_length=1)] | None
    latents: Latents
    pool: Positive
    pool_steps: Steps
    pool_guidance: Annotated[float, Field(ge=1)]
    version: int = 2

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        theta = leaves(model.weights(self.scope))
        source = looked_at(
            self.latents,
            model,
            targets,
            seed,
            folder,
            pool=self.pool,
            steps=self.pool_steps,
            guidance=self.pool_guidance,
            phrase=self.erase_from,
        )

        def loss(i: int, step: Step) -> Tensor:
            return self.loss(step, theta, anchor_of(targets, step).embed(step))

        descend(theta, loss, source, targets, folder, log, steps=self.steps, lr=self.lr, batch=self.batch)
        return theta

    def loss(self, step: Step, theta: Edit, anchor: Tensor) -> Tensor:
        """The formula above; `anchor` is e_a (b, L, d)."""
        model, phrase = step.model, self.erase_from or step.concept.phrase
        with torch.no_grad():
            e_a, e_c = model.predict(step.x, step.t, anchor), step.frozen(step.concept.phrase)
            goal = e_a - self.eta * (e_c - e_a)
            if self.erase_from is not None:
                goal = step.frozen(self.erase_from) - (1 + self.eta) * (e_c - e_a)
        return F.mse_loss(model.predict(step.x, step.t, model.encode(step.texts(phrase), weights=theta), theta), goal)
