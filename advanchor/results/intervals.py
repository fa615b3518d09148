"""How sure a mean is: bootstrap over prompts (Efron & Tibshirani 1993), paired where two methods drew the same ones.

Images of one prompt resemble each other, so whole prompts are drawn again and not single images, and of several
concepts the prompts of each by themselves. Seeds are averaged first: their spread is reported by itself. A percentile
interval of few prompts is too narrow; its levels are widened as Hesterberg (2015, "What Teachers Should Know About the
Bootstrap", The American Statistician 69, section 4.3) has it, to those at which it is as wide as Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
Means = NDArray[np.float64]


def by_prompt(values: Sequence[Sequence[float]], prompts: Sequence[str]) -> Means:
    """One mean for each prompt (p,), from the single images' values of each seed (s x n) and their prompts (n)."""
    images = np.asarray(values, np.float64).mean(0)
    names = list(dict.fromkeys(prompts))
    place = np.array([names.index(p) for p in prompts])
    return np.bincount(place, images) / np.bincount(place)


def interval(*concepts: Means) -> tuple[float, float]:
    """The 95 % interval of the mean over concepts of the mean of each one's prompts' means (p,); from a fixed seed, so
    that a table is the same every time.
    """
    from scipy.special import ndtr, stdtrit

    rng = np.random.default_rng(0)
    drawn = np.mean(
        [means[rng.integers(len(means), size=(RESAMPLES, len(means)))].mean(1) for means in concepts], axis=0
    )
    fewest, freedom = min(map(len, concepts)), sum(len(means) - 1 for means in concepts)
    tail = float(ndtr(-stdtrit(freedom, 0.975) * math.sqrt(fewest / (fewest - 1)))) if fewest > 1 else 0.0
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return float(low), float(high)


def above(a: Sequence[Means], b: Sequence[Means]) -> bool:
    """Is a's mean above b's, with the whole 95 % interval of their paired difference on the same prompts of each
    concept?
    """
    return interval(*(x - y for x, y in zip(a, b, strict=True)))[0] > 0
