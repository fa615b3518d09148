"""Ablating Concepts as its own paper has it, with any anchor as its target (Kumari et al. 2023, arXiv 2303.13516, eqs.
4 and 5).

Minimised over theta, the trained weights (e; sg a stopped gradient):

    L = MSE( e(x_t, e_c), sg[e(x_t, e_a)] ) + prior * MSE( e(x_t, e_a), noise )          on images x of the *anchor*

The teacher is the network in training, the images are drawn by the frozen model under the anchor and captioned as the
concept, and the optional prior term holds the anchor where it is: the differences from the form of the AdvAnchor
release in ac.py.

Against the released code (nupurkmr9/concept-ablation, diffusers): its loss is 4 MSE + prior, so its prior weight of 1
is 0.25 here, and it doubles its learning rate with the prior (conf/method/ac_kumari_prior.yaml); its prior looks at
other noised images; no gradient passes through the start token's key and value; images are augmented (scaled down, with
a caption that says so, and masked borders); gradients are clipped at a norm of 1; AdamW has weight decay. None of these
is offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from advanchor.core import Log, Positive, Rate, Scope, Steps, option
from advanchor.lazy import F, torch
from advanchor.protocols import Edit, Model, Step, Target
from advanchor.training.loop import anchor_of, descend, leaves, settle
from advanchor.training.pools import Pool, Turns

if TYPE_CHECKING:
    from torch import Tensor


@option("method")
class ConceptAblation:
    """Settings of the erasure.

    Attributes:
        scope: the weights that are trained; the paper's is attn2.kv.
        steps, lr, batch: Adam updates, learning rate, latents per update.
        prior: weight of the prior term; 0 leaves it out.
        pool: images of the anchor that the frozen model draws once; pool_steps, pool_guidance: how.
        anchor_steps: batches on which an anchor that learns learns, on as many images of the concept, before it is
            drawn; not used by other anchors.
    """

    open_ended: ClassVar = True
    name: str
    scope: Scope
    steps: Annotated[int, Field(ge=0)]
    lr: Rate
    batch: Positive
    prior: Annotated[float, Field(ge=0)]
    pool: Positive
    pool_steps: Steps
    pool_guidance: Annotated[float, Field(ge=1)]
    anchor_steps: Annotated[int, Field(ge=0)]
    version: int = 1

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
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
        source = Turns([draw(t.concept, under=t, name="anchor") for t in finished])
        theta = leaves(model.weights(self.scope))

        def loss(i: int, step: Step) -> Tensor:
            return self.loss(step, theta, anchor_of(finished, step).embed(step))

        descend(theta, loss, source, finished, folder, log, steps=self.steps, lr=self.lr, batch=self.batch)
        return theta

    def loss(self, step: Step, theta: Edit, anchor: Tensor) -> Tensor:
        """The formula above; `anchor` is e_a (b, L, d)."""
        model = step.model
        assert step.truth is not None
        with torch.set_grad_enabled(self.prior > 0):
            e_a = model.predict(step.x, step.t, anchor, theta)
        ablated = F.mse_loss(
            model.predict(step.x, step.t, model.encode(step.texts(step.concept.phrase), weights=theta), theta),
            e_a.detach(),
        )
        return ablated + self.prior * F.mse_loss(e_a, step.truth) if self.prior else ablated
