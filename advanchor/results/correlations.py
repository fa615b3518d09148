"""Rank correlations of what a sweep measured of its anchors."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from advanchor.intervals import Table, bounds, spread
from advanchor.lazy import torch
from advanchor.results.points import COSINE, DRAWN, ERASED, KEPT, MOVED, mean
from advanchor.results.sweep import Sweep

PAIRS = (("similarity_keeping", COSINE, KEPT), ("similarity_fid", COSINE, MOVED), ("drawn_erased", DRAWN, ERASED))


def correlations(sweep: Sweep) -> dict[str, Any]:
    """Spearman's rho of the pairs of numbers that the analysis of anchors is about, over rows within each column, mean
    over columns (concepts).

    Its 95 % interval is Student's t over columns, since the cells of one concept are not independent: of one column it
    has none. An anchor
    that is the concept itself is left out: it keeps and leaves everything by construction. `erasing` counts only
    anchors that take at least half of the concept away: whatever erases nothing keeps all.
    """
    found: dict[str, Any] = {}
    for name, x, y in PAIRS:
        for which, most in (("all", 1.0), ("erasing", 0.5)):
            each = [rho for column in sweep.columns if (rho := spearman(sweep, column, x, y, most)) is not None]
            if each:
                reach = bounds(spread([Table(np.array(each)[:, None], np.ones(1))]))
                low, high = (float(np.clip(end, -1, 1)) for end in reach) if reach else (None, None)
                rho = statistics.mean(each)
                found[f"{name}/{which}"] = {"rho": rho, "low": low, "high": high, "concepts": len(each), "each": each}
    return found


def spearman(sweep: Sweep, column: tuple[str, ...], x: str, y: str, most: float) -> float | None:
    """Rho of two numbers over a column's rows, of which at most `most` of the concept is left; None where it is not
    defined, for fewer than three rows or where one of the numbers is always the same.
    """
    import advanchor.torchvision_ops  # noqa: F401, I001  (before torchmetrics)
    from torchmetrics.functional import spearman_corrcoef

    pairs = []
    for row in sweep.rows:
        a, b, cosine, left = (mean(sweep, row, column, name) for name in (x, y, COSINE, ERASED))
        if a is None or b is None or cosine is None or left is None:
            continue
        if cosine < 0.9999 and left <= most:
            pairs.append((a, b))
    x_and_y = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2).T
    if len(pairs) < 3 or any(len(values.unique()) == 1 for values in x_and_y):
        return None
    return float(spearman_corrcoef(*x_and_y))
