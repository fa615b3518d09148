"""`advanchor plot`: a sweep read back as figures, PNG and PDF.

    advanchor plot experiment=methods --to=docs/results/methods

trade-off.*    erased against kept hit rate, a point for each row of the table, with the front of those that no other beats in both
similarity.*   the anchor's cosine to its concept against the kept hit rate, a point for each cell
lacking.*      how often the unedited model still draws the concept under the anchor against the erased hit rate, a point for each cell
settings.*     erased and kept hit rate against the value of each setting, where a sweep varies numbers one at a time
correlations.json  Spearman's rank correlation of those two pairs, and of cosine and FID of the kept images, each with its interval
concepts.*     bars of erased and kept hit rate for each row, a panel for each column
interference.* what erasing each row and column did to every measured concept: hit rate after minus before, as a heat map
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from advanchor.core import BadInput
from advanchor.lazy import torch
from advanchor.results.intervals import interval
from advanchor.results.tables import Cell, Sweep, parted, read

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "erasure/hit": "erased concept still found (lower is better)", "keep/hit": "kept concepts found (higher is better)",
    "anchor/cosine_span": "cosine of anchor and concept on the concept's tokens", "anchor/hit": "concept found in what the unedited model draws under the anchor",
}  # fmt: skip
# Okabe & Ito (2008): told apart with any colour vision. Shapes and labels say the same again.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#999999",
)  # grey for the yellow, which is hard to see on white
ABREAST = 3  # panels
SHAPES = "osD^vP*XhHpd<>8"
HELP = """advanchor plot key=value ...   the runs that `advanchor -m key=value ...` makes, read back as figures (PNG and PDF); nothing is computed

--to=<folder>                  where the figures go; figures/<study> in the root unless told otherwise
--help                         this text

experiment=<name>              the runs of an experiment
root=outputs                   where the runs are
table.rows=[method,anchor]     settings that tell points, bars and lines apart
table.columns=[concept]        settings that tell panels and colours apart"""
ERASED, KEPT, COSINE, DRAWN, MOVED = "erasure/hit", "keep/hit", "anchor/cosine_span", "anchor/hit", "fid/keep"
BEFORE = {ERASED: f"{ERASED}@base", KEPT: f"{KEPT}@base"}


def main(args: Sequence[str]) -> str:
    """Draw the figures and return what was written.

    Raises:
        BadInput: matplotlib is not installed, a mistake in the arguments, or no run of the sweep is there.
    """
    flags, overrides = parted("plot", args, ["--to=<folder>", "--help"])
    if "--help" in flags:
        return HELP
    if chosen := [o for o in overrides if o.lstrip("+").startswith("table.cells=")]:
        raise BadInput(f"figures show {ERASED} and {KEPT}, whatever a table shows: leave {chosen[0]} out.")
    try:
        import matplotlib
    except ImportError:
        raise BadInput("plots need matplotlib: pip install 'advanchor[plot]'.") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sweep, cfg = read([*overrides, f"table.cells=[{','.join([ERASED, KEPT, COSINE, DRAWN, MOVED, *BEFORE.values()])}]"])
    if not {ERASED, KEPT} <= sweep.scores:
        raise BadInput(
            f"figures show {ERASED} and {KEPT}, and no run of this sweep has them: add metric=[erasure] and run it again."
        )
    folder = Path(flags.get("--to", Path(cfg.root) / "figures" / str(cfg.study)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"figures cannot be written to {folder} ({error.strerror}): name another folder, --to=<folder>."
        ) from None
    written = []
    for name, paint, size in tqdm(figures(sweep), desc="paint", unit="figure", leave=False, delay=1):
        figure = plt.figure(figsize=size, layout="constrained")
        paint(figure, sweep)
        for ending in ("png", "pdf"):
            figure.savefig(
                folder / f"{name}.{ending}", dpi=150, metadata={"CreationDate": None} if ending == "pdf" else None
            )
            written.append(str(folder / f"{name}.{ending}"))
        plt.close(figure)
    (folder / "correlations.json").write_text(json.dumps(correlations(sweep), indent=1, allow_nan=False) + "\n")
    written.append(str(folder / "correlations.json"))
    return "\n".join(written)


def figures(sweep: Sweep) -> list[tuple[str, Callable[[Any, Sweep], None], tuple[float, float]]]:
    """Name, painter and size (inches) of every figure that has something to show; its legend and labels fit."""
    rows, columns = len(sweep.rows), len(sweep.columns)
    legend = max(5.5, 0.5 + 0.16 * (rows + columns))
    bands, panels = math.ceil(columns / ABREAST), len(varied(sweep))
    lines = rows * len({(column, run.concept) for (_, column, _), cell in sweep.cells.items() for run in cell.runs})
    found: list[tuple[str, Callable[[Any, Sweep], None], tuple[float, float]]] = [
        ("trade-off", trade_off, (7.5, legend))
    ]
    for name, x, y in (("similarity", COSINE, KEPT), ("lacking", DRAWN, ERASED)):
        if any(mean(sweep, row, column, x) is not None for row in sweep.rows for column in sweep.columns):
            found.append((name, partial(scatter, x=x, y=y), (7.5, legend)))
    if panels:
        found.append(("settings", settings, (3 * min(ABREAST, panels) + 1, 2.7 * math.ceil(panels / ABREAST) + 0.4)))
    found.append(("concepts", concepts, (max(5, 4 * min(ABREAST, columns)), (1.2 + 0.3 * rows) * bands)))
    return [*found, ("interference", interference, (11, 2.5 + 0.18 * lines))]


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
    return (
        row[0]
        if usual is None
        else next((name for name, a, b in zip(sweep.settings, row, usual, strict=True) if a != b), "centre")
    )


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


def trade_off(figure: Any, sweep: Sweep) -> None:
    """Means over the columns; thin lines reach from the lowest to the highest column."""
    axes = figure.add_subplot()
    points = []
    for i, row in enumerate(sweep.rows):
        pairs = [
            (e, k)
            for column in sweep.columns
            if (e := mean(sweep, row, column, ERASED)) is not None and (k := mean(sweep, row, column, KEPT)) is not None
        ]
        if len(pairs) < len(sweep.columns):
            continue  # a mean over other concepts would not be comparable
        x, y = (statistics.mean(p[j] for p in pairs) for j in (0, 1))
        groups = [group(sweep, r) for r in sweep.rows]
        first = list(dict.fromkeys(groups)).index(groups[i])
        colour, shape = COLOURS[first % len(COLOURS)], SHAPES[first % len(SHAPES)]
        filled = groups.index(groups[i]) == i  # the others of the same group are hollow
        axes.plot([min(p[0] for p in pairs), max(p[0] for p in pairs)], [y, y], color=colour, linewidth=0.6, alpha=0.5)
        axes.plot([x, x], [min(p[1] for p in pairs), max(p[1] for p in pairs)], color=colour, linewidth=0.6, alpha=0.5)
        axes.plot(
            x,
            y,
            shape,
            color=colour,
            markersize=8,
            markerfacecolor=colour if filled else "white",
            label=label(sweep, row),
            zorder=3,
        )
        side = ((6, 4), (-6, 4), (6, -10), (-6, -10))[i % 4]  # neighbours in the table are often neighbours here
        axes.annotate(
            str(i + 1),
            (x, y),
            xytext=side,
            textcoords="offset points",
            fontsize=7,
            ha="left" if side[0] > 0 else "right",
        )
        points.append((x, y))
    front = sorted(p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points))
    axes.step(
        [p[0] for p in front], [p[1] for p in front], where="post", color="0.6", linewidth=1, linestyle="--", zorder=1
    )
    axes.set_xlabel(TITLES[ERASED])
    axes.set_ylabel(TITLES[KEPT])
    handles, labels = axes.get_legend_handles_labels()
    numbered = [f"{[label(sweep, r) for r in sweep.rows].index(text) + 1}  {text}" for text in labels]
    axes.legend(handles, numbered, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
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


def correlations(sweep: Sweep) -> dict[str, Any]:
    """Spearman's rho of the pairs of numbers that the analysis of anchors is about, over rows within each column, mean over columns (concepts).

    Its 95 % interval is from drawing whole columns again, since the cells of one concept are not independent. An anchor that is the concept itself is left out: it keeps and
    leaves everything by construction. `erasing` counts only anchors that take at least half of the concept away: whatever erases nothing keeps all.
    """
    import advanchor.torchvision_ops  # noqa: F401, I001  (before torchmetrics)
    from torchmetrics.functional import spearman_corrcoef

    found: dict[str, Any] = {}
    for name, x, y in (
        ("similarity_keeping", COSINE, KEPT),
        ("similarity_fid", COSINE, MOVED),
        ("drawn_erased", DRAWN, ERASED),
    ):
        for which, least in (("all", 1.0), ("erasing", 0.5)):
            each = []
            for column in sweep.columns:
                cells = [
                    [v for n in (x, y, COSINE, ERASED) if (v := mean(sweep, row, column, n)) is not None]
                    for row in sweep.rows
                ]
                pairs = [cell[:2] for cell in cells if len(cell) == 4 and cell[2] < 0.9999 and cell[3] <= least]
                x_and_y = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2).T
                if len(pairs) > 2 and all(
                    len(values.unique()) > 1 for values in x_and_y
                ):  # rho of a constant is not defined
                    each.append(float(spearman_corrcoef(*x_and_y)))
            if each:
                low, high = interval(np.array(each))
                found[f"{name}/{which}"] = {
                    "rho": statistics.mean(each),
                    "low": low,
                    "high": high,
                    "concepts": len(each),
                    "each": each,
                }
    return found


def settings(figure: Any, sweep: Sweep) -> None:
    """A panel for each setting: colour is the column; erased filled and solid, kept hollow and dashed; bars are the 95 % intervals; the centre's value is marked."""
    panels = figure.subplots(
        math.ceil(len(varied(sweep)) / ABREAST), min(ABREAST, len(varied(sweep))), sharey=True, squeeze=False
    ).flatten()
    for axes in panels[len(varied(sweep)) :]:
        axes.set_axis_off()
    for axes, (name, values) in zip(panels, varied(sweep).items(), strict=False):
        for j, column in enumerate(sweep.columns):
            colour = COLOURS[j % len(COLOURS)]
            for what, line, inside, said in ((ERASED, "-", colour, "erased"), (KEPT, "--", "white", "kept")):
                there = [
                    (x, cell)
                    for x, (_, row) in enumerate(values)
                    if (cell := sweep.cells.get((row, column, what))) and cell.runs
                ]
                spans = [cell.bounds or (cell.mean, cell.mean) for _, cell in there]
                places = [x + 0.06 * (j - (len(sweep.columns) - 1) / 2) for x, _ in there]
                axes.vlines(
                    places,
                    [low for low, _ in spans],
                    [high for _, high in spans],
                    color=colour,
                    linewidth=0.8,
                    alpha=0.6,
                )
                axes.plot(places, [cell.mean for _, cell in there], line, marker=SHAPES[j % len(SHAPES)], color=colour, markersize=5, markerfacecolor=inside,
                          linewidth=1, label=f"{' + '.join(column)} {said}")  # fmt: skip
        axes.axvline(
            next(x for x, (_, row) in enumerate(values) if row == centre(sweep)), color="0.85", linewidth=6, zorder=0
        )
        axes.set_xticks(range(len(values)), [value for value, _ in values], fontsize=7)
        axes.set_xlabel(name, fontsize=8)
        axes.set_ylabel("found", fontsize=8)
        axes.set_ylim(-0.03, 1.03)
        axes.grid(axis="y", alpha=0.25)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=2 * len(sweep.columns),
        fontsize=7,
        frameon=False,
    )


def concepts(figure: Any, sweep: Sweep) -> None:
    """Erased (lower is better) and kept hit rate side by side."""
    panels = figure.subplots(
        math.ceil(len(sweep.columns) / ABREAST), min(ABREAST, len(sweep.columns)), sharey=True, squeeze=False
    ).flatten()
    places = range(len(sweep.rows))
    for axes in panels[len(sweep.columns) :]:
        axes.set_axis_off()
    for axes, column in zip(panels, sweep.columns, strict=False):
        for offset, name, colour in ((-0.2, ERASED, COLOURS[1]), (0.2, KEPT, COLOURS[0])):
            there = [
                (p + offset, v)
                for p, row in zip(places, sweep.rows, strict=True)
                if (v := mean(sweep, row, column, name)) is not None
            ]
            axes.barh(
                [p for p, _ in there],
                [v for _, v in there],
                0.38,
                color=colour,
                label={ERASED: "erased concept found", KEPT: "kept concepts found"}[name],
            )
            for place, value in there:  # a missing run has no number, a zero has one
                axes.text(value + 0.01, place, rate(value), va="center", fontsize=6)
        axes.set_title(" + ".join(column), fontsize=9)
        axes.tick_params(axis="y", labelsize=7)
        axes.set_xlim(0, 1.15)
        axes.set_xticks([0, 0.5, 1])
        axes.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(list(places), [label(sweep, row) for row in sweep.rows], fontsize=7)
    panels[0].invert_yaxis()
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8, frameon=False
    )


def rate(value: float) -> str:
    """A share in three decimals; only 0 and 1 themselves are written as such."""
    return f"{value if value in (0, 1) else min(max(value, 0.001), 0.999):.3f}"


def interference(figure: Any, sweep: Sweep) -> None:
    """Erased row by measured column; the erased concept itself is framed."""
    from matplotlib.patches import Rectangle

    lines: list[tuple[str, dict[str, float], set[str]]] = []
    for row in sweep.rows:
        for column in sweep.columns:
            both = {
                name: [sweep.cells.get((row, column, n), Cell()).runs for n in (name, before)]
                for name, before in BEFORE.items()
            }
            several = dict.fromkeys(
                run.concept for run in both[ERASED][0]
            )  # a column can stand for more than one concept
            for one in several:
                changes: dict[str, float] = {}
                for name in (KEPT, ERASED):
                    after, base = (Cell([run for run in runs if run.concept == one]).by_label() for runs in both[name])
                    changes |= {shown: after[shown] - base[shown] for shown in after if shown in base}
                if changes:
                    lines.append(
                        (
                            " + ".join([label(sweep, row), *(column if len(several) == 1 else (one,))]),
                            changes,
                            set(after),
                        )
                    )
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
