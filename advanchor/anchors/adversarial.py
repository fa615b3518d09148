"""AdvAnchor: an anchor that is optimised instead of named (Zhao et al. 2024, arXiv 2501.00054).

A perturbation delta of the embeddings of the concept's tokens, one for all images, that makes the frozen model predict noise
unlike the concept's. e0 is the frozen model's prediction at (z_t, t), o the elementwise product, the mean is over all elements:

    product     L = mean( e0(e_a) o e0(e_c) )
    direction   L = mean( [e0(e_a) - e0(e_b)] o [e0(e_c) - e0(e_b)] )

Where the released code leaves a choice open or holds a slip, the option says so; conf/anchor/adversarial_faithful.yaml keeps them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from advanchor.core import BadInput, Concept, Model, Positive, Rate, Step, Target, fill, option
from advanchor.model import add_at


@option
class Adversarial:
    """Settings of the anchor's optimisation.

    Attributes:
        loss: see the module's formulas. Product stays near E[eps^2] and hardly ever stops; direction reaches 0.
        schedule: alternating (for each batch up to `steps` on delta, then one on the weights, same z_t and t), sequential (one pass over
            all batches for delta, then one with fresh noise for the weights), cyclical (`steps` passes with one delta step a batch, then the weights).
        place: delta is added to the text encoder's output (the paper's figure) or to its input token embeddings.
        steps: K, at most this many updates of delta per batch.
        lr: Adam's learning rate for delta.
        stop: tau; a batch is done as soon as L < tau.
        init: deviation of delta's random start.
        bound: an extension, not in the paper: largest allowed |delta| / |e_c| on the span; null is no bound.
        keep_optimiser: Adam's moments live on from batch to batch; False re-creates it, as the released code does.
        zero_grad: gradients of delta are zeroed before each update; False sums them within a batch, as the released code does.
        span: tokens (all BPE pieces of the name) or words (one position per space-separated word, the released code's slip).
        suffix: appended to the name in the anchor's sentences; the released code has "'s".
    """

    name: str
    loss: Literal["direction", "product"]
    schedule: Literal["alternating", "sequential", "cyclical"]
    place: Literal["output", "input"]
    steps: Positive
    lr: Rate
    stop: float = 0.0
    init: Annotated[float, Field(ge=0)] = 1e-7
    bound: Rate | None = None
    keep_optimiser: bool = True
    zero_grad: bool = True
    span: Literal["tokens", "words"] = "tokens"
    suffix: str = ""
    version: int = 1

    def start(self, model: Model, concept: Concept, seed: int) -> Target:
        return Adversary(self, model, concept, seed)


class Adversary:
    """delta (s, d) at work. float32 always: a start at 1e-7 would vanish in half precision."""

    def __init__(self, options: Adversarial, model: Model, concept: Concept, seed: int) -> None:
        self.options, self.model, self.concept = options, model, concept
        self.phrase = concept.phrase.replace(concept.name, concept.name + options.suffix)
        start = torch.randn(len(self._spans(concept.templates[:1])[0]), model.encode([""]).shape[-1], generator=torch.Generator().manual_seed(seed))
        self.delta = (options.init * start).to(model.device, torch.float32).requires_grad_()
        self.optimiser = torch.optim.Adam([self.delta], options.lr)
        self.first_loss = self.last_loss = float("nan")
        self.taken = 0

    def rehearsals(self, steps: int) -> int:
        return {"alternating": 0, "sequential": steps, "cyclical": steps * self.options.steps}[self.options.schedule]

    def rehearse(self, step: Step) -> None:
        self.descend(step, self.options.steps if self.options.schedule == "sequential" else 1)

    def embed(self, step: Step) -> Tensor:
        """e_a (b, L, d), detached; under the alternating schedule delta first moves on this very step."""
        if self.options.schedule == "alternating":
            self.descend(step, self.options.steps)
        return self.condition(step).detach()

    def descend(self, step: Step, updates: int) -> None:
        """Up to `updates` Adam steps on delta for one batch, fewer if the loss falls below `stop`."""
        self.delta.grad = None
        if not self.options.keep_optimiser:
            self.optimiser = torch.optim.Adam([self.delta], self.options.lr)
        for _ in range(updates):
            if self.options.zero_grad:
                self.delta.grad = None
            loss = self.loss(step)
            self.last_loss = loss.item()
            if self.taken == 0:
                self.first_loss = self.last_loss
            if not torch.isfinite(loss):
                raise BadInput("the anchor's loss is not finite: lower anchor.lr, or set anchor.bound.")
            if self.last_loss < self.options.stop:
                break
            (gradient,) = torch.autograd.grad(loss, self.delta)
            self.delta.grad = gradient if self.delta.grad is None else self.delta.grad + gradient
            self.optimiser.step()
            self.taken += 1
            self._project()

    def loss(self, step: Step) -> Tensor:
        e_a, e_c = self.model.eps(step.x, step.t, self.condition(step)), step.frozen(self.concept.phrase)
        if self.options.loss == "product":
            return (e_a * e_c).mean()
        e_b = step.frozen(self.concept.superclass)
        return ((e_a - e_b) * (e_c - e_b)).mean()

    def condition(self, step: Step) -> Tensor:
        """E(T_a) with delta added on the span S of each sentence: (b, L, d)."""
        return self._condition(step.templates)

    def _condition(self, templates: tuple[str, ...]) -> Tensor:
        texts, spans = [fill(t, "", self.phrase) for t in templates], self._spans(templates)
        if self.options.place == "input":
            return self.model.encode(texts, self.delta, spans)
        return add_at(self.model.encode(texts), self.delta, spans)

    def _spans(self, templates: tuple[str, ...]) -> list[list[int]]:
        texts, words = [fill(t, "", self.phrase) for t in templates], self.concept.name + self.options.suffix
        if self.options.span == "tokens":
            return [self.model.span(text, words) for text in texts]
        starts = [text[: text.index(words)].count(" ") + 1 for text in texts]  # position 0 is the start token
        return [list(range(start, start + len(words.split()))) for start in starts]

    @torch.no_grad()
    def _project(self) -> None:
        if self.options.bound is not None:
            limit = self.options.bound * self._concept_norm()
            self.delta.mul_(min(1.0, limit / max(float(self.delta.norm()), 1e-20)))

    def _concept_norm(self) -> float:
        """|e_c| on S (Frobenius), of the first sentence; for place=input it is still the output's norm."""
        template = self.concept.templates[:1]
        return float(self.model.encode([fill(template[0], "", self.phrase)])[0, self._spans(template)[0]].norm())

    def state(self) -> dict[str, Any]:
        return {
            "delta": self.delta.detach(), "optimiser": self.optimiser.state_dict(), "first_loss": self.first_loss,
            "last_loss": self.last_loss, "taken": self.taken,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.delta.copy_(state["delta"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.first_loss, self.last_loss, self.taken = state["first_loss"], state["last_loss"], state["taken"]

    def scalars(self) -> dict[str, float]:
        return {"anchor/loss": self.last_loss, "anchor/norm": float(self.delta.detach().norm()), "anchor/steps": float(self.taken)}

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        """Mean over the templates: cosine(e_c, e_a) on S; |e_a - e_c| / |e_c| on S; the loss at its start and end; updates taken."""
        templates = self.concept.templates
        spans, e_a = self._spans(templates), self._condition(templates)
        e_c = self.model.encode([fill(t, "", self.phrase) for t in templates])
        rows = [(e_a[i, s], e_c[i, s]) for i, s in enumerate(spans)]
        return {
            "anchor/cosine_span": sum(float(F.cosine_similarity(a, c, dim=-1).mean()) for a, c in rows) / len(rows),
            "anchor/shift": sum(float((a - c).norm() / c.norm()) for a, c in rows) / len(rows),
            "anchor/loss_start": self.first_loss,
            "anchor/loss_end": self.last_loss,
            "anchor/steps": float(self.taken),
        }
