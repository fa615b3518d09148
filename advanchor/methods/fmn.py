"""Forget-Me-Not: attention steered away from the concept's tokens (Zhang et al. 2023, arXiv 2303.17591).

Minimised over theta, with A_l the cross-attention probabilities of layer l and S the positions of the concept's tokens:

    L = sqrt( sum over layers, latents, heads, pixels and s in S of A_l[..., s]^2 )

on z_t from images of the concept. The paper first finds the concept's tokens by textual inversion; like the release
without that option, S are the tokens of the name. Against the release: Adam without its weight decay of 0.01, which at
its rate and 35 steps takes a millionth of a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from advanchor.anchors.slot import Slot
from advanchor.core import Log, Need, Positive, Rate, Scope, Steps, option
from advanchor.lazy import torch
from advanchor.methods.guidance import away_from
from advanchor.protocols import Edit, Model, Step, Target
from advanchor.training.loop import descend, leaves
from advanchor.training.pools import looked_at

if TYPE_CHECKING:
    from torch import Tensor


@option("method")
class ForgetMeNot:
    """Settings of the erasure.

    Attributes:
        scope: the U-Net weights that are trained.
        steps, lr, batch: Adam updates, learning rate, latents per update.
        pooler: every end token belongs to S too: the sentence's own and the padding, which Stable Diffusion 1 makes of
            end tokens.
        pool: images of the concept that the frozen model draws once; pool_steps, pool_guidance: how.
    """

    open_ended: ClassVar = True
    needs: ClassVar[tuple[Need, ...]] = ("cross-attention layers",)
    name: str
    scope: Scope
    steps: Annotated[int, Field(ge=0)]
    lr: Rate
    batch: Positive
    pooler: bool
    pool: Positive
    pool_steps: Steps
    pool_guidance: Annotated[float, Field(ge=1)]
    version: int = 2

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        away_from(model, targets, self.name)
        theta = leaves(model.weights(self.scope))
        source = looked_at(
            "images", model, targets, seed, folder, pool=self.pool, steps=self.pool_steps, guidance=self.pool_guidance
        )

        def loss(i: int, step: Step) -> Tensor:
            return self.loss(step, theta)

        descend(theta, loss, source, targets, folder, log, steps=self.steps, lr=self.lr, batch=self.batch)
        return theta

    def loss(self, step: Step, theta: Edit) -> Tensor:
        """The formula above."""
        model, slot = step.model, Slot(step.model, step.concept)
        e_c = model.encode(slot.texts(step.templates), weights=theta)
        spans = [
            span + list(range(end, model.length)) * self.pooler
            for span, end in zip(slot.spans(step.templates), slot.ends(step.templates), strict=True)
        ]
        maps = model.attention(step.x, step.t, e_c, theta)
        return torch.linalg.vector_norm(
            torch.cat([a[i, :, :, span].flatten() for a in maps for i, span in enumerate(spans)])
        )
