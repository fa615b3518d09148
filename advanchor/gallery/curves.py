"""A training's scalars as curves: lines of inline SVG, and what they say in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 240, 80  # of a curve's drawing area
MOST = 120  # points of a line


@dataclass(frozen=True)
class Curve:
    """One scalar over a training.

    Attributes:
        points: of the line, "x,y x,y ..." in a box of WIDTH by HEIGHT.
        each: every which of its values is drawn, the first and the last always.
    """

    name: str
    points: str
    count: int
    first: float
    last: float
    low: float
    high: float
    each: int


def curves(record: Sequence[dict[str, float]]) -> list[Curve]:
    """A curve for every scalar that was written down at least twice; what is not finite is left out."""
    found = []
    for name in dict.fromkeys(key for step in record for key in step):
        there = [(i, step[name]) for i, step in enumerate(record) if math.isfinite(step.get(name, math.nan))]
        if len(there) < 2:
            continue
        each = math.ceil(len(there) / MOST)
        drawn = [*there[:-1:each], there[-1]]
        low, high = min(v for _, v in there), max(v for _, v in there)
        across, up = max(len(record) - 1, 1), (high - low) or 1.0
        points = " ".join(f"{i / across * WIDTH:.1f},{HEIGHT * (1 - (v - low) / up):.1f}" for i, v in drawn)
        found.append(Curve(name, points, len(there), there[0][1], there[-1][1], low, high, each))
    return found
