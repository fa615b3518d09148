"""Does an anchor that is close to its concept keep more? Rank correlations over the runs of experiment=distance.

    python scripts/distance.py docs/results/distance/runs.json

For each concept a point is an anchor at a budget, mean over seeds. Between how close the anchor is and what is kept:
Spearman's rho, and the partial one given how often the concept is still found, since what erases nothing keeps all. The
mean over concepts has Student's interval over them. `erasing` are points that leave at most half of the concept.
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
    runs = json.loads(parser.parse_args().runs.read_text())
    for judge in (1, 2):
        print("\n".join(table(runs, judge)), end="\n\n")


if __name__ == "__main__":
    main()
