"""MACE with any anchor as its mapping concept (Lu et al. 2024, arXiv 2403.06135): closed-form refinement, a LoRA per
concept, closed-form fusion.

For the keys and values W of all cross-attention layers, in three stages:

1. Refinement. Other words of the concept's sentences, which attention has mixed with it, are mapped to what they are
   in the anchor's sentences, over matching positions i, j (all positions with `all_words`: then the concept's own words
   too); k are the words of sentences about kept concepts:
       W1 = argmin  lamb |W - W0|^2 + sum |W e_c[i] - W0 e_a[j]|^2 + preserve sum |W k - W0 k|^2
2. A LoRA for each concept on W1 that minimises the attention A_l that the concept's tokens S (and the end and padding
   tokens with `pooler`) get inside the concept's mask M, at t drawn from sigmoid((t - 200) / 20) - sigmoid((t - 400) /
   20), scaled to T:
       L = sum over layers of | A_l[M, S] |_F
3. Fusion of the LoRAs, for all words e of the concept's sentences:
       W2 = argmin  lamb |W - W1|^2 + sum over concepts of sum |W e - (W1 + LoRA) e|^2 + preserve sum |W k - W0 k|^2

Against the release: M is read off the frozen model's own cross-attention (masks.py) instead of Grounded-SAM; kept
sentences of the concept take the place of COCO captions; the concept's templates that of its 30 prompts; images are
drawn by the frozen model and noised, Adam has no weight decay. The release's concept is a bare name, so an article
before it counts among the words around and is refined where the anchor's sentence shares it; here it belongs to the
phrase ("a fox") and is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from advanchor.anchors.slot import Slot
from advanchor.concept import Concept, kept
from advanchor.core import BadInput, Log, Need, Positive, Rate, Steps, option
from advanchor.lazy import torch
from advanchor.methods.uce import refit
from advanchor.models.edits import parameters, part
from advanchor.naming import fill
from advanchor.protocols import Edit, Model, Step, Target
from advanchor.store import slug
from advanchor.training.draws import random
from advanchor.training.loop import descend, settle
from advanchor.training.masks import fits, mask, resized
from advanchor.training.pools import Pool, Turns

if TYPE_CHECKING:
    from torch import Tensor


@option("method")
class MassConceptErasure:
    """Settings of the erasure.

    Attributes:
        rank: of the LoRAs.
        steps, lr, batch: Adam updates, learning rate, latents per update, for each concept.
        clip: largest norm of a gradient.
        lamb: weight of staying, in refinement and fusion; positive, or the systems may be singular.
        preserve_scale: weight of the kept sentences, in both; 0 leaves them out.
        all_words: the refinement moves the concept's own words too, not only those around it.
        pooler: S holds the end and padding tokens too.
        mask_side, threshold: see masks.py; threshold null is no mask, as the release has it for styles, and mask_side
            is not used then; 0 marks the whole image.
        pool: images of the concept; pool_steps, pool_guidance: how they are drawn.
        anchor_steps: batches on which an anchor that learns learns first; not used by other anchors.
    """

    open_ended: ClassVar = True
    needs: ClassVar[tuple[Need, ...]] = ("cross-attention layers",)
    name: str
    rank: Positive
    steps: Annotated[int, Field(ge=0)]
    lr: Rate
    batch: Positive
    clip: Rate
    lamb: Rate
    preserve_scale: Annotated[float, Field(ge=0)]
    all_words: bool
    pooler: bool
    mask_side: Positive
    threshold: Annotated[float, Field(ge=0, le=1)] | None
    pool: Positive
    pool_steps: Steps
    pool_guidance: Annotated[float, Field(ge=1)]
    anchor_steps: Annotated[int, Field(ge=0)]
    version: int = 1

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        for target in targets:
            self.suits(target.concept)
        if self.threshold is not None:
            fits(model, self.mask_side)
        frozen = model.weights("attn2.kv")
        theta = loras(frozen, [slug(t.concept.name) for t in targets], self.rank, random(seed, 3, 0, 0))
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
        sentences = dict.fromkeys(text for t in finished for text in kept(t.concept)) if self.preserve_scale else [""]
        k = torch.cat([model.encode([text])[0, : model.length] for text in sentences]).double()

        pairs = [self.matched(model, target) for target in finished]
        old, new = (torch.cat(rows).double() for rows in zip(*pairs, strict=True))
        refined = {name: self.fit(w, w, old, new @ w.double().T, k) for name, w in frozen.items()}

        pools = Turns([replace(draw(t.concept), times=focus(model.timesteps)) for t in finished])
        descend(
            theta,
            lambda i, step: self.loss(step, theta, refined),
            pools,
            finished,
            folder,
            log,
            steps=self.steps,
            lr=self.lr,
            batch=self.batch,
            clip=self.clip,
        )

        words = []
        for concept in (target.concept for target in finished):
            texts = [fill(template, "", concept.phrase) for template in concept.templates]
            words.append(model.encode(texts)[:, : model.length].flatten(0, 1).double())
        tuned = [parameters(refined | part(theta, f"{slug(t.concept.name)}/"), frozen) for t in finished]
        fused = {}
        for name, w in frozen.items():
            wanted = [e @ own[name].detach().double().T for e, own in zip(words, tuned, strict=True)]
            fused[name] = self.fit(w, refined[name], torch.cat(words), torch.cat(wanted), k)
        return fused

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if it preserves sentences and the concept has none: known before a model is loaded."""
        if self.preserve_scale:
            kept(concept)

    def fit(self, frozen: Tensor, start: Tensor, c: Tensor, v: Tensor, k: Tensor) -> Tensor:
        """The closed form of stages 1 and 3, from `start`."""
        wanted = [(1.0, c, v), (self.preserve_scale, k, k @ frozen.double().T)]
        return refit(start.double(), self.lamb, wanted).to(frozen.dtype)

    def matched(self, model: Model, target: Target) -> tuple[Tensor, Tensor]:
        """Embeddings of the concept's sentences and, row by row, of the anchor's that they are mapped to, (n, d)."""
        templates, slot = target.concept.templates, Slot(model, target.concept)
        e_c, e_a = slot.encode(templates), target.condition(templates)
        if self.all_words:
            return tuple(e[:, : model.length].flatten(0, 1) for e in (e_c, e_a))  # type: ignore[return-value]
        old, new = [], []
        spans, subjects = slot.spans(templates), [row[0] for row in target.subjects(templates)]
        for i, (span, subject, text) in enumerate(zip(spans, subjects, templates, strict=True)):
            # the start token and the words before the slot
            before = min(model.end(text.partition("{}")[0]), span[0], subject + 1)
            after = model.length - 1 - max(span[-1], subject)
            old += [e_c[i, :before], e_c[i, span[-1] + 1 :][:after]]
            new += [e_a[i, :before], e_a[i, subject + 1 :][:after]]
        return torch.cat(old), torch.cat(new)

    def loss(self, step: Step, theta: Edit, refined: Edit) -> Tensor:
        """The formula of stage 2, for the LoRA of the step's own concept."""
        model, slot = step.model, Slot(step.model, step.concept)
        e_c, spans = slot.encode(step.templates), slot.spans(step.templates)
        watched = [
            span + list(range(end, model.length)) * self.pooler
            for span, end in zip(spans, slot.ends(step.templates), strict=True)
        ]
        maps = model.attention(step.x, step.t, e_c, {**refined, **part(theta, f"{slug(step.concept.name)}/")})
        where = None
        if self.threshold is not None:
            with torch.no_grad():
                where = mask(model.attention(step.x, step.t, e_c), spans, self.mask_side, self.threshold)
        norms = []
        for a in maps:
            inside = (
                torch.ones(a.shape[0], a.shape[2], device=a.device) if where is None else resized(where, a.shape[2])
            )
            norms.append(
                torch.linalg.vector_norm(
                    torch.cat([(a[i][:, :, s] * inside[i][:, None]).flatten() for i, s in enumerate(watched)])
                )
            )
        return torch.stack(norms).sum()


def loras(weights: Edit, concepts: Sequence[str], rank: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Leaves "<concept>/lowrank.<name>.down" (r, in), normal with deviation 1/r as diffusers starts it, and ".up" (out,
    r), zero.

    Raises:
        BadInput: no matrix has sides as long as the rank.
    """
    if rank > (longest := max(min(w.shape) for w in weights.values())):
        raise BadInput(f"method.rank={rank} is no low rank: no matrix of keys or values has more than {longest}.")
    theta: dict[str, Tensor] = {}
    for concept in concepts:
        for name, w in weights.items():
            theta[f"{concept}/lowrank.{name}.down"] = (torch.randn(rank, w.shape[1], generator=generator) / rank).to(
                w.device
            )
            theta[f"{concept}/lowrank.{name}.up"] = torch.zeros(w.shape[0], rank, device=w.device)
    return {name: tensor.requires_grad_() for name, tensor in theta.items()}


def focus(timesteps: int) -> Tensor:
    """The probability of each t (T,): most between a fifth and two fifths of T, where what is drawn is decided."""
    t = torch.arange(timesteps) * (1000 / timesteps)
    density = torch.sigmoid((t - 200) / 20) - torch.sigmoid((t - 400) / 20)
    return density / density.sum()
