"""How figures are painted: each painter takes a matplotlib figure and a sweep."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from advanchor.results.cells import Cell
from advanchor.results.curves import Front, Read
from advanchor.results.points import BEFORE, CONTENT, COSINE, DRAWN, ERASED, KEPT, centre, group, label, mean, varied
from advanchor.results.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    ERASED: "erased concept still found (lower is better)",
    KEPT: "kept concepts found (higher is better)",
    CONTENT: "rest of the erased prompts found (higher is better)",
    COSINE: "cosine of anchor and concept on the concept's tokens",
    DRAWN: "concept found in what the unedited model draws under the anchor",
}
# Okabe & Ito (2008): told apart with any colour vision. Shapes and labels say the same again. Grey stands for their
# yellow, which is hard to see on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
ABREAST = 3  # panels
SHAPES = "osD^vP*XhHpd<>8"


def trade_off(figure: Any, sweep: Sweep) -> None:
    """What is kept, and beside it what is left of the rest of the erased prompts' pictures, against what is erased."""
    measured = [name for name in (KEPT, CONTENT) if name in sweep.scores]
    panels = figure.subplots(1, len(measured), squeeze=False).flatten()
    for axes, name in zip(panels, measured, strict=True):
        against(axes, sweep, name)
    handles, labels = panels[0].get_legend_handles_labels()
    numbered = [f"{[label(sweep, r) for r in sweep.rows].index(text) + 1}  {text}" for text in labels]
    panels[-1].legend(handles, numbered, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def against(axes: Axes, sweep: Sweep, name: str) -> None:
    """One score against the erased one: means over the columns; thin lines reach from the lowest to the highest
    column.
    """
    points = []
    for i, row in enumerate(sweep.rows):
        erased, left = ([mean(sweep, row, column, one) for column in sweep.columns] for one in (ERASED, name))
        across, up = ([value for value in values if value is not None] for values in (erased, left))
        if min(len(across), len(up)) < len(sweep.columns):
            continue  # a mean over other concepts would not be comparable
        x, y = statistics.mean(across), statistics.mean(up)
        groups = [group(sweep, r) for r in sweep.rows]
        first = list(dict.fromkeys(groups)).index(groups[i])
        colour, shape = COLOURS[first % len(COLOURS)], SHAPES[first % len(SHAPES)]
        filled = groups.index(groups[i]) == i  # the others of the same group are hollow
        axes.plot([min(across), max(across)], [y, y], color=colour, linewidth=0.6, alpha=0.5)
        axes.plot([x, x], [min(up), max(up)], color=colour, linewidth=0.6, alpha=0.5)
        inside = colour if filled else "white"
        axes.plot(x, y, shape, color=colour, markersize=8, markerfacecolor=inside, label=label(sweep, row), zorder=3)
        side = ((6, 4), (-6, 4), (6, -10), (-6, -10))[i % 4]  # neighbours in the table are often neighbours here
        ha = "left" if side[0] > 0 else "right"
        axes.annotate(str(i + 1), (x, y), xytext=side, textcoords="offset points", fontsize=7, ha=ha)
        points.append((x, y))
    front = sorted(p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points))
    dashed = {"color": "0.6", "linewidth": 1, "linestyle": "--", "zorder": 1}
    axes.step([p[0] for p in front], [p[1] for p in front], where="post", **dashed)
    axes.set_xlabel(TITLES[ERASED])
    axes.set_ylabel(TITLES[name])
    axes.grid(alpha=0.25)


def scatter(figure: Any, sweep: Sweep, x: str, y: str) -> None:
    """One point for each row and column: colour is the column, shape the row."""
    axes = figure.add_subplot()
    for j, column in enumerate(sweep.columns):
        for i, row in enumerate(sweep.rows):
            across, up = mean(sweep, row, column, x), mean(sweep, row, column, y)
            if across is not None and up is not None:
                axes.plot(across, up, SHAPES[i % len(SHAPES)], color=COLOURS[j % len(COLOURS)], markersize=7, **face(i))
    keys(axes, [label(sweep, r) for r in sweep.rows], [" + ".join(c) for c in sweep.columns])
    axes.set_xlabel(TITLES[x])
    axes.set_ylabel(TITLES[y])
    axes.grid(alpha=0.25)


def settings(figure: Any, sweep: Sweep) -> None:
    """A panel for each setting: colour is the column; erased filled and solid, kept hollow and dashed; bars are the
    95 % intervals; the centre's value is marked.
    """
    panels = panels_of(figure, len(varied(sweep)))
    for axes, (name, values) in zip(panels, varied(sweep).items(), strict=False):
        for j, column in enumerate(sweep.columns):
            colour = COLOURS[j % len(COLOURS)]
            for what, line, inside, said in ((ERASED, "-", colour, "erased"), (KEPT, "--", "white", "kept")):
                cells = [sweep.cells.get((row, column, what), Cell()) for _, row in values]
                there = [(x, cell) for x, cell in enumerate(cells) if cell.runs]
                spans = [cell.bounds or (cell.mean, cell.mean) for _, cell in there]
                lows, highs = [low for low, _ in spans], [high for _, high in spans]
                places = [x + 0.06 * (j - (len(sweep.columns) - 1) / 2) for x, _ in there]
                axes.vlines(places, lows, highs, color=colour, linewidth=0.8, alpha=0.6)
                look = {"marker": SHAPES[j % len(SHAPES)], "color": colour, "markersize": 5, "markerfacecolor": inside}
                key = f"{' + '.join(column)} {said}"
                axes.plot(places, [cell.mean for _, cell in there], line, linewidth=1, label=key, **look)
        middle = next(x for x, (_, row) in enumerate(values) if row == centre(sweep))
        axes.axvline(middle, color="0.85", linewidth=6, zorder=0)
        axes.set_xticks(range(len(values)), [value for value, _ in values], fontsize=7)
        axes.set_xlabel(name, fontsize=8)
        axes.set_ylabel("found", fontsize=8)
        axes.set_ylim(-0.03, 1.03)
        axes.grid(axis="y", alpha=0.25)
    known = panels[0].get_legend_handles_labels()
    figure.legend(*known, loc="outside upper center", ncols=2 * len(sweep.columns), fontsize=7, frameon=False)


def concepts(figure: Any, sweep: Sweep) -> None:
    """Erased (lower is better) and kept hit rate side by side, with their 95 % intervals."""
    panels = panels_of(figure, len(sweep.columns))
    for axes, column in zip(panels, sweep.columns, strict=False):
        for offset, name, colour in ((-0.2, ERASED, COLOURS[1]), (0.2, KEPT, COLOURS[0])):
            cells = [sweep.cells.get((row, column, name), Cell()) for row in sweep.rows]
            there = [
                (p + offset, c.mean, c.bounds or (c.mean, c.mean)) for p, c in enumerate(cells) if c.mean is not None
            ]
            key = {ERASED: "erased concept found", KEPT: "kept concepts found"}[name]
            axes.barh([p for p, _, _ in there], [v for _, v, _ in there], 0.38, color=colour, label=key)
            for place, value, (low, high) in there:  # a missing run has no number, a zero has one
                axes.hlines(place, low, high, color="0.25", linewidth=0.8)
                axes.text(high + 0.01, place, rate(value), va="center", fontsize=6)
        axes.set_title(" + ".join(column), fontsize=9)
        axes.tick_params(axis="y", labelsize=7)
        axes.set_xlim(0, 1.15)
        axes.set_xticks([0, 0.5, 1])
        axes.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(range(len(sweep.rows)), [label(sweep, row) for row in sweep.rows], fontsize=7)
    panels[0].invert_yaxis()
    known = panels[0].get_legend_handles_labels()
    figure.legend(*known, loc="outside upper center", ncols=2, fontsize=8, frameon=False)


def panels_of(figure: Any, count: int) -> Any:
    """So many axes, ABREAST in a row, with one vertical axis; what is left over in the last row is blank."""
    rows, columns = math.ceil(count / ABREAST), min(ABREAST, count)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axes in panels[count:]:
        axes.set_axis_off()
    return panels


def rate(value: float) -> str:
    """A share in three decimals; only 0 and 1 themselves are written as such."""
    return f"{value if value in (0, 1) else min(max(value, 0.001), 0.999):.3f}"


def interference(figure: Any, sweep: Sweep) -> None:
    """Erased row by measured column; the erased concept itself is framed."""
    from matplotlib.patches import Rectangle

    lines = [line for row in sweep.rows for column in sweep.columns for line in changed(sweep, row, column)]
    measured = list(dict.fromkeys(concept for _, changes, _ in lines for concept in changes))
    axes = figure.add_subplot()
    values = np.array([[changes.get(concept, np.nan) for concept in measured] for _, changes, _ in lines], dtype=float)
    image = axes.imshow(values.reshape(len(lines), len(measured)), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for i, (_, _, erased) in enumerate(lines):
        for concept in erased:
            axes.add_patch(
                Rectangle((measured.index(concept) - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1)
            )
    axes.set_xticks(range(len(measured)), measured, rotation=90, fontsize=6)
    axes.set_yticks(range(len(lines)), [text for text, _, _ in lines], fontsize=6)
    bar = figure.colorbar(image, ax=axes, aspect=12)
    bar.set_label("hit rate after minus before\n(white: not measured)", fontsize=7)
    bar.ax.tick_params(labelsize=7)


def changed(
    sweep: Sweep, row: tuple[str, ...], column: tuple[str, ...]
) -> list[tuple[str, dict[str, float], set[str]]]:
    """For each concept that a row and column erased: their names, what the erasing did to every measured concept (hit
    rate after minus before), and the erased ones among these.
    """
    runs = {name: sweep.cells.get((row, column, name), Cell()).runs for name in (*BEFORE, *BEFORE.values())}
    erased = dict.fromkeys(run.concept for run in runs[ERASED])  # a column can stand for more than one concept
    lines = []
    for one in erased:
        changes: dict[str, float] = {}
        for name in (KEPT, ERASED):
            after = Cell([run for run in runs[name] if run.concept == one]).by_label()
            base = Cell([run for run in runs[BEFORE[name]] if run.concept == one]).by_label()
            changes |= {shown: after[shown] - base[shown] for shown in after if shown in base}
        if changes:
            names = column if len(erased) == 1 else (one,)
            lines.append((" + ".join([label(sweep, row), *names]), changes, set(after)))
    return lines


def fronts_of(figure: Any, fronts: Sequence[Front], column: Sequence[str]) -> None:
    """Scores against the erased one, a line of panels for each judge: the mean over trainings of what is read off each
    curve, with its 95 % interval over seeds and concepts as a band, where all of them come so far; marks are the means
    of the budgets.
    """
    levels = [i / 100 for i in range(101)]
    widest = max(len(front.scores) for front in fronts)
    panels = figure.subplots(len(fronts), widest, squeeze=False)
    for line, front in zip(panels, fronts, strict=True):
        rows = [row for row, at in front.curves if at == tuple(column)]
        for axes in line[len(front.scores) :]:
            axes.set_axis_off()
        for axes, name in zip(line, front.scores, strict=False):
            for i, row in enumerate(rows):
                colour, shape = COLOURS[i % len(COLOURS)], SHAPES[i % len(SHAPES)]
                curves = front.curves[row, tuple(column)]
                share = name in front.shares
                read = [Read.of({unit: one.read(name, x) for unit, one in curves.items()}, share) for x in levels]
                whole = [(x, one.spread.mean) for x, one in zip(levels, read, strict=True) if one.spread]
                axes.plot([x for x, _ in whole], [float(mean) for _, mean in whole], color=colour, linewidth=1.2)
                if spans := [(x, *one.bounds) for x, one in zip(levels, read, strict=True) if one.bounds]:
                    axes.fill_between(*np.array(spans, np.float64).T, color=colour, alpha=0.12, linewidth=0)
                budgets = sorted({b for one in curves.values() for b in one.budgets})
                each = [[one.at(b, name) for one in curves.values()] for b in budgets]
                means = [np.mean([p for p in at if p], 0) for at in each if all(at)]
                look = {"color": colour, "markerfacecolor": "white", "markersize": 5, "linestyle": "", **face(i)}
                axes.plot([x for x, _ in means], [y for _, y in means], shape, label=" + ".join(row), **look)
            axes.set_xlabel(f"{front.found}, {front.judge} (lower is better)", fontsize=8)
            axes.set_ylabel(f"{name} ({front.better.get(name, '')} is better)", fontsize=8)
            axes.set_xlim(-0.02, 1.02)
            axes.grid(alpha=0.25)
    known = panels[0][0].get_legend_handles_labels()
    figure.legend(*known, loc="outside upper center", ncols=4, fontsize=8, frameon=False)


def face(i: int) -> dict[str, Any]:
    """Once the shapes are used up they come again hollow."""
    return {"markerfacecolor": "white"} if i >= len(SHAPES) else {}


def keys(axes: Axes, shapes: Sequence[str], colours: Sequence[str]) -> None:
    """A legend that names what shapes and colours stand for; a colour is a stroke, since a square is a shape."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=SHAPES[i % len(SHAPES)], color="0.4", linestyle="", label=text, **face(i))
        for i, text in enumerate(shapes)
    ]
    handles += [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], linewidth=5, label=text) for i, text in enumerate(colours)
    ]
    axes.legend(handles=handles, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
