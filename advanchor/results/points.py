"""What figures are about: a sweep's numbers, what its rows are called, and which settings it varies."""

from __future__ import annotations

import math
import re
import statistics

from advanchor.results.cells import Cell
from advanchor.results.sweep import Sweep

ERASED, CONTENT, KEPT = "erasure/hit", "content/hit", "keep/hit"
COSINE, DRAWN, MOVED = "anchor/cosine_span", "anchor/hit", "fid/keep"
POOLED, PREDICTED = "anchor/cosine_pooled", "anchor/predicted"
BEFORE = {ERASED: f"{ERASED}@base", KEPT: f"{KEPT}@base"}


def mean(sweep: Sweep, row: tuple[str, ...], column: tuple[str, ...], name: str) -> float | None:
    return sweep.cells.get((row, column, name), Cell()).mean


def centre(sweep: Sweep) -> tuple[str, ...] | None:
    """The row that all others differ from in one number each, of several that vary; None if there is none."""
    several = [values for values in zip(*sweep.rows, strict=True) if len(set(values)) > 1]
    if len(several) < 2 or not all(
        value == "none" or re.fullmatch(r"[-+.e\d]+", value) for values in several for value in values
    ):
        return None
    usual = tuple(statistics.mode(values) for values in zip(*sweep.rows, strict=True))
    alone = all(sum(a != b for a, b in zip(row, usual, strict=True)) <= 1 for row in sweep.rows)
    return usual if alone and usual in sweep.rows else None


def group(sweep: Sweep, row: tuple[str, ...]) -> str:
    """What rows share a shape by: the setting that differs from the centre, or else their first name."""
    usual = centre(sweep)
    if usual is None:
        return row[0]
    return next((name for name, a, b in zip(sweep.settings, row, usual, strict=True) if a != b), "centre")


def label(sweep: Sweep, row: tuple[str, ...]) -> str:
    usual = centre(sweep)
    if usual is None:
        return " + ".join(row)
    return next((f"{name} {a}" for name, a, b in zip(sweep.settings, row, usual, strict=True) if a != b), "centre")


def varied(sweep: Sweep) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """The values of each setting that a sweep varies alone, lowest first (`none` last), each with its row."""
    usual = centre(sweep)
    found = {}
    for i, name in enumerate(sweep.settings if usual else []):
        alone = [(row[i], row) for row in sweep.rows if row == usual or group(sweep, row) == name]
        if len(alone) > 1:
            found[name] = sorted(alone, key=lambda one: math.inf if one[0] == "none" else float(one[0]))
    return found
