"""How sure a number is: one 95 % interval for every mean and one test of every difference, wherever they are shown.

What would be otherwise the next time are the training, which has a seed, and the prompts that somebody thought of. All
seeds meet the same prompts, so there are two crossed factors; concepts are what they are. With y[s, p] the mean over
the images of seed s and prompt p, of S seeds, P prompts and K concepts, the variance of the mean over all has two parts

    V_seeds = sum_k var_s(mean_p y) / S / K^2    V_prompts = sum_k var_p(mean_s y) / P / K^2

that both hold the chance of single images: it is counted twice, which makes an interval a little too wide and never too
narrow. Each part has degrees of freedom of its own (S - 1, P - 1, over concepts by Satterthwaite 1946, Biometrics
Bulletin 2), and an interval reaches on either side as far as

    h = sqrt( t_seeds^2 V_seeds + t_prompts^2 V_prompts )

(Banerjee 1960, Sankhya 22: at least the level asked for). One Student's t with Satterthwaite's degrees of freedom of
the sum is narrower and marked up to 13 % of equal rows at two seeds: seeds that agree by chance raise its
degrees of freedom (scripts/coverage.py, NOTES.md).

The interval of a share is Wilson's (1927) with the number n of independent images that gives the same h (Korn &
Graubard 1998, Survey Methodology 24), so it lies within [0, 1] and leans to the middle. Few prompts that agree do not
prove that others would: images of one prompt count as alike with a correlation of at least ALIKE (a design effect, Kish
1965), so n is never more than that leaves, and the interval has width where all images agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
LEVEL = 0.05
ALIKE = 0.2  # of 0, 0.1, 0.2, 0.3 the least with which scripts/coverage.py finds 0.92 or more everywhere


class Table(NamedTuple):
    """What was measured of one concept: `means` (..., S, P) over the images of each seed and prompt, and how many
    `images` (P) each of them has. What is no mean of images has P = 1 (units.py makes tables).
    """

    means: Array
    images: Array


class Spread(NamedTuple):
    """A mean over concepts (...), its variance in parts, "prompts" and "seeds", each (...) with its degrees of freedom,
    and the number of independent images beyond which a share's interval does not trust it.
    """

    mean: Array
    parts: dict[str, tuple[Array, Array]]
    images: float


def spread(concepts: Sequence[Table]) -> Spread:
    """The mean over concepts of each one's mean, and how far it would be off the next time.

    A part is missing where it cannot be known: "seeds" where a concept has one, "prompts" where it has one value.
    """
    means: list[Array] = []
    each: dict[str, list[tuple[Array, int]]] = {"prompts": [], "seeds": []}
    trusted = 0.0
    for y, images in concepts:
        seeds, prompts = y.shape[-2:]
        weight = images / images.sum()
        by_seed, by_prompt = y @ weight, y.mean(-2)
        mean = by_seed.mean(-1)
        means.append(mean)
        if prompts > 1:
            off = (weight * (by_prompt - mean[..., None])) ** 2
            each["prompts"].append((off.sum(-1) * prompts / (prompts - 1), prompts - 1))
        if seeds > 1:
            each["seeds"].append((by_seed.var(-1, ddof=1) / seeds, seeds - 1))
        trusted += float((weight**2 * (ALIKE + (1 - ALIKE) / (images * seeds))).sum())
    k = len(concepts)
    parts = {name: pooled(found, k) for name, found in each.items() if len(found) == k}
    return Spread(np.mean(means, 0), parts, k * k / trusted)


def pooled(each: Sequence[tuple[Array, int]], k: int) -> tuple[Array, Array]:
    """The variance of a mean over k concepts from each one's, and its degrees of freedom (Satterthwaite 1946)."""
    variances, freedom = np.array([v for v, _ in each]), np.array([f for _, f in each], np.float64)
    total, square = variances.sum(0), np.tensordot(1 / freedom, variances**2, 1)
    df = np.where(square > 0, total**2 / np.where(square > 0, square, 1), freedom.sum())
    return total / k**2, df


def half(one: Spread, level: ArrayLike = LEVEL) -> Array:
    """How far the interval of that level reaches on either side, (...)."""
    from scipy.special import stdtrit

    square = sum(stdtrit(df, 1 - np.asarray(level) / 2) ** 2 * v for v, df in one.parts.values())
    return np.sqrt(np.asarray(square, np.float64))


def bounds(one: Spread, share: bool = False) -> tuple[Array, Array] | None:
    """The 95 % interval, (...) each; None where nothing is known about it."""
    if not share and not one.parts:
        return None
    reach, p = half(one), one.mean
    if not share:
        return p - reach, p + reach
    z = 1.959964
    p = np.clip(p, 0, 1)  # all of them are 1, but for rounding
    square = p * (1 - p)
    n = np.minimum(square / np.maximum(reach, 1e-9) ** 2, one.images / z**2)  # in units of the square of t
    n = np.where(square > 0, n, one.images / z**2)
    middle, side = (p + 0.5 / n) / (1 + 1 / n), np.sqrt(square / n + 0.25 / n**2) / (1 + 1 / n)
    return np.clip(middle - side, 0, p), np.clip(middle + side, p, 1)


def p_value(one: Spread) -> Array:
    """Two-sided, (...): the level at which the interval begins to leave out 0."""
    low, high = np.full(np.shape(one.mean), -30.0), np.zeros(np.shape(one.mean))  # of its logarithm
    for _ in range(40):
        middle = (low + high) / 2
        out = np.abs(one.mean) > half(one, np.exp(middle))
        low, high = np.where(out, low, middle), np.where(out, middle, high)
    return np.exp(high)


def ahead(first: Sequence[Table], others: Sequence[Sequence[Table]], sign: int = 1) -> NDArray[np.bool_]:
    """Is the first row's mean the highest (the lowest with `sign` -1), (...)? That is, apart from every other's by
    their differences on the same seeds, prompts and concepts, all of them together (Holm 1979, Scandinavian Journal
    of Statistics 6).
    """
    apart = [spread([Table(a.means - b.means, a.images) for a, b in zip(first, row, strict=True)]) for row in others]
    ordered = np.sort(np.array([p_value(one) for one in apart]), 0)
    limits = LEVEL / np.arange(len(others), 0, -1)
    significant = (ordered <= limits.reshape(-1, *[1] * (ordered.ndim - 1))).all(0)
    return np.asarray(significant & (np.array([sign * one.mean for one in apart]) > 0).all(0))
