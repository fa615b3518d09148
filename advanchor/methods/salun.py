"""Saliency Unlearning with any anchor as its pseudo prompt (Fan et al. 2024, arXiv 2310.12508).

Minimised over theta (the whole U-Net), with every gradient multiplied by a mask (e; e0 is the frozen model, sg a
stopped gradient):

    L = MSE( e(x_t, e_c), sg[e(x_t, e_a)] ) + alpha * MSE( e(r_t, e_r), noise )

x are images of the concept, r images of kept concepts under their own sentences e_r. The mask is 1 for the `salient`
share of all weights with the largest |gradient| of the guided forgetting loss -MSE( e0(empty) + g (e0(e_c) -
e0(empty)), noise ), summed over the concept's images. The released code writes its guidance as (1 + 7.5) e0(e_c) - 7.5
e0(empty): g = 8.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from advanchor.concept import Concept, kept
from advanchor.core import BadInput, Log, Positive, Rate, Scope, Steps, option
from advanchor.lazy import F, torch
from advanchor.protocols import Edit, Model, Step, Target
from advanchor.store import read_tensors, write_tensors
from advanchor.training.loop import anchor_of, descend, leaves
from advanchor.training.pools import Pool, Source, Turns

if TYPE_CHECKING:
    from torch import Tensor


@option("method")
class SaliencyUnlearning:
    """Settings of the erasure.

    Attributes:
        scope: the weights among which the salient ones are chosen; the paper's is full.
        steps, lr, batch: Adam updates, learning rate, latents per update of each kind.
        alpha: weight of the retaining loss.
        salient: share of the weights that is trained, of which at least one.
        saliency_guidance: g in the mask's loss.
        pool: images of the concept, and as many of kept concepts, drawn by the frozen model; pool_steps, pool_guidance:
            how.
    """

    open_ended: ClassVar = True
    name: str
    scope: Scope
    steps: Annotated[int, Field(ge=0)]
    lr: Rate
    batch: Positive
    alpha: Annotated[float, Field(ge=0)]
    salient: Annotated[float, Field(gt=0, le=1)]
    saliency_guidance: float
    pool: Positive
    pool_steps: Steps
    pool_guidance: Annotated[float, Field(ge=1)]
    version: int = 1

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        total = sum(w.numel() for w in model.weights(self.scope).values())
        if round(self.salient * total) == 0:
            raise BadInput(f"method.salient={self.salient:g} of {total} weights is none: raise it.")
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
        forget = Turns([draw(t.concept) for t in targets])
        retain = Turns([draw(t.concept, sentences=kept(t.concept), name="kept") for t in targets])
        file = folder / "mask.safetensors"
        if not file.exists():
            write_tensors(file, self.mask(model, forget, len(targets) * -(-self.pool // self.batch)))
        theta = leaves(model.weights(self.scope))
        for name, mask in read_tensors(file).items():
            theta[name].register_hook(partial(torch.mul, mask.to(model.device)))

        def loss(i: int, step: Step) -> Tensor:
            return self.loss(step, retain.step(i, 2, self.batch), theta, anchor_of(targets, step).embed(step))

        descend(theta, loss, forget, targets, folder, log, steps=self.steps, lr=self.lr, batch=self.batch)
        return theta

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if the concept keeps nothing: known before a model is loaded."""
        kept(concept)

    def loss(self, forget: Step, retain: Step, theta: Edit, anchor: Tensor) -> Tensor:
        """The formula above; `anchor` is e_a (b, L, d)."""
        model, concept = forget.model, forget.concept
        assert retain.truth is not None
        with torch.no_grad():
            goal = model.predict(forget.x, forget.t, anchor, theta)
        erased = F.mse_loss(
            model.predict(forget.x, forget.t, model.encode(forget.texts(concept.phrase), weights=theta), theta), goal
        )
        if self.alpha == 0:
            return erased
        return erased + self.alpha * F.mse_loss(
            model.predict(retain.x, retain.t, model.encode(retain.templates, weights=theta), theta), retain.truth
        )

    def mask(self, model: Model, forget: Source, batches: int) -> dict[str, Tensor]:
        """1 for the `salient` share of all weights of the scope, else 0, by name; from so many batches, which are one
        pass over the images.
        """
        theta = leaves(model.weights(self.scope))
        for i in range(batches):
            step = forget.step(i, 3, self.batch)
            assert step.truth is not None
            e_c = model.predict(step.x, step.t, model.encode(step.texts(step.concept.phrase), weights=theta), theta)
            e_0 = model.predict(step.x, step.t, model.encode([""] * len(step.templates), weights=theta), theta)
            (-F.mse_loss(e_0 + self.saliency_guidance * (e_c - e_0), step.truth)).backward()
        gradients = {name: w.grad.abs() if w.grad is not None else torch.zeros_like(w) for name, w in theta.items()}
        every = torch.cat([g.flatten() for g in gradients.values()])
        smallest = every.kthvalue(max(1, every.numel() - round(self.salient * every.numel()) + 1)).values
        return {name: (g >= smallest).to(torch.float32).cpu() for name, g in gradients.items()}
