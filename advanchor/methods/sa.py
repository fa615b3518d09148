"""Selective Amnesia with any anchor behind its surrogate images (Heng & Soh 2023, arXiv 2305.10120, eq. 6).

Minimised over theta (e; e0 is the frozen model with weights theta0):

    L = MSE( e(s_t, e_c), noise ) + gamma * MSE( e(r_t, e_r), noise ) + lamb * sum_i F_i (theta_i - theta0_i)^2

s are surrogate images, drawn by the frozen model under the anchor and captioned as the concept; r images of kept
concepts under their own sentences e_r (replay); F is the diagonal Fisher information of the frozen model, the mean over
single replayed latents of the squared gradient of the denoising loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from advanchor.concept import Concept, kept
from advanchor.core import Log, Positive, Rate, Scope, Steps, option
from advanchor.lazy import F, torch
from advanchor.protocols import Edit, Model, Step, Target
from advanchor.store import read_tensors, write_tensors
from advanchor.training.loop import descend, leaves, settle
from advanchor.training.pools import Pool, Source, Turns

if TYPE_CHECKING:
    from torch import Tensor


@option("method")
class SelectiveAmnesia:
    """Settings of the erasure.

    Attributes:
        scope: the U-Net weights that are trained.
        steps, lr, batch: Adam updates, learning rate, latents per update of each kind. (The paper's AdamW has weight
            decay; EWC makes it superfluous.)
        gamma: weight of the replay.
        lamb: weight of elastic weight consolidation.
        fisher: latents for the Fisher information.
        pool: surrogate images, and as many replayed ones; pool_steps, pool_guidance: how they are drawn.
        anchor_steps: batches on which an anchor that learns learns, on as many images of the concept, before it draws
            the surrogates; not used by other anchors.
    """

    open_ended: ClassVar = True
    name: str
    scope: Scope
    steps: Annotated[int, Field(ge=0)]
    lr: Rate
    batch: Positive
    gamma: Annotated[float, Field(ge=0)]
    lamb: Annotated[float, Field(ge=0)]
    fisher: Positive
    pool: Positive
    pool_steps: Steps
    pool_guidance: Annotated[float, Field(ge=1)]
    anchor_steps: Annotated[int, Field(ge=0)]
    version: int = 1

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        for target in targets:
            self.suits(target.concept)
        draw = partial(
            Pool.drawn,
            model,
            count=self.pool,
            seed=seed,
            folder=folder,
            steps=self.pool_steps,
            guidance=self.pool_guidance,
        )
        finished = settle(targets, draw, folder, log, steps=self.anchor_steps, batch=self.batch)
        surrogate = Turns([draw(t.concept, under=t, name="surrogates") for t in finished])
        replay = Turns([draw(t.concept, sentences=kept(t.concept), name="kept") for t in finished])
        file = folder / "fisher.safetensors"
        if not file.exists():
            write_tensors(file, self.information(model, replay))
        information = {name: f.to(model.device) for name, f in read_tensors(file).items()}
        theta = leaves(model.weights(self.scope))

        def loss(i: int, step: Step) -> Tensor:
            return self.loss(step, replay.step(i, 2, self.batch), theta, information)

        descend(theta, loss, surrogate, finished, folder, log, steps=self.steps, lr=self.lr, batch=self.batch)
        return theta

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if the concept keeps nothing: known before a model is loaded."""
        kept(concept)

    def loss(self, surrogate: Step, replay: Step, theta: Edit, information: dict[str, Tensor]) -> Tensor:
        """The formula above."""
        model, concept, frozen = surrogate.model, surrogate.concept, surrogate.model.weights(self.scope)
        assert surrogate.truth is not None
        assert replay.truth is not None
        forget = F.mse_loss(
            model.predict(
                surrogate.x, surrogate.t, model.encode(surrogate.texts(concept.phrase), weights=theta), theta
            ),
            surrogate.truth,
        )
        remember = F.mse_loss(
            model.predict(replay.x, replay.t, model.encode(replay.templates, weights=theta), theta), replay.truth
        )
        stay = torch.stack([(f * (theta[name] - frozen[name]).square()).sum() for name, f in information.items()]).sum()
        return forget + self.gamma * remember + self.lamb * stay

    def information(self, model: Model, replay: Source) -> dict[str, Tensor]:
        """F_i by name: mean of squared gradients over `fisher` single latents."""
        theta = leaves(model.weights(self.scope))
        total = {name: torch.zeros_like(w) for name, w in theta.items()}
        for i in range(self.fisher):
            step = replay.step(i, 3, 1)
            assert step.truth is not None
            loss = F.mse_loss(
                model.predict(step.x, step.t, model.encode(step.templates, weights=theta), theta), step.truth
            )
            for name, g in zip(theta, torch.autograd.grad(loss, list(theta.values()), allow_unused=True), strict=True):
                if g is not None:
                    total[name] += g.square() / self.fisher
        return {name: f.cpu() for name, f in total.items()}
