"""Rank correlations of what a sweep measured of its anchors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from advanchor.intervals import Table, bounds, spread
from advanchor.lazy import torch
from advanchor.results.points import COSINE, DRAWN, ERASED, KEPT, MOVED, POOLED, PREDICTED, mean
from advanchor.results.sweep import Sweep

PAIRS = (
    ("similarity_keeping", COSINE, KEPT),
    ("similarity_fid", COSINE, MOVED),
    ("pooled_keeping", POOLED, KEPT),
    ("predicted_keeping", PREDICTED, KEPT),
    ("drawn_erased", DRAWN, ERASED),
)


def correlations(sweep: Sweep) -> dict[str, Any]:
    """Spearman's rho of the pairs of numbers that the analysis of anchors is about, over rows within each column, mean
    over columns (concepts).

    Its 95 % interval is Student's t over columns, since the cells of one concept are not independent: of one column it
    has none. An anchor
    that is the concept itself is left out: it keeps and leaves everything by construction. `erasing` counts only
    anchors that take at least half of the concept away: whatever erases nothing keeps all. `given` is the partial
    correlation over all anchors, what is erased held fixed (of the ranks: Kendall & Stuart 1979, section 27.8).
    """
    found: dict[str, Any] = {}
    for name, x, y in PAIRS:
        for which in ("all", "erasing", "given"):
            if which == "given" and ERASED in (x, y):
                continue
            each = [rho for column in sweep.columns if (rho := correlated(sweep, column, x, y, which)) is not None]
            if each:
                reach = bounds(spread([Table(np.array(each)[:, None], np.ones(1))]))
                low, high = (float(np.clip(end, -1, 1)) for end in reach) if reach else (None, None)
                rho = statistics.mean(each)
                found[f"{name}/{which}"] = {"rho": rho, "low": low, "high": high, "concepts": len(each), "each": each}
    return found


def correlated(sweep: Sweep, column: tuple[str, ...], x: str, y: str, which: str) -> float | None:
    """Rho of two numbers over a column's rows: all, those that are `erasing`, or `given` what is erased; None where it
    is not defined, for fewer than three rows (four if given) or where one of the numbers is always the same.
    """
    rows = []
    for row in sweep.rows:
        a, b, cosine, left = (mean(sweep, row, column, name) for name in (x, y, COSINE, ERASED))
        if a is None or b is None or cosine is None or left is None:
            continue
        if cosine < 0.9999 and (which != "erasing" or left <= 0.5):
            rows.append((a, b, left))
    numbers = list(zip(*rows, strict=True))
    needed = numbers if which == "given" else numbers[:2]
    if len(rows) < 3 + (which == "given") or any(len({*values}) == 1 for values in needed):
        return None
    rho = spearman(numbers[0], numbers[1])
    if which != "given":
        return rho
    first, second = spearman(numbers[0], numbers[2]), spearman(numbers[1], numbers[2])
    rest = (1 - first**2) * (1 - second**2)
    return (rho - first * second) / math.sqrt(rest) if rest > 1e-9 else None


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Of two lists of numbers, none of which is always the same."""
    import advanchor.torchvision_ops  # noqa: F401, I001  (before torchmetrics)
    from torchmetrics.functional import spearman_corrcoef

    return float(spearman_corrcoef(*(torch.tensor(values, dtype=torch.float64) for values in (x, y))))
