"""Receler with any anchor as its neutral concept (Huang et al. 2024, arXiv 2311.17717, eqs. 2 to 6).

Minimised over erasers, small networks behind every cross-attention layer l whose output is o_l (e has them, e0 is the
frozen model):

    L = MSE( e(e_c + adv), e0(e_a) - eta * (e0(e_c) - e0(e_a)) )
        + regularise * mean over l of sum( mean over channels of [(1 - M) o_l]^2 ) / sum( 1 - M )

adv are embeddings that stand behind the sentence, found before every update by `attacks` steps of Adam on MSE( e(e_c +
adv), e0(e_c) ): the erased concept called back. M is where the frozen model attends to the concept (masks.py). The
release erases bare words; here they stand in the concept's sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from advanchor.anchors.slot import Slot
from advanchor.core import BadInput, Log, Need, Positive, Rate, Steps, option
from advanchor.lazy import F, torch
from advanchor.protocols import Edit, Model, Step, Target
from advanchor.training.draws import random
from advanchor.training.loop import anchor_of, descend
from advanchor.training.masks import fits, mask, resized
from advanchor.training.pools import Latents, looked_at

if TYPE_CHECKING:
    from torch import Tensor


@option("method")
class RobustEraser:
    """Settings of the erasure.

    Attributes:
        rank: width of an eraser.
        steps, lr, batch: Adam updates, learning rate, latents per update.
        eta: negative guidance.
        regularise: weight of the term that keeps erasers quiet outside the concept; 0 leaves it out, and the next two
            are not used.
        mask_side, threshold: see masks.py; 16 on Stable Diffusion. A threshold of 0 leaves no outside.
        adversary: adversarial embeddings behind the sentence; attacks: their updates before each update of the erasers,
            0 for no adversary.
        attack_lr, attack_decay: of their Adam; with attacks=0 neither they nor `adversary` are used.
        latents: where it looks (pools.looked_at).
        pool: how many runs or images are drawn; not used by denoise. pool_steps, pool_guidance: how.
    """

    open_ended: ClassVar = True
    needs: ClassVar[tuple[Need, ...]] = ("cross-attention layers",)
    name: str
    rank: Positive
    steps: Annotated[int, Field(ge=0)]
    lr: Rate
    batch: Positive
    eta: float
    regularise: Annotated[float, Field(ge=0)]
    mask_side: Positive
    threshold: Annotated[float, Field(ge=0, le=1)]
    adversary: Positive
    attacks: Annotated[int, Field(ge=0)]
    attack_lr: Rate
    attack_decay: Annotated[float, Field(ge=0)]
    latents: Latents
    pool: Positive
    pool_steps: Steps
    pool_guidance: Annotated[float, Field(ge=1)]
    version: int = 1

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        if self.regularise:
            fits(model, self.mask_side)
        theta = erasers(model, self.rank, random(seed, 3, 0, 0))
        adversaries = {t.concept.name: Adversary(model, t, self, random(seed, 3, 1, i)) for i, t in enumerate(targets)}
        source = looked_at(
            self.latents,
            model,
            targets,
            seed,
            folder,
            pool=self.pool,
            steps=self.pool_steps,
            guidance=self.pool_guidance,
        )

        def loss(i: int, step: Step) -> Tensor:
            adversary = adversaries[step.concept.name]
            for _ in range(self.attacks - 1):
                adversary.attack(step, theta)
            return self.loss(step, theta, anchor_of(targets, step).embed(step), adversary)

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
            carried=adversaries,
        )
        return theta

    def loss(self, step: Step, theta: Edit, anchor: Tensor, adversary: Adversary) -> Tensor:
        """The formula above; `anchor` is e_a (b, L, d). The adversary takes one more step, after it was used, as in the
        release.
        """
        model, concept = step.model, step.concept
        seen: list[Tensor] = []
        with torch.no_grad():
            e_a, e_c = model.predict(step.x, step.t, anchor), step.frozen(concept.phrase)
        predicted = model.predict(
            step.x,
            step.t,
            adversary.behind(step) if self.attacks else model.encode(step.texts(concept.phrase)),
            theta,
            seen,
        )
        if self.attacks:
            adversary.learn(predicted, e_c)
        erased = F.mse_loss(predicted, e_a - self.eta * (e_c - e_a))
        if self.regularise == 0:
            return erased
        with torch.no_grad():
            maps = model.attention(step.x, step.t, model.encode(step.texts(concept.phrase)))
            where = mask(maps, Slot(model, concept).spans(step.templates), self.mask_side, self.threshold)
        quiet = []
        for output in seen:
            outside = 1 - resized(where, output.shape[1])
            quiet.append((output * outside[..., None]).square().mean(-1).sum() / (outside.sum() + 1e-9))
        return erased + self.regularise * torch.stack(quiet).mean()


class Adversary:
    """Embeddings (n, d) that take the places behind a concept's sentences: its end token and the padding."""

    def __init__(self, model: Model, target: Target, settings: RobustEraser, generator: torch.Generator) -> None:
        e = model.encode(target.concept.templates)
        fits = min(model.length - end for end in Slot(model, target.concept).ends(target.concept.templates))
        if settings.attacks and settings.adversary > fits:
            raise BadInput(
                f"method.adversary={settings.adversary} does not fit behind the longest sentence of "
                f"{target.concept.name}: {fits} places are left."
            )
        self.embeddings = torch.rand(settings.adversary, e.shape[2], generator=generator).to(e.device).requires_grad_()
        self.optimiser = torch.optim.Adam([self.embeddings], settings.attack_lr, weight_decay=settings.attack_decay)

    def behind(self, step: Step) -> Tensor:
        """The step's sentences with the adversary behind them: (b, L, d), differentiable in it."""
        texts = step.texts(step.concept.phrase)
        e, n = step.model.encode(texts), len(self.embeddings)
        rows = [
            torch.cat([row[:end], self.embeddings, row[end + n :]])
            for row, end in zip(e, map(step.model.end, texts), strict=True)
        ]
        return torch.stack(rows)

    def attack(self, step: Step, theta: Edit) -> None:
        """One step towards the concept that e has forgotten."""
        frozen = {name: w.detach() for name, w in theta.items()}
        self.learn(step.model.predict(step.x, step.t, self.behind(step), frozen), step.frozen(step.concept.phrase))

    def learn(self, predicted: Tensor, e_c: Tensor) -> None:
        (self.embeddings.grad,) = torch.autograd.grad(F.mse_loss(predicted, e_c), self.embeddings, retain_graph=True)
        self.optimiser.step()
        self.embeddings.grad = None

    def state(self) -> dict[str, Any]:
        return {"embeddings": self.embeddings.detach(), "optimiser": self.optimiser.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.embeddings.copy_(state["embeddings"])
        self.optimiser.load_state_dict(state["optimiser"])


def erasers(model: Model, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Leaves of an eraser behind every cross-attention layer: `down` uniform on +-1/sqrt(in) as torch.nn.Linear starts,
    `up` zero.
    """
    theta: dict[str, Tensor] = {}
    for name, w in model.weights("attn2").items():
        if name.endswith(".to_out.0.weight"):
            layer, wide = f"eraser.{name.removesuffix('.to_out.0.weight')}", w.shape[0]
            for kind, shape in (("weight", (rank, wide)), ("bias", (rank,))):
                theta[f"{layer}.down.{kind}"] = ((2 * torch.rand(shape, generator=generator) - 1) / wide**0.5).to(
                    w.device
                )
            theta |= {
                f"{layer}.up.weight": torch.zeros(wide, rank, device=w.device),
                f"{layer}.up.bias": torch.zeros(wide, device=w.device),
            }
    return {name: tensor.requires_grad_() for name, tensor in theta.items()}
