"""Chance from seeds, and what is drawn once: a resumed training sees what an undisturbed one would have seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from advanchor.identity import key
from advanchor.lazy import torch
from advanchor.protocols import Model
from advanchor.provenance import code
from advanchor.store import cached, read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor


def random(seed: int, stream: int, use: int, i: int) -> torch.Generator:
    """A generator of its own for every step."""
    return torch.Generator().manual_seed(((seed * 4 + stream) * 2 + use) * 10_000_000 + i)


def seeds(seed: int, count: int) -> list[int]:
    """Of a pool's images: from a million up, so that none is one that is later measured."""
    return [1_000_000 * (seed + 1) + i for i in range(count)]


def shuffled(n: int, i: int, batch: int, generator: Callable[[int], torch.Generator]) -> list[int]:
    """The i-th batch of indices below n: every index once in each pass, a fresh order each pass."""
    passes = sorted({(i * batch + j) // n for j in range(batch)})
    order = [int(k) for p in passes for k in torch.randperm(n, generator=generator(p))]
    first = (i * batch) % n
    return order[first : first + batch]


def once(
    model: Model, folder: Path, name: str, made_of: Sequence[object], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Tensors that the frozen model draws once: for all runs if it has a shelf, otherwise for this folder. `made_of` is
    all that decides them, beside the code that draws.

    Raises:
        BadInput: they are damaged, or not finite.
    """
    drawn_by = code("advanchor.training.pools", model.made_by)
    place = cached(
        model.shelf or folder,
        f"{name}-{key(*made_of, drawn_by)}",
        lambda part: write_tensors(part / "latents.safetensors", make()),
    )
    return {k: v.to(model.device) for k, v in read_tensors(place / "latents.safetensors").items()}
