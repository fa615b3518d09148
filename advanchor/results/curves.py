"""A training as a curve: what is kept against what is still found, over its budgets, and what is read off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from advanchor.intervals import Spread, Table, bounds, spread

Array = NDArray[np.float64]
Names = tuple[str, ...]
Unit = tuple[int, str]  # seed, concept: one training


@dataclass
class Curve:
    """One training at its budgets, the smallest first; of a number of steps the first is 0, the unedited model.

    Attributes:
        better: score -> higher or lower.
        found: share of the erased concept's images in which it is still found, at each budget, in [0, 1].
        scores: name -> the same for what it is held against; of the unedited model only those that it has.
    """

    budgets: list[float] = field(default_factory=list)
    found: list[float] = field(default_factory=list)
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    better: dict[str, str] = field(default_factory=dict)

    def read(self, name: str, at: float) -> float | None:
        """A score where the concept is found in a share `at` of the images: on the straight line between the first
        budget that leaves no more and the one before. None where no budget does, or where the first of all leaves less.
        """
        points = [(x, y) for x, y in zip(self.found, self.scores[name], strict=True) if y is not None]
        reached = next((i for i, (x, _) in enumerate(points) if x <= at), None)
        if reached is None:
            return None
        x, y = points[reached]
        if x == at:
            return y
        if reached == 0:
            return None
        above, before = points[reached - 1]
        return before + (y - before) * (above - at) / (above - x)

    def beyond(self, at: float) -> bool:
        """The first of all budgets leaves less than this already, so that nothing can be read there."""
        return bool(self.found) and self.found[0] < at

    def at(self, budget: float, name: str) -> tuple[float, float] | None:
        """What is still found and a score at one of the budgets."""
        point = {b: (x, y) for b, x, y in zip(self.budgets, self.found, self.scores[name], strict=True)}.get(budget)
        return None if point is None or point[1] is None else (point[0], point[1])

    def volume(self) -> float | None:
        """The hypervolume of all budgets, in [0, 1]: the share of all possible outcomes (not found, and each score)
        that one of them is as good as in everything. It needs no level at which to compare. None if a score is no
        share of anything.
        """
        sides = [
            [y if y is None or self.better.get(name) != "lower" else 1 - y for y in ys]
            for name, ys in self.scores.items()
        ]
        points = [(1 - x, *ys) for x, *ys in zip(self.found, *sides, strict=True) if None not in ys]
        if any(not 0 <= value <= 1 for point in points for value in point):
            return None
        return hypervolume(np.array(points, np.float64).reshape(len(points), 1 + len(sides)))


def hypervolume(points: Array) -> float:
    """Volume of what n points in [0, 1]^d (n x d) are not less than in any coordinate, in slices of the last one (While
    et al. 2006, IEEE Transactions on Evolutionary Computation 10).
    """
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    points = points[np.argsort(-points[:, -1])]
    heights = points[:, -1] - np.append(points[1:, -1], 0.0)
    return sum(float(h) * hypervolume(points[: i + 1, :-1]) for i, h in enumerate(heights) if h > 0)


@dataclass(frozen=True)
class Read:
    """One number of each training, (seeds, concepts); NaN where it could not be read: of `beyond` of them because they
    begin farther on.
    """

    seeds: tuple[int, ...]
    concepts: tuple[str, ...]
    values: Array
    share: bool = False
    beyond: int = 0

    @classmethod
    def of(cls, values: dict[Unit, float | None], share: bool = False, beyond: int = 0) -> Read:
        seeds, concepts = (tuple(dict.fromkeys(one)) for one in zip(*sorted(values), strict=True))
        found = [[values.get((seed, concept)) for concept in concepts] for seed in seeds]
        return cls(seeds, concepts, np.array(found, np.float64), share, beyond)  # None becomes NaN

    @property
    def there(self) -> Array:
        """Those that could be read, (k)."""
        return self.values[np.isfinite(self.values)]

    @property
    def spread(self) -> Spread | None:
        """Over seeds and concepts, both drawn again (intervals.py); None unless all could be read: those that come so
        far are the easy ones.
        """
        return over(self.values) if np.isfinite(self.values).all() else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean over all; of shares within [0, 1]."""
        if self.spread is None or (reach := bounds(self.spread)) is None:
            return None
        low, high = map(float, reach)
        return (max(low, 0.0), min(high, 1.0)) if self.share else (low, high)

    def minus(self, other: Read) -> tuple[Spread, int] | None:
        """The paired difference, over the concepts that both have for all seeds, and how many these are."""
        if self.seeds != other.seeds:
            return None
        both = [c for c in self.concepts if c in other.concepts]
        pairs = [(self.values[:, self.concepts.index(c)], other.values[:, other.concepts.index(c)]) for c in both]
        apart = [a - b for a, b in pairs if np.isfinite(a - b).all()]
        return (over(np.stack(apart, 1)), len(apart)) if apart else None


def over(values: Array) -> Spread:
    """What intervals are made of: values (..., seeds, concepts)."""
    return spread([Table(values, np.ones(values.shape[-1]))])


@dataclass
class Front:
    """The curves of a sweep as one judge sees them.

    Attributes:
        judge: its name.
        found, scores: what is compared at, and what is read there.
        curves: row and column -> training -> its curve.
        better: score -> direction. `shares`: scores that are shares of images.
    """

    judge: str
    found: str
    scores: list[str]
    curves: dict[tuple[Names, Names], dict[Unit, Curve]] = field(default_factory=dict)
    better: dict[str, str] = field(default_factory=dict)
    shares: set[str] = field(default_factory=set)

    def reads(self, row: Names, column: Names, levels: Sequence[float]) -> dict[str, Read]:
        """What is read off a row's curves, by name: every score at every level, and the volume."""
        curves = self.curves[row, column]
        names = {f"{score} at {at:g}": (score, at) for at in levels for score in self.scores}
        found = {
            name: Read.of(
                {unit: one.read(*what) for unit, one in curves.items()},
                what[0] in self.shares,
                sum(one.beyond(what[1]) for one in curves.values()),
            )
            for name, what in names.items()
        }
        return found | {"volume": Read.of({unit: one.volume() for unit, one in curves.items()}, share=True)}
