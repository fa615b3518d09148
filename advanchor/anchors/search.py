"""Anchors that are found by optimisation: the losses and schedules of AdvAnchor (Zhao et al. 2024, arXiv 2501.00054)
over any parameter.

e0 is the frozen model's prediction at (z_t, t), o the elementwise product, the mean is over all elements; e_a depends
on the parameter:

    product     L = mean( e0(e_a) o e0(e_c) )
    direction   L = mean( [e0(e_a) - e0(e_b)] o [e0(e_c) - e0(e_b)] )
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from advanchor.concept import Concept
from advanchor.core import BadInput
from advanchor.lazy import torch
from advanchor.protocols import Step

if TYPE_CHECKING:
    from torch import Tensor

Loss = Literal["direction", "product"]
Schedule = Literal["alternating", "sequential", "cyclical"]


class Search:
    """One parameter of an anchor under optimisation.

    Args:
        parameter: a float32 leaf, changed in place.
        learned: sentences with a slot -> e_a (b, L, d), differentiable in the parameter.
        ends, subjects: positions of those sentences' end tokens, and of the last token of what stands in the slot.
        shown: the embeddings handed out, if they are not the learned ones.
        project: called after each update.
        steps: K, at most this many updates per batch; under the cyclical schedule the number of passes.
        stop: tau; a batch is done as soon as L < tau.
        keep_optimiser, zero_grad: see `Adversarial`.
    """

    def __init__(
        self,
        concept: Concept,
        parameter: Tensor,
        learned: Callable[[Sequence[str]], Tensor],
        ends: Callable[[Sequence[str]], list[int]],
        subjects: Callable[[Sequence[str]], list[int]],
        *,
        loss: Loss,
        schedule: Schedule,
        steps: int,
        lr: float,
        stop: float = 0.0,
        keep_optimiser: bool = True,
        zero_grad: bool = True,
        shown: Callable[[Sequence[str]], Tensor] | None = None,
        project: Callable[[], None] = lambda: None,
    ) -> None:
        self.concept, self.parameter, self.learned = concept, parameter, learned
        self.ends, self.subjects, self.shown, self.project = ends, subjects, shown or learned, project
        self.kind, self.schedule, self.steps, self.lr, self.stop = loss, schedule, steps, lr, stop
        self.keep_optimiser, self.zero_grad = keep_optimiser, zero_grad
        self.optimiser = torch.optim.Adam([parameter], lr)
        self.first_loss = self.last_loss = float("nan")
        self.taken = 0

    def rehearsals(self, steps: int) -> int:
        return {"alternating": 0, "sequential": steps, "cyclical": steps * self.steps}[self.schedule]

    def rehearse(self, step: Step) -> None:
        self.descend(step, self.steps if self.schedule == "sequential" else 1)

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
        e_a, e_c = step.model.eps(step.x, step.t, self.learned(step.templates)), step.frozen(self.concept.phrase)
        if self.kind == "product":
            return (e_a * e_c).mean()
        e_b = step.frozen(self.concept.superclass)
        return ((e_a - e_b) * (e_c - e_b)).mean()

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
