"""Figures of what attacks bring back, and of how far an edited model is from models that never learned the concept."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from advanchor.results.cells import Cell
from advanchor.results.painters import COLOURS, SHAPES, face, panels_of
from advanchor.results.points import label, mean
from advanchor.results.sweep import Sweep
from advanchor.store import slug

Column = tuple[str, ...]
Figure = tuple[str, Callable[[Any], None], tuple[float, float]]
DISTANCES = {
    "labels": "labels (total variation)",
    "kid_erase": "KID x 1000, erased prompts",
    "cmmd_erase": "CMMD x 1000, erased prompts",
    "eps": "prediction (squared difference)",
    "kid_keep": "KID x 1000, kept prompts",
    "cmmd_keep": "CMMD x 1000, kept prompts",
}
OTHERS = {  # distances that stand beside an edited model's: line, and what it is
    "@base": (":", "unedited model"),
    "@noise": ("--", "models that learned everything"),
    "@floor": ("-", "models that never knew, to each other"),
}


def figures(sweep: Sweep) -> list[Figure]:
    """Those for which the sweep has scores: attacks, doses and reference, of each column."""
    found: list[Figure] = []
    names = list(dict.fromkeys(name for _, _, name in sweep.cells))
    attacks = [name.split("/")[1] for name in names if re.fullmatch(r"attack/\w+/asr", name)]
    doses = [one for one in attacks if any(name.startswith(f"attack/{one}/hit:") for name in names)]
    distances = [one for one in DISTANCES if f"reference/{one}" in names]
    high, legend = len(sweep.rows), 0.25 * -(-len(sweep.rows) // 4)
    for column in sweep.columns:
        words = "-".join(["", *column])
        end = words if re.fullmatch(r"[\w-]{0,60}", words) else f"-{slug(words)}"
        if attacks:
            size = (11, 1.6 + legend + len(attacks) * max(0.3, 0.06 * high))
            found.append((f"attacks{end}", partial(bring_back, names=attacks, sweep=sweep, column=column), size))
        if doses:
            size = (11, 0.6 + legend + 2.7 * -(-len(doses) // 3))
            found.append((f"doses{end}", partial(by_dose, names=doses, sweep=sweep, column=column), size))
        if distances:
            size = (11, (0.9 + 0.25 * high) * -(-len(distances) // 3) + 0.8)
            found.append((f"reference{end}", partial(distant, names=distances, sweep=sweep, column=column), size))
    return found


def bring_back(figure: Any, sweep: Sweep, column: Column, names: list[str]) -> None:
    """Found after each attack, with what the attack finds in a model that never knew as a black stroke; and beside it
    the excess over both controls, with 95 % intervals.
    """
    left, right = figure.subplots(1, 2, sharey=True)
    for i, row in enumerate(sweep.rows):
        look = {"color": COLOURS[i % len(COLOURS)], "marker": SHAPES[i % len(SHAPES)], "markersize": 5, **face(i)}
        key = label(sweep, row)
        for j, name in enumerate(names):
            place = j + (i - (len(sweep.rows) - 1) / 2) * 0.7 / len(sweep.rows)
            for axes, what in ((left, "asr"), (right, "excess")):
                cell = sweep.cells.get((row, column, f"attack/{name}/{what}"), Cell())
                if cell.mean is None:
                    continue
                axes.plot(cell.mean, place, linestyle="", label=key, **look)
                low, high = cell.bounds or (cell.mean, cell.mean)
                axes.hlines(place, low, high, color=look["color"], linewidth=0.8, alpha=0.6)
                key = ""
            never = mean(sweep, row, column, f"attack/{name}/never")
            if never is not None:
                left.plot(never, place, "|", color="black", markersize=6)
    right.axvline(0, color="0.6", linewidth=1)
    left.set_xlabel("found before or after the attack (|: in a model that never knew)")
    right.set_xlabel("excess over chance and a model that never knew")
    left.set_xlim(-0.03, 1.03)
    left.set_yticks(range(len(names)), names, fontsize=8)
    left.invert_yaxis()
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.25)
    keys(figure, left, 4)


def by_dose(figure: Any, sweep: Sweep, column: Column, names: list[str]) -> None:
    """Found against the dose, a panel for each attack; dashed: a model that never knew; the mean over rows, whose runs
    attack the same one.
    """
    panels = panels_of(figure, len(names))
    for axes, name in zip(panels, names, strict=False):
        for i, row in enumerate(sweep.rows):
            look = {"color": COLOURS[i % len(COLOURS)], "marker": SHAPES[i % len(SHAPES)], "markersize": 4, **face(i)}
            axes.plot(*curve(sweep, row, column, f"attack/{name}/hit:"), linewidth=1, label=label(sweep, row), **look)
        for row in sweep.rows:
            known = "never knew" if row == sweep.rows[0] else ""
            look = {"color": "black", "linestyle": "--", "linewidth": 1.8}
            axes.plot(*curve(sweep, row, column, f"attack/{name}/never:"), label=known, **look)
        axes.set_xlabel(f"{name}: dose", fontsize=8)
        axes.set_ylabel("found", fontsize=8)
        axes.set_ylim(-0.03, 1.03)
        axes.grid(alpha=0.25)
    keys(figure, panels[0], 4)


def curve(sweep: Sweep, row: Column, column: Column, start: str) -> tuple[list[float], list[float]]:
    """Doses and what is found at each, of scores whose names start so."""
    found = {}
    for at_row, at_column, name in sweep.cells:
        if (at_row, at_column) == (row, column) and name.startswith(start):
            value = mean(sweep, row, column, name)
            if value is not None:
                found[float(name.removeprefix(start))] = value
    return sorted(found), [found[dose] for dose in sorted(found)]


def distant(figure: Any, sweep: Sweep, column: Column, names: list[str]) -> None:
    """A panel for each distance to models that never knew, a point for each row; what others are apart as lines."""
    panels = panels_of(figure, len(names))
    for axes, name in zip(panels, names, strict=False):
        for i, row in enumerate(sweep.rows):
            value = mean(sweep, row, column, f"reference/{name}")
            if value is not None:
                axes.plot(value, i, SHAPES[i % len(SHAPES)], color=COLOURS[i % len(COLOURS)], **face(i))
        for which, (line, said) in OTHERS.items():
            values = [mean(sweep, row, column, f"reference/{name}{which}") for row in sweep.rows]
            if known := [value for value in values if value is not None]:
                axes.axvline(sum(known) / len(known), color="0.4", linestyle=line, linewidth=1, label=said)
        axes.set_title(DISTANCES[name], fontsize=8)
        axes.grid(axis="x", alpha=0.25)
        axes.tick_params(labelsize=7)
    panels[0].set_yticks(range(len(sweep.rows)), [label(sweep, row) for row in sweep.rows], fontsize=7)
    panels[0].invert_yaxis()
    keys(figure, panels[0], 3)


def keys(figure: Any, axes: Any, columns: int) -> None:
    """What the marks and lines of one panel stand for, above all of them."""
    known = axes.get_legend_handles_labels()
    figure.legend(*known, loc="outside upper center", ncols=columns, fontsize=8, frameon=False)
