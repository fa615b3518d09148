"""Unified Concept Editing with any anchor as its destination, in closed form (Gandikota et al. 2024, arXiv 2308.14761,
eq. 7).

For every matrix W0 that embeddings of tokens go into as they are (a U-Net's keys and values of the cross-attention; the
context embedder of Stable Diffusion 3 and FLUX, which the release's script for FLUX edits too), with c the embedding of
the concept's last token, c_a of the anchor's, c_p of kept concepts':

    W = (lamb W0 + erase W0 sum c_a c^T + preserve W0 sum c_p c_p^T)
        (lamb I + erase sum c c^T + preserve sum c_p c_p^T)^-1

Where such a transformer is told the whole sentence too, the matrix that this embedding goes into is edited likewise, by
the sentences' own. With several streams of tokens c has a row of each.

The released code's defaults, with one sentence per concept. Its expand_prompts ("image of a fox" is guided to "image
of", kept concepts stay bare names) is conf/method/uce_expanded.yaml: more `templates` with an empty word as the anchor
and one of `preserve_templates`, in our sentences instead of its own five.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from advanchor.anchors.slot import Slot
from advanchor.concept import Concept
from advanchor.core import BadInput, Log, Positive, Rate, Steps, option
from advanchor.lazy import torch
from advanchor.naming import fill
from advanchor.protocols import Edit, Model, Target
from advanchor.training.loop import settle
from advanchor.training.pools import Pool

if TYPE_CHECKING:
    from torch import Tensor


@option("method")
class UnifiedConceptEditing:
    """Settings of the edit.

    Attributes:
        lamb: weight of staying at W0; positive, or the system is singular.
        erase_scale, preserve_scale: weights of the concept, of the kept concepts of its kind.
        templates: how many of the concept's sentences are edited.
        preserve_templates: in how many of them kept concepts are preserved; not used with preserve_scale=0.
        anchor_steps, anchor_batch: batches on which an anchor that learns may learn first, on `pool` images; not used
            by other anchors.
        pool_steps, pool_guidance: how those are drawn.
    """

    name: str
    lamb: Rate
    erase_scale: Annotated[float, Field(ge=0)]
    preserve_scale: Annotated[float, Field(ge=0)]
    templates: Positive
    preserve_templates: Positive
    anchor_steps: Annotated[int, Field(ge=0)]
    anchor_batch: Positive
    pool: Positive
    pool_steps: Steps
    pool_guidance: Annotated[float, Field(ge=1)]
    version: int = 1

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
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
        finished = settle(targets, draw, folder, log, steps=self.anchor_steps, batch=self.anchor_batch)
        gone: list[tuple[Tensor, Tensor]] = []
        goals: list[tuple[Tensor, Tensor]] = []
        kept: dict[str, str] = {}
        for target in finished:
            concept, templates = target.concept, target.concept.templates[: self.templates]
            slot = Slot(model, concept)
            gone.append(read(model, slot.encode(templates), slot.subjects(templates)))
            goals.append(read(model, target.condition(templates), target.subjects(templates)))
            kept |= {
                fill(t, "", phrase): name
                for name, phrase in concept.told.items()
                for t in concept.templates[: self.preserve_templates]
            }
        held: list[tuple[Tensor, Tensor]] = []
        for text, name in kept.items():
            ends = [[model.span(text, name, stream=k)[-1] for k in range(len(model.streams))]]
            held.append(read(model, model.encode([text]), ends))
        edit: dict[str, Tensor] = {}
        for i, of in enumerate(("tokens", "sentence")):
            c, c_a = torch.cat([one[i] for one in gone]), torch.cat([one[i] for one in goals])
            c_p = torch.cat([c[:0], *(one[i] for one in held)])
            edit |= {name: self.solve(w, c, c_a, c_p) for name, w in model.maps(of).items()}
        return edit

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if more sentences are asked for than the concept has: known before a model is loaded."""
        for name in ("templates", "preserve_templates"):
            if getattr(self, name) > len(concept.templates):
                there = f"concept {concept.name} has {len(concept.templates)} templates"
                raise BadInput(
                    f"method.{name}={getattr(self, name)}, and {there}: set it to that at most, or add some."
                )

    def solve(self, w: Tensor, c: Tensor, c_a: Tensor, c_p: Tensor) -> Tensor:
        """The formula above for one matrix w (out, d), with rows c, c_a (n, d) and c_p (m, d); in float64."""
        w64, c, c_a, c_p = (x.double() for x in (w, c, c_a, c_p))
        return refit(w64, self.lamb, [(self.erase_scale, c, c_a @ w64.T), (self.preserve_scale, c_p, c_p @ w64.T)]).to(
            w.dtype
        )


def read(model: Model, cond: Tensor, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Of conditions (b, L, d) the rows of each, (b * streams, d), and what they have of the sentence, (b, n)."""
    tokens = torch.stack([one[list(own)] for one, own in zip(cond, rows, strict=True)])
    return tokens.flatten(0, 1), cond[:, -1, : model.pooled]


def refit(w: Tensor, lamb: float, pairs: Sequence[tuple[float, Tensor, Tensor]]) -> Tensor:
    """The W (out, d) that minimises  lamb |W - w|^2 + sum over pairs of scale * sum over rows of |W c - v|^2.

    Args:
        pairs: (scale, c (n, d), v (n, out)) in float64.

    Raises:
        BadInput: what it is made of is not finite, or float64 leaves less than three digits of the solution.
    """
    if not all(bool(x.isfinite().all()) for _, *rows in pairs for x in rows):
        raise BadInput(
            "the embeddings that the closed form maps are not finite: lower anchor.lr, or take another anchor."
        )
    inner = lamb * torch.eye(w.shape[1], dtype=torch.float64, device=w.device) + torch.stack(
        [scale * c.T @ c for scale, c, _ in pairs]
    ).sum(0)
    outer = lamb * w + torch.stack([scale * v.T @ c for scale, c, v in pairs]).sum(0)
    if not (condition := float(torch.linalg.cond(inner, 1))) * torch.finfo(torch.float64).eps < 1e-3:
        raise BadInput(
            f"method.lamb={lamb:g} leaves the closed form singular (its condition is {condition:.0e}): raise it."
        )
    return torch.linalg.solve(inner, outer, left=False)
