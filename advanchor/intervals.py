"""How sure a mean is: bootstrap over prompts (Efron & Tibshirani 1993), paired where two methods drew the same ones.

Images of one prompt resemble each other, so whole prompts are drawn again and not single images. Seeds are averaged first: their spread is reported by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


def by_prompt(values: Sequence[Sequence[float]], prompts: Sequence[str]) -> NDArray[np.float64]:
    """One mean for each prompt (p,), from the single images' values of each seed (s x n) and their prompts (n)."""
    images = np.asarray(values, np.float64).mean(0)
    names = list(dict.fromkeys(prompts))
    place = np.array([names.index(p) for p in prompts])
    return np.bincount(place, images) / np.bincount(place)


def interval(means: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of prompts' means; from a fixed seed, so that a table is the same every time."""
    chosen = np.random.default_rng(0).integers(len(means), size=(RESAMPLES, len(means)))
    low, high = np.quantile(means[chosen].mean(1), (0.025, 0.975))
    return float(low), float(high)


def differ(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Does the 95 % interval of the paired difference of the same prompts leave out 0?"""
    low, high = interval(a - b)
    return low > 0 or high < 0
