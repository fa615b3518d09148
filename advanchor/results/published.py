"""Published numbers beside ours: the `paper` block of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from advanchor.core import BadInput
from advanchor.results.forms import clean, laid
from advanchor.results.sweep import Place, Sweep, shortest


def published(sweep: Sweep, cfg: DictConfig) -> list[dict[str, Any]]:
    """The experiment's `paper` block beside our numbers, for the places that this table has: what the source says, what
    was measured, and the difference.

    Raises:
        BadInput: the block is incomplete, or names a score that the table does not have.
    """
    found: list[dict[str, Any]] = []
    for entry in cfg.paper.get("values", []):
        if (
            not isinstance(entry, DictConfig)
            or {*entry} != {"row", "column", "score", "value"}
            or isinstance(entry.value, bool)
            or not isinstance(entry.value, int | float)
            or "source" not in cfg.paper
        ):
            raise BadInput(
                "paper needs a source and values such as "
                "{row: [ac, empty], column: [fox], score: erasure/hit, value: 0.1}: correct the experiment."
            )
        if entry.score not in cfg.table.cells:
            raise BadInput(
                f"paper.values names the score {entry.score}, which is not in table.cells: correct the experiment."
            )
        place: Place = (tuple(map(shortest, entry.row)), tuple(map(shortest, entry.column)), str(entry.score))
        if cell := sweep.cells.get(place):
            ours = cell.mean
            found.append(
                {
                    "place": " / ".join([*place[0], *place[1], place[2]]),
                    "paper": float(entry.value),
                    "ours": cell.text(),
                    "difference": None if ours is None else ours - entry.value,
                }
            )
    return found


def beside(paper: Sequence[Mapping[str, Any]], form: str) -> str:
    """Published numbers and ours, as `published` has them."""
    lines = []
    for entry in paper:
        difference = "—" if entry["difference"] is None else f"{entry['difference']:+.3f}"
        line = [entry["place"], f"{entry['paper']:.3f}", entry["ours"], difference]
        lines.append([clean(form, one) for one in line])
    return laid(form, ["", "paper", "ours", "difference"], lines, 1)
