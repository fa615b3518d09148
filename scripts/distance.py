"""Does an anchor that is close to its concept keep more? Rank correlations over the runs of experiment=distance.

    python scripts/distance.py docs/results/distance/runs.json --to docs/results/distance/distance.png

For each concept a point is an anchor at a budget, mean over seeds. Between how close the anchor is and what is kept:
Spearman's rho, and the partial one given how often the concept is still found, since what erases nothing keeps all. The
mean over concepts has Student's interval over them. `erasing` are points that leave at most half of the concept. In the
end the other finding: does an anchor erase the more, the less it has of the concept in what the model predicts?
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advanchor.intervals import Table, bounds, spread

# The larger, the closer.
CLOSE = {
    "tokens": ("anchor/cosine_span", 1),
    "sentence": ("anchor/cosine_pooled", 1),
    "predicted": ("anchor/predicted", -1),
}
KEPT = ("keep/hit", "keep/hit_near", "content/hit")
FOUND = "erasure/hit"
FAMILIES = ("interpolate", "scale", "words")


def ranks(x: Sequence[float]) -> np.ndarray:
    """Ranks, ties at their mean."""
    values = np.asarray(x)
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def partial(x: Sequence[float], y: Sequence[float], given: Sequence[float] | None) -> float | None:
    """Spearman's rho of x and y, or given a third; None where one of them is always the same, or of too few points."""
    rows = [ranks(one) for one in (x, y, given) if one is not None]
    if len(rows[0]) < len(rows) + 2 or any(row.std() == 0 for row in rows):
        return None
    c = np.corrcoef(np.stack(rows))
    if given is None:
        return float(c[0, 1])
    left = (1 - c[0, 2] ** 2) * (1 - c[1, 2] ** 2)
    return float((c[0, 1] - c[0, 2] * c[1, 2]) / left**0.5) if left > 1e-9 else None


def points(runs: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Concept -> its anchors at each budget, numbers as means over seeds."""
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        groups[run["concept"], run["family"], str(run["value"]), run["steps"]].append(run)
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (concept, family, *_), several in groups.items():
        numbers = {name for name, value in several[0].items() if "/" in name and value is not None}
        means = {name: float(np.mean([one[name] for one in several])) for name in numbers}
        found[concept].append({"family": family, **means})
    return found


def table(runs: Sequence[dict[str, Any]], judge: int) -> list[str]:
    second = {
        FOUND: "erasure/hit2",
        "keep/hit": "keep/hit2",
        "keep/hit_near": "keep/hit2_near",
        "content/hit": "content/hit2",
    }
    lines = [
        f"| judge {judge} | which | {' | '.join(f'{name} and {close}' for name in KEPT for close in CLOSE)} |",
        "| --- " * (2 + len(KEPT) * len(CLOSE)) + "|",
    ]
    each = points(runs)
    for which, most, families in (
        ("all", 1.0, FAMILIES),
        ("erasing", 0.5, FAMILIES),
        *((one, 1.0, (one,)) for one in FAMILIES),
    ):
        for given in (False, True):
            cells = []
            for name in KEPT:
                for column, sign in CLOSE.values():
                    found, kept = (second[one] if judge == 2 else one for one in (FOUND, name))
                    rhos = []
                    for at in each.values():
                        used = [p for p in at if p["family"] in families and p[found] <= most]
                        x, y, z = ([p[one] for p in used] for one in (column, kept, found))
                        if (rho := partial([sign * v for v in x], y, z if given else None)) is not None:
                            rhos.append(rho)
                    cells.append(told(rhos))
            lines.append(f"| {which} | {'given found' if given else ''} | {' | '.join(cells)} |")
    return lines


def largest(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs with each anchor's largest budget."""
    steps: dict[Any, int] = defaultdict(int)
    for run in runs:
        key = run["concept"], run["family"], str(run["value"])
        steps[key] = max(steps[key], run["steps"])
    return [run for run in runs if run["steps"] == steps[run["concept"], run["family"], str(run["value"])]]


def lacking(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Found after each anchor's largest budget, against what it has of the concept."""
    columns = {"along": "anchor/along", "tokens": "anchor/cosine_span", "sentence": "anchor/cosine_pooled"}
    lines = [f"| found and | {' | '.join(columns)} |", "| --- " * (1 + len(columns)) + "|"]
    last = largest(runs)
    for found in (FOUND, "erasure/hit2"):
        cells = []
        for column in columns.values():
            pairs = [([p[column] for p in at], [p[found] for p in at]) for at in points(last).values()]
            cells.append(told([rho for x, y in pairs if (rho := partial(x, y, None)) is not None]))
        lines.append(f"| {found} | {' | '.join(cells)} |")
    return lines


def picture(runs: Sequence[dict[str, Any]], to: Path) -> None:
    """Left, found after the largest budget against what the anchor has of the concept; then what is kept and what is
    left of the picture against how far it is in what the model predicts, where at most half is found, darker for less.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, *others = figure.subplots(1, 3)
    marks = dict(zip(FAMILIES, "os^", strict=True))
    names = {"interpolate": "on the way to a look-alike", "scale": "size of the perturbation", "words": "words"}
    latest = points(largest(runs))
    for family, mark in marks.items():
        at = [p for several in latest.values() for p in several if p["family"] == family]
        left.scatter(
            [p["anchor/along"] for p in at], [p[FOUND] for p in at], marker=mark, alpha=0.7, label=names[family]
        )
    left.set(xlabel="coordinate along the concept: 1 it, 0 its superclass", ylabel="found after the largest budget")
    left.legend(fontsize=8)
    for axes, score in zip(others, ("keep/hit", "content/hit"), strict=True):
        for family, mark in marks.items():
            every = [p for several in points(runs).values() for p in several]
            at = [p for p in every if p["family"] == family and p[FOUND] <= 0.5]
            x, y, c = ([p[name] for p in at] for name in ("anchor/predicted", score, FOUND))
            shown = axes.scatter(x, y, c=c, marker=mark, cmap="viridis", vmin=0, vmax=0.5, alpha=0.8)
        axes.set_xscale("log")
        axes.set_xticks([1, 2, 5, 10], labels=["1", "2", "5", "10"])
        axes.set_xticks([], minor=True)
        axes.set(xlabel="distance in what the model predicts", ylabel=f"{score} where at most half is found")
    figure.colorbar(shown, label="found")
    figure.savefig(to, dpi=110)


def told(rhos: Sequence[float]) -> str:
    """Mean over concepts and its interval."""
    if len(rhos) < 2:
        return "—"
    reach = bounds(spread([Table(np.array(rhos)[:, None], np.ones(1))]))
    assert reach is not None
    low, high = (max(-1.0, min(1.0, float(end))) for end in reach)
    return f"{np.mean(rhos):.2f} [{low:.2f}, {high:.2f}]" + (f" ({len(rhos)})" if len(rhos) < 6 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--to", type=Path, help="a picture of it ('advanchor[plot]')")
    args = parser.parse_args()
    runs = json.loads(args.runs.read_text())
    if args.to:
        picture(runs, args.to)
    for judge in (1, 2):
        print("\n".join(table(runs, judge)), end="\n\n")
    print("\n".join(lacking(runs)))


if __name__ == "__main__":
    main()
