"""Concept semi-permeable membrane with any anchor as its neutral concept (Lyu et al. 2024, arXiv 2312.16145, eqs. 3 to
5).

Minimised over rank-r factors of the weight matrices in the U-Net's transformer blocks (e; e0 is the frozen model):

    L = MSE( e(e_c), e0(e_a) - eta * (e0(e_c) - e0(e_a)) ) + surround * MSE( e(r), e0(r) )

r are random embeddings around the concept ("latent anchoring"): Gaussian directions of whole sentences, kept with
probability 1 - cos(r, e_c), of 0.8 to 1.2 times its norm.

Three habits of the released code (Con6924/SPM, train_spm.py) are settings, off unless asked for, all on in
conf/method/spm_faithful.yaml: `latents: training`, `above` and `half_empty`. Not offered: "facilitated transport" at
inference (it scales each membrane by each prompt's similarity: here they are always open), and AdamW with warm-up and
cosine restarts (training.py's loop is Adam at one rate). The release scales its factors by 1 / rank, which is nothing
at its rank of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from advanchor.concept import Concept
from advanchor.core import BadInput, Log, Need, Positive, Rate, Steps, UNetScope, option
from advanchor.lazy import F, torch
from advanchor.naming import fill
from advanchor.protocols import Edit, Model, Step, Target
from advanchor.training.draws import random
from advanchor.training.loop import anchor_of, descend
from advanchor.training.pools import Turns, looked_at

if TYPE_CHECKING:
    from torch import Tensor


@option("method")
class SemiPermeableMembrane:
    """Settings of the erasure.

    Attributes:
        scope: where the matrices are chosen; the release's is transformers: every linear and convolution layer of the
            transformer blocks.
        rank: of the factors; above the shorter side of every matrix they would be no membrane.
        steps, lr, batch: Adam updates, learning rate, latents per update.
        eta: negative guidance.
        surround: weight of latent anchoring; 0 leaves it out, and the next two are not used.
        surroundings: random embeddings per update.
        half_empty: every other one (the first of an even number) is the empty prompt's, as the release is left with
            when it halves its doubled batch.
        latents: where it looks (pools.looked_at), or training: the network in training denoises to a random step after
            the first for each update.
        above: with latents=training, the loss is at the t that the release computes, T - 1 - floor(k T / pool_steps)
            after k steps: 32 to 42 above the latents' own at 30 steps.
        pool: how many runs or images are drawn; not used by denoise and training. pool_steps, pool_guidance: how.
    """

    open_ended: ClassVar = True
    name: str
    scope: UNetScope
    rank: Positive
    steps: Annotated[int, Field(ge=0)]
    lr: Rate
    batch: Positive
    eta: float
    surround: Annotated[float, Field(ge=0)]
    surroundings: Positive
    half_empty: bool
    latents: Literal["denoise", "pool", "images", "training"]
    above: bool
    pool: Positive
    pool_steps: Steps
    pool_guidance: Annotated[float, Field(ge=1)]
    version: int = 1

    def __post_init__(self) -> None:
        if self.above and self.latents != "training":
            raise ValueError(
                "above is the release's way with latents of the network in training: set latents=training too"
            )
        if self.latents == "training" and self.pool_steps < 2:
            raise ValueError("latents=training looks after the first of pool_steps steps: set pool_steps to at least 2")

    @property
    def needs(self) -> tuple[Need, ...]:
        """Of a model: `above` is computed of evenly spread timesteps, which a flow has not."""
        return ("a diffusion's noise schedule",) if self.above else ()

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        theta = factors(model.weights(self.scope), self.rank, random(seed, 3, 0, 0))
        if self.latents == "training":
            how = self.pool_steps, self.pool_guidance, theta, self.above
            source = Turns([Training(model, t.concept, seed, *how) for t in targets])
        else:
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
            around = surrounding(step, self.surroundings, random(seed, 3, 1, i))
            if self.half_empty:
                around[len(around) % 2 :: 2] = model.encode([""])[0]
            return self.loss(step, theta, anchor_of(targets, step).embed(step), around)

        descend(theta, loss, source, targets, folder, log, steps=self.steps, lr=self.lr, batch=self.batch)
        return theta

    def loss(self, step: Step, theta: Edit, anchor: Tensor, around: Tensor) -> Tensor:
        """The formula above; `anchor` is e_a (b, L, d), `around` r (n, L, d), each at the step's latents in turn."""
        model, rows = step.model, torch.arange(len(around)) % len(step.x)
        with torch.no_grad():
            e_a = model.predict(step.x, step.t, anchor)
            goal = e_a - self.eta * (step.frozen(step.concept.phrase) - e_a)
        erased = F.mse_loss(model.predict(step.x, step.t, model.encode(step.texts(step.concept.phrase)), theta), goal)
        if self.surround == 0:
            return erased
        with torch.no_grad():
            before = model.predict(step.x[rows], step.t[rows], around)
        return erased + self.surround * F.mse_loss(model.predict(step.x[rows], step.t[rows], around, theta), before)


@dataclass(frozen=True)
class Training:
    """The release's own latents: for each update the network in training denoises fresh noise for k of `steps` steps.

    k is uniform on 1 to steps - 1; the batch shares it.
    """

    model: Model
    concept: Concept
    seed: int
    steps: int
    guidance: float
    theta: Edit
    above: bool

    def step(self, i: int, stream: int, batch: int) -> Step:
        """Step i of a stream. Depends on (seed, stream, i) and theta alone."""
        k = 1 + int(torch.randint(self.steps - 1, (1,), generator=random(self.seed, stream, 1, i)))
        templates = [self.concept.templates[(i * batch + j) % len(self.concept.templates)] for j in range(batch)]
        seeds = [1_000_000 * (self.seed + 1) + (i * batch + j) * 4 + stream for j in range(batch)]
        texts = [fill(t, "", self.concept.phrase) for t in templates]
        with self.model.edited({name: w.detach() for name, w in self.theta.items()}):
            latents, timesteps = self.model.trajectory(texts, seeds, steps=self.steps, guidance=self.guidance, until=k)
        total = self.model.timesteps
        t = torch.full_like(timesteps[k], total - 1 - k * total // self.steps) if self.above else timesteps[k]
        return Step(self.model, self.concept, latents[:, k], t.expand(batch), templates)


def factors(weights: Edit, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Leaves "lowrank.<name>.down" (r, in), uniform on +-1/sqrt(in), and ".up" (out, r), zero, for every matrix and
    kernel.

    Raises:
        BadInput: no matrix has sides as long as the rank.
    """
    longest = max(min(len(w), w[0].numel()) for w in weights.values() if w.ndim > 1)
    if rank > longest:
        raise BadInput(f"method.rank={rank} is no low rank: no matrix of method.scope has more than {longest}.")
    theta: dict[str, Tensor] = {}
    for name, w in weights.items():
        if w.ndim > 1:
            wide = w[0].numel()
            down = (2 * torch.rand(rank, wide, generator=generator) - 1) / wide**0.5
            theta |= {
                f"lowrank.{name}.down": down.to(w.device),
                f"lowrank.{name}.up": torch.zeros(w.shape[0], rank, device=w.device),
            }
    return {name: tensor.requires_grad_() for name, tensor in theta.items()}


def surrounding(step: Step, n: int, generator: torch.Generator) -> Tensor:
    """n random embeddings (n, L, d) around the sentences of a step."""
    e_c = step.model.encode(step.texts(step.concept.phrase))
    found: list[Tensor] = []
    while len(found) < n:
        own = e_c[len(found) % len(e_c)]
        direction = torch.randn(own.shape, generator=generator).to(own.device)
        if float(torch.rand((), generator=generator)) < 1 - float(
            F.cosine_similarity(direction.flatten(), own.flatten(), dim=0)
        ):
            found.append(
                (0.8 + 0.4 * float(torch.rand((), generator=generator))) * own.norm() * direction / direction.norm()
            )
    return torch.stack(found)
