"""Ablating Concepts with any anchor as its target, in the form of the AdvAnchor release.

Minimised over theta, the trained weights (e; e0 is the frozen model, sg a stopped gradient):

    L = MSE( e(e_c), sg[e0(e_a)] ) + lambda * MSE( e(e_b), sg[e0(e_b)] )          on z_t from images of the concept

After Kumari et al. 2023 (arXiv 2303.13516) and Zhao et al. 2024 (arXiv 2501.00054). Against Kumari et al.: the teacher
is the frozen model, the images are the concept's and not the anchor's, and the superclass term replaces the prior loss.
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
from advanchor.training.pools import looked_at

if TYPE_CHECKING:
    from torch import Tensor


@option("method")
class AblatingConcepts:
    """Settings of the erasure.

    Attributes:
        scope: the weights that are trained (edits.SCOPES, or text_encoder).
        steps, lr, batch: Adam updates, learning rate, latents per update.
        preserve: lambda, the weight of the superclass term.
        pool: images of the concept that the frozen model draws once; each is used once per pass.
        pool_steps, pool_guidance: how they are drawn.
        zero_grad: gradients are zeroed before each update; False keeps a running sum over all of them, as the released
            AdvAnchor code does.
    """

    open_ended: ClassVar = True
    name: str
    scope: Scope
    steps: Annotated[int, Field(ge=0)]
    lr: Rate
    batch: Positive
    preserve: Annotated[float, Field(ge=0)]
    pool: Positive
    pool_steps: Steps
    pool_guidance: Annotated[float, Field(ge=1)]
    zero_grad: bool = True
    version: int = 1

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        theta = leaves(model.weights(self.scope))
        source = looked_at(
            "images", model, targets, seed, folder, pool=self.pool, steps=self.pool_steps, guidance=self.pool_guidance
        )

        def loss(i: int, step: Step) -> Tensor:
            return self.loss(step, theta, anchor_of(targets, step).embed(step))

        descend(
            theta,
            loss,
            source,
            targets,
            folder,
            log,
            steps=self.steps,
            lr=self.lr,
            batch=self.batch,
            zero_grad=self.zero_grad,
        )
        return theta

    def loss(self, step: Step, theta: Edit, anchor: Tensor) -> Tensor:
        """The formula above; `anchor` is e_a (b, L, d)."""
        model, concept = step.model, step.concept
        with torch.no_grad():
            goal = model.predict(step.x, step.t, anchor)
        erased = F.mse_loss(
            model.predict(step.x, step.t, model.encode(step.texts(concept.phrase), weights=theta), theta), goal
        )
        if self.preserve == 0:
            return erased
        kept = F.mse_loss(
            model.predict(step.x, step.t, model.encode(step.texts(concept.superclass), weights=theta), theta),
            step.frozen(concept.superclass),
        )
        return erased + self.preserve * kept
