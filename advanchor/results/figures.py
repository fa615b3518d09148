"""`advanchor plot`: a sweep read back as figures, PNG and PDF.

    advanchor plot experiment=methods --to=docs/results/methods

trade-off.*        erased against kept hit rate, and against content where it was measured, a point for each row of the
                   table that has runs in every column; the front that no other row beats
similarity.*       the anchor's cosine to its concept against the kept hit rate, a point for each cell
lacking.*          how often the unedited model draws the concept under the anchor against the erased hit rate
settings.*         erased and kept hit rate against the value of each setting that a sweep varies alone
concepts.*         bars of erased and kept hit rate for each row, a panel for each column
interference.*     hit rate after minus before of every measured concept, as a heat map: what each erasing did to it
attacks.*          of runs that were attacked: found after each attack, beside models that never knew, and the excess
doses.*            found against the dose, of attacks that have doses
reference.*        distances to models that never knew, beside their floors
correlations.json  rank correlations of the pairs of `similarity` and `lacking`, of other distances of an anchor from
                   its concept with keeping, and of cosine and FID of kept images; also given what is erased
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from advanchor.core import BadInput
from advanchor.results import attacked
from advanchor.results.correlations import correlations
from advanchor.results.painters import ABREAST, concepts, interference, scatter, settings, trade_off
from advanchor.results.points import (
    BEFORE,
    CONTENT,
    COSINE,
    DRAWN,
    ERASED,
    KEPT,
    MOVED,
    POOLED,
    PREDICTED,
    mean,
    varied,
)
from advanchor.results.sweep import Sweep, erasures, read
from advanchor.results.tables import parted
from advanchor.store import slug

Figure = tuple[str, Callable[[Any], None], tuple[float, float]]  # name, painter, size in inches

HELP = """\
advanchor plot key=value ...   the runs of `advanchor -m key=value ...`, read back as figures; nothing is computed

--to=<folder>                  where they go, as PNG and PDF; figures/<study> in the root unless told otherwise
--help                         this text

experiment=<name>              the runs of an experiment
root=outputs                   where the runs are
table.rows=[method,anchor]     settings that tell points, bars and lines apart
table.columns=[concept]        settings that tell panels and colours apart"""


def main(args: Sequence[str]) -> str:
    """Draw the figures and return what was written.

    Raises:
        BadInput: a mistake in the arguments, no run of the sweep is there, or as `folder_for` and `painted`.
    """
    flags, overrides = parted("plot", args, ["--to=<folder>", "--help"])
    if "--help" in flags:
        return HELP
    if chosen := [o for o in overrides if o.lstrip("+").startswith("table.cells=")]:
        raise BadInput(f"figures show {ERASED} and {KEPT}, whatever a table shows: leave {chosen[0]} out.")
    cells = [ERASED, KEPT, CONTENT, COSINE, POOLED, PREDICTED, DRAWN, MOVED, *BEFORE.values()]
    sweep, cfg = read([*overrides, f"table.cells=[{','.join(cells)}]"])
    erasures([cfg], "plot")
    asked = ("reference/", *(f"attack/{name}/" for name in cfg.get("attack", {})))  # a run may have seen others
    if others := sorted(name for name in sweep.scores if name.startswith(asked)):
        sweep, cfg = read([*overrides, f"table.cells=[{','.join([*cells, *others])}]"])
    if not {ERASED, KEPT} <= sweep.scores:
        raise BadInput(
            f"figures show {ERASED} and {KEPT}, and no run of this sweep has them: "
            "add metric=[erasure] and run it again."
        )
    study = cfg.study if re.fullmatch(r"\w[\w-]{0,60}", cfg.study) else slug(cfg.study)
    folder = folder_for(flags.get("--to", str(Path(cfg.root) / "figures" / study)))
    written = painted(figures(sweep), folder)
    (folder / "correlations.json").write_text(json.dumps(correlations(sweep), indent=1, allow_nan=False) + "\n")
    written.append(str(folder / "correlations.json"))
    return "\n".join(written)


def folder_for(place: str) -> Path:
    """The folder that figures go to.

    Raises:
        BadInput: it cannot be made.
    """
    try:
        Path(place).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"figures cannot be written to {place} ({error.strerror}): name another folder, --to=<folder>."
        ) from None
    return Path(place)


def painted(figures: Sequence[Figure], folder: Path) -> list[str]:
    """Paint figures into a folder; returns what was written.

    Raises:
        BadInput: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise BadInput("plots need matplotlib: pip install 'advanchor[plot]'.") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    written = []
    for name, paint, size in tqdm(figures, desc="paint", unit="figure", leave=False, delay=1):
        figure = plt.figure(figsize=size, layout="constrained")
        paint(figure)
        for ending, about in (("png", None), ("pdf", {"CreationDate": None})):
            figure.savefig(folder / f"{name}.{ending}", dpi=150, metadata=about)
            written.append(str(folder / f"{name}.{ending}"))
        plt.close(figure)
    return written


def figures(sweep: Sweep) -> list[Figure]:
    """Every figure that has something to show, of a size in which its legend and labels fit."""
    rows, columns = len(sweep.rows), len(sweep.columns)
    legend = max(5.5, 0.5 + 0.16 * (rows + columns))
    bands, panels = math.ceil(columns / ABREAST), len(varied(sweep))
    lines = rows * len({(column, run.concept) for (_, column, _), cell in sweep.cells.items() for run in cell.runs})
    width = 12 if CONTENT in sweep.scores else 7.5
    found: list[Figure] = []
    if any(
        all(mean(sweep, row, c, n) is not None for c in sweep.columns for n in (ERASED, KEPT)) for row in sweep.rows
    ):
        found.append(("trade-off", partial(trade_off, sweep=sweep), (width, legend)))
    for name, x, y in (("similarity", COSINE, KEPT), ("lacking", DRAWN, ERASED)):
        if any(mean(sweep, row, column, x) is not None for row in sweep.rows for column in sweep.columns):
            found.append((name, partial(scatter, sweep=sweep, x=x, y=y), (7.5, legend)))
    if panels:
        found.append(
            (
                "settings",
                partial(settings, sweep=sweep),
                (3 * min(ABREAST, panels) + 1, 2.7 * math.ceil(panels / ABREAST) + 0.4),
            )
        )
    found.append(
        ("concepts", partial(concepts, sweep=sweep), (max(5, 4 * min(ABREAST, columns)), (1.2 + 0.3 * rows) * bands))
    )
    found.append(("interference", partial(interference, sweep=sweep), (11, 2.5 + 0.18 * lines)))
    return [*found, *attacked.figures(sweep)]
