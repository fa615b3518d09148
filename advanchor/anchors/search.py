"""Anchors that are found by optimisation: the losses and schedules of AdvAnchor (Zhao et al. 2024, arXiv 2501.00054)
over any parameter, and a loss of ours that also holds what is not the concept's.

e0 is the frozen model's prediction at (z_t, t), o the elementwise product, the mean is over all elements; e_a depends
on the parameter; c is the concept, b its superclass in the same sentence:

    product      L = mean( e0(e_a) o e0(e_c) )                     of noise, whatever the model predicts (spaces.py)
    direction    L = mean( [e0(e_a) - e0(e_b)] o [e0(e_c) - e0(e_b)] )
    similarity   L = mean( relu(a - m)^2 |d|^2 ) + w mean( |e0(e_a) - e0(e_b)|^2 )

with d = e0(e_c) - e0(e_b) and a = <e0(e_a) - e0(e_b), d> / |d|^2 for each image: the coordinate of the anchor along the
concept's direction, 1 at the concept and 0 at the superclass. The first term pushes it down to m, `past` the superclass
where m is negative; the second holds the anchor near the superclass in the same sentence, whose picture has everything
that the sentence says beside the concept. The paper asks for an anchor that stays close to the concept in all but its
defining attributes; its released losses have no term for it (conf/anchor/similarity.yaml).

The first term of a loss may look at several references, the concept and named attributes of it (`--att_size` of the
release): then L is the weighted mean over them, each in the place of c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from advanchor.concept import Concept
from advanchor.core import BadInput
from advanchor.lazy import torch
from advanchor.protocols import Step

if TYPE_CHECKING:
    from torch import Tensor

Loss = Literal["direction", "product", "similarity"]
Schedule = Literal["alternating", "sequential", "cyclical", "ahead"]


class Search:
    """One parameter of an anchor under optimisation.

    Args:
        parameter: a float32 leaf, changed in place.
        learned: sentences with a slot -> e_a (b, L, d), differentiable in the parameter.
        ends, subjects: rows of those sentences' end tokens, and of the last token of what stands in the slot, one for
            each stream of tokens.
        shown: the embeddings handed out, if they are not the learned ones.
        project: called after each update.
        steps: K, at most this many updates per batch; under the cyclical schedule the number of passes.
        batches: of the schedule ahead: how many batches there are to learn on.
        stop: tau; a batch is done as soon as L < tau.
        keep_optimiser, zero_grad, past, similarity: see `Adversarial`.
        references: phrase -> weight of what the anchor is pushed away from; the concept alone unless given. The weights
            are divided by their sum.
    """

    def __init__(
        self,
        concept: Concept,
        parameter: Tensor,
        learned: Callable[[Sequence[str]], Tensor],
        ends: Callable[[Sequence[str]], list[int]],
        subjects: Callable[[Sequence[str]], list[list[int]]],
        *,
        loss: Loss,
        schedule: Schedule,
        steps: int,
        lr: float,
        stop: float = 0.0,
        keep_optimiser: bool = True,
        zero_grad: bool = True,
        batches: int = 0,
        past: float = 0.0,
        similarity: float = 0.0,
        references: Mapping[str, float] | None = None,
        shown: Callable[[Sequence[str]], Tensor] | None = None,
        project: Callable[[], None] = lambda: None,
    ) -> None:
        self.concept, self.parameter, self.learned = concept, parameter, learned
        self.ends, self.subjects, self.shown, self.project = ends, subjects, shown or learned, project
        self.kind, self.schedule, self.steps, self.lr, self.stop = loss, schedule, steps, lr, stop
        self.keep_optimiser, self.zero_grad = keep_optimiser, zero_grad
        self.batches, self.past, self.similarity = batches, past, similarity
        self.references = references or {concept.phrase: 1.0}
        self.optimiser = torch.optim.Adam([parameter], lr)
        self.first_loss = self.last_loss = float("nan")
        self.taken = 0

    def rehearsals(self, steps: int) -> int:
        each = {"alternating": 0, "sequential": steps, "cyclical": steps * self.steps, "ahead": self.batches}
        return each[self.schedule]

    def rehearse(self, step: Step) -> None:
        self.descend(step, 1 if self.schedule == "cyclical" else self.steps)

    def embed(self, step: Step) -> Tensor:
        """e_a (b, L, d), detached; under the alternating schedule the parameter first moves on this very step."""
        if self.schedule == "alternating":
            self.descend(step, self.steps)
        return self.condition(step.templates)

    def condition(self, templates: Sequence[str]) -> Tensor:
        with torch.no_grad():
            e_a = self.shown(templates)
        if not e_a.isfinite().all():  # the last update is followed by no loss
            raise BadInput(f"the anchor is not finite after {self.taken} updates: lower anchor.lr (now {self.lr:g}).")
        return e_a

    def descend(self, step: Step, updates: int) -> None:
        """Up to `updates` Adam steps for one batch, fewer if the loss falls below `stop`."""
        self.parameter.grad = None
        if not self.keep_optimiser:
            self.optimiser = torch.optim.Adam([self.parameter], self.lr)
        for _ in range(updates):
            if self.zero_grad:
                self.parameter.grad = None
            loss = self.loss(step)
            self.last_loss = loss.item()
            if self.taken == 0:
                self.first_loss = self.last_loss
            if not torch.isfinite(loss):
                raise BadInput(
                    f"the anchor's loss is not finite after {self.taken} updates: lower anchor.lr (now {self.lr:g})."
                )
            if self.last_loss < self.stop:
                break
            (gradient,) = torch.autograd.grad(loss, self.parameter)
            self.parameter.grad = gradient if self.parameter.grad is None else self.parameter.grad + gradient
            self.optimiser.step()
            self.taken += 1
            self.project()

    def loss(self, step: Step) -> Tensor:
        """The module's formula at one step."""
        e_a = step.model.predict(step.x, step.t, self.learned(step.templates))
        whole = sum(self.references.values())
        loss = sum(w / whole * self.away(step, e_a, phrase) for phrase, w in self.references.items())
        if self.kind == "similarity":
            loss = loss + self.similarity * (e_a - step.frozen(self.concept.superclass)).square().mean()
        return cast("Tensor", loss)

    def away(self, step: Step, e_a: Tensor, phrase: str) -> Tensor:
        """The part of the formula that pushes e_a away from one reference."""
        e_c = step.frozen(phrase)
        if self.kind == "product":
            a, c = (step.model.as_noise(e, step.x, step.t) for e in (e_a, e_c))
            return (a * c).mean()
        e_b = step.frozen(self.concept.superclass)
        u, d = e_a - e_b, e_c - e_b
        if self.kind == "direction":
            return (u * d).mean()
        size = d.square().flatten(1).mean(1)
        a = (u * d).flatten(1).mean(1) / size.clamp(min=1e-20)
        return ((a - self.past).relu().square() * size).mean()

    def state(self) -> dict[str, Any]:
        return {
            "parameter": self.parameter.detach(),
            "optimiser": self.optimiser.state_dict(),
            "first_loss": self.first_loss,
            "last_loss": self.last_loss,
            "taken": self.taken,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.parameter.copy_(state["parameter"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.first_loss, self.last_loss, self.taken = state["first_loss"], state["last_loss"], state["taken"]

    def scalars(self) -> dict[str, float]:
        return {
            "anchor/loss": self.last_loss,
            "anchor/norm": float(self.parameter.detach().norm()),
            "anchor/steps": float(self.taken),
        }

    def report(self) -> dict[str, float]:
        """The loss at the search's start and end, and the updates taken."""
        return {
            "anchor/loss_start": self.first_loss,
            "anchor/loss_end": self.last_loss,
            "anchor/steps": float(self.taken),
        }
