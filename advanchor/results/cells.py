"""A cell of a table: one score of all runs that stand in the same place, its mean, its spread and its interval."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from advanchor.core import share
from advanchor.results.intervals import Means, by_prompt, interval

FEWEST = 8  # prompts; fewer of them say too little about others, and single images are drawn again instead
SPREAD = (
    "[low, high] is 95 % over the prompts of one training (over its images where there are fewer than "
    f"{FEWEST} prompts); how far other seeds' trainings differ is unknown."
)


@dataclass(frozen=True)
class Value:
    """One run's score: the single images' values behind it, if it is a mean of them, with their prompts and what each
    should show, and how wide its own interval is.
    """

    value: float
    seed: int = 0
    concept: str = ""
    images: Sequence[float] = ()
    prompts: Sequence[str] = ()
    labels: Sequence[str] = ()
    width: float = 0.0


@dataclass
class Cell:
    """One score of all runs that differ in neither row nor column, and what must agree between them."""

    runs: list[Value] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # of each concept
    better: str = ""
    wanted: int = 0  # runs that the sweep has for it
    code: set[str] = field(default_factory=set)

    @property
    def mean(self) -> float | None:
        """Over all runs."""
        return statistics.mean(run.value for run in self.runs) if self.runs else None

    @property
    def seeds(self) -> list[float]:
        """The mean of each seed, over concepts and whatever else is in neither row nor column; a seed of which runs are
        missing is not comparable and left out.
        """
        each: dict[int, list[Value]] = {}
        for run in self.runs:
            each.setdefault(run.seed, []).append(run)
        have = {seed: Counter(run.concept for run in runs) for seed, runs in each.items()}
        whole = reduce(or_, have.values(), Counter[str]())
        return [statistics.mean(run.value for run in runs) for seed, runs in each.items() if have[seed] == whole]

    @property
    def units(self) -> dict[str, dict[str, float]]:
        """Of each concept what is drawn again for an interval, each with its mean over seeds: its prompts, or its
        single images where these are too few.

        Empty if the score is no mean of single images.
        """
        if not all(run.images for run in self.runs):
            return {}
        found: dict[str, dict[str, float]] = {}
        for concept in dict.fromkeys(run.concept for run in self.runs):
            runs = [run for run in self.runs if run.concept == concept]
            few = len(set(runs[0].prompts)) < FEWEST
            names = [f"{text} #{i}" if few else text for i, text in enumerate(runs[0].prompts)]
            means = by_prompt([run.images for run in runs], names).tolist()
            found[concept] = dict(zip(dict.fromkeys(names), means, strict=True))
        return found

    def by_label(self) -> dict[str, float]:
        """The mean over the images that should show each concept."""
        each: dict[str, list[float]] = {}
        for run in self.runs:
            for label, value in zip(run.labels, run.images, strict=True):
                each.setdefault(label, []).append(value)
        return {label: statistics.mean(values) for label, values in each.items()}

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval. Where all images agree the bootstrap has no width, and Wilson's interval of a share of so
        many images stands for it.
        """
        units = self.units
        if not units:
            return None
        images = [value for run in self.runs for value in run.images]
        if set(images) in ({0.0}, {1.0}) and self.runs[0].width > 0:  # a share's own interval has width even then
            of_one_seed = sum(len(run.images) for run in self.runs if run.seed == self.runs[0].seed)
            one = share([bool(v) for v in images[:of_one_seed]], "higher")
            return one["low"], one["high"]
        return interval(*arrays(units))

    def text(self) -> str:
        """Mean and standard deviation of several seeds, or the one value and its interval; of a sweep that is not
        finished also how many of its runs that is.
        """
        if self.mean is None:
            return "—"
        seeds, bounds = self.seeds, self.bounds
        some = f" ({len(self.runs)} of {self.wanted} runs)" if len(self.runs) < self.wanted else ""
        if len(seeds) > 1:
            return f"{three(statistics.mean(seeds))} ± {three(statistics.stdev(seeds))}{some}"
        if not seeds:
            return f"{three(self.mean)}{some}"
        return three(seeds[0]) + (f" [{three(bounds[0])}, {three(bounds[1])}]" if bounds else "") + some


def three(value: float) -> str:
    """Three decimals, and no minus before a zero."""
    return f"{round(value, 3) + 0.0:.3f}"


def arrays(units: Mapping[str, Mapping[str, float]]) -> list[Means]:
    return [np.array(list(means.values())) for means in units.values()]
