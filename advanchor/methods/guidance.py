"""Erasure at inference: the weights stay, sampling is steered away from the concept.

With classifier-free guidance g the sampler uses e(empty) + g * (e(p) - e(empty)). Both methods change that rule, for
every prompt p:

    negative prompt    e(e_c) + g * (e(p) - e(e_c))
    safe latent diffusion    e(empty) + g * (e(p) - e(empty) - m)          m: see `SafeLatentDiffusion`

Neither has a place for an anchor: both push away from the concept itself, so they take anchor=concept and refuse any
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from advanchor.core import BadInput, Log, Need, option
from advanchor.lazy import torch
from advanchor.protocols import Edit, Model, Target


def away_from(model: Model, targets: Sequence[Target], method: str) -> torch.Tensor:
    """e_c (L, d) of the bare phrase; of several concepts their list, "a fox, a car".

    Raises:
        BadInput: the anchor is not the concept.
    """
    anchorless(model, targets, f"method={method} pushes away from the concept itself")
    return model.encode([", ".join(t.concept.phrase for t in targets)])[0]


def anchorless(model: Model, targets: Sequence[Target], why: str) -> None:
    """Raise BadInput if the anchor is not the concept: a setting that would be ignored is refused."""
    if any(t.state() or not torch.equal(t.condition(["{}"]), model.encode([t.concept.phrase])) for t in targets):
        raise BadInput(f"{why} and has no place for an anchor: add anchor=concept.")


@option("method")
class NegativePrompt:
    """The concept's phrase as the negative prompt of every image."""

    guided: ClassVar = True
    name: str
    version: int = 1

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        return {"guidance.negative": away_from(model, targets, self.name)}


@option("method")
class SafeLatentDiffusion:
    """Safe Latent Diffusion (Schramowski et al. 2023, arXiv 2211.05105, eqs. 3-8).

    At step i, elementwise:  mu = clamp(scale * |e(p) - e(e_c)|, max 1) where e(p) - e(e_c) < threshold, else 0;
    m = mu * (e(e_c) - e(empty)) + momentum * v;  v <- beta * v + (1 - beta) * m;  m acts once i >= warmup.

    Attributes:
        scale, threshold, momentum, beta: s_S, lambda, s_m, beta_m of the paper.
        warmup: delta of the paper as a fraction of the sampling steps (its 10 of 50 is 0.2), rounded to whole steps.
    """

    guided: ClassVar = True
    needs: ClassVar[tuple[Need, ...]] = ("a prediction of noise",)  # of which the threshold is
    name: str
    scale: Annotated[float, Field(ge=0)]
    warmup: Annotated[float, Field(ge=0, le=1)]
    threshold: float
    momentum: Annotated[float, Field(ge=0, le=1)]
    beta: Annotated[float, Field(ge=0, lt=1)]
    version: int = 1

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        rule = torch.tensor([self.scale, self.warmup, self.threshold, self.momentum, self.beta])
        return {"guidance.safety": away_from(model, targets, self.name), "guidance.rule": rule}
