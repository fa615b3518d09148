"""A cell of a table: one score of all runs that stand in the same place, its mean, its deviation and its interval."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from advanchor.intervals import Spread, Table, bounds, spread
from advanchor.units import table


@dataclass(frozen=True)
class Value:
    """One run's score: the single images' values behind it, if it is a mean of them, with their prompts and what each
    should show, and whether each is 0 or 1.
    """

    value: float
    seed: int = 0
    concept: str = ""
    images: Sequence[float] = ()
    prompts: Sequence[str] = ()
    labels: Sequence[str] = ()
    share: bool = False


@dataclass
class Cell:
    """One score of all runs that differ in neither row nor column, and what must agree between them."""

    runs: list[Value] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # of each concept
    better: str = ""
    wanted: int = 0  # runs that the sweep has for it
    code: set[str] = field(default_factory=set)

    @property
    def whole(self) -> dict[int, list[Value]]:
        """The runs of each seed, lowest first; a seed of which runs are missing is not comparable and left out."""
        each: dict[int, list[Value]] = {}
        for run in sorted(self.runs, key=lambda run: run.seed):
            each.setdefault(run.seed, []).append(run)
        have = {seed: Counter(run.concept for run in runs) for seed, runs in each.items()}
        most = reduce(or_, have.values(), Counter[str]())
        return {seed: runs for seed, runs in each.items() if have[seed] == most}

    @property
    def seeds(self) -> list[float]:
        """The mean of each whole seed over concepts, of each one over whatever else is in neither row nor column."""
        found = []
        for runs in self.whole.values():
            concepts: dict[str, list[float]] = {}
            for run in runs:
                concepts.setdefault(run.concept, []).append(run.value)
            found.append(statistics.mean(statistics.mean(values) for values in concepts.values()))
        return found

    @property
    def mean(self) -> float | None:
        """Over whole seeds, or over all runs where there is none."""
        return statistics.mean(self.seeds or [run.value for run in self.runs]) if self.runs else None

    @property
    def texts(self) -> dict[str, tuple[str, ...]]:
        """Of each concept the prompts of its images; empty if the score is no mean of images, or not of the same."""
        found: dict[str, tuple[str, ...]] = {}
        for run in self.runs:
            if not run.images or found.setdefault(run.concept, tuple(run.prompts)) != tuple(run.prompts):
                return {}
        return found

    @property
    def tables(self) -> dict[str, Table]:
        """Of each concept what an interval is made of; of several runs of one seed their mean."""
        texts, found = self.texts, {}
        for concept in dict.fromkeys(run.concept for runs in self.whole.values() for run in runs):
            each = [[run for run in runs if run.concept == concept] for runs in self.whole.values()]
            values = [np.mean([run.images if texts else [run.value] for run in runs], 0) for runs in each]
            found[concept] = table(values, texts.get(concept, [""]))
        return found

    @property
    def spread(self) -> Spread | None:
        """None where no seed is whole."""
        return spread([*self.tables.values()]) if self.whole else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval: over seeds and prompts, or of one seed over prompts alone (SPREAD says so)."""
        share = bool(self.texts) and all(run.share for run in self.runs)
        if not (one := self.spread) or not (reach := bounds(one, share)):
            return None
        low, high = reach
        return float(low), float(high)

    def by_label(self) -> dict[str, float]:
        """The mean over the images that should show each concept."""
        each: dict[str, list[float]] = {}
        for run in self.runs:
            for label, value in zip(run.labels, run.images, strict=True):
                each.setdefault(label, []).append(value)
        return {label: statistics.mean(values) for label, values in each.items()}

    def text(self, bounded: bool = False) -> str:
        """Mean and standard deviation of several seeds, or the one value and its interval; of a sweep that is not
        finished also how many of its runs that is.

        Args:
            bounded: the interval of several seeds too, instead of their deviation.
        """
        if self.mean is None:
            return "—"
        seeds, bounds = self.seeds, self.bounds
        some = f" ({len(self.runs)} of {self.wanted} runs)" if len(self.runs) < self.wanted else ""
        if len(seeds) > 1 and not bounded:
            return f"{three(self.mean)} ± {three(statistics.stdev(seeds))}{some}"
        return three(self.mean) + (f" [{three(bounds[0])}, {three(bounds[1])}]" if bounds else "") + some


def three(value: float) -> str:
    """Three decimals, and no minus before a zero."""
    return f"{round(value, 3) + 0.0:.3f}"
