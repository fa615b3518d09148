"""How far each row of a table is from one of them: paired differences over the same seeds, prompts and concepts."""

from __future__ import annotations

from collections.abc import Sequence

from advanchor.core import BadInput
from advanchor.intervals import LEVEL, Spread, Table, bounds, p_value, spread
from advanchor.results.cells import Cell, three
from advanchor.results.sweep import Sweep

NOTE = (
    "Difference from {row}, over the same {over}, with its 95 % interval; an asterisk where all "
    "comparisons of a column together leave out 0 (Holm, 5 %). Of one seed how far other trainings differ is unknown, "
    "and it has no asterisk."
)


def chosen(rows: Sequence[tuple[str, ...]], against: str) -> tuple[str, ...]:
    """The row that `against` names, its values with commas between them.

    Raises:
        BadInput: there is none.
    """
    row = tuple(part.strip() for part in against.split(","))
    if row not in rows:
        listed = "; ".join(",".join(one) for one in rows)
        raise BadInput(f"--against={against} is no row of this table: take one of {listed}.")
    return row


def differences(sweep: Sweep, row: tuple[str, ...], scores: Sequence[str]) -> list[list[str]]:
    """A line for every other row: its names, and for each column and score the difference, or an em dash where the two
    were not measured on the same.
    """
    others = [one for one in sweep.rows if one != row]
    lines = [list(one) for one in others]
    for column in sweep.columns:
        for name in scores:
            one = sweep.cells.get((row, column, name))
            cells = [sweep.cells.get((other, column, name)) for other in others]
            for line, text in zip(lines, compared(one, cells), strict=True):
                line.append(text)
    return lines


def compared(one: Cell | None, others: Sequence[Cell | None]) -> list[str]:
    """Each other cell's difference from one, in words."""
    apart: list[Spread | None] = []
    for other in others:
        if one is None or other is None or not one.whole or not alike(one, other):
            apart.append(None)
        else:
            pairs = zip(other.tables.values(), one.tables.values(), strict=True)
            apart.append(spread([Table(a.means - b.means, a.images) for a, b in pairs]))
    return told(apart, one is not None and len(one.whole) > 1)


def told(apart: Sequence[Spread | None], several: bool) -> list[str]:
    """Differences in words, None as an em dash; the asterisks are for all of them together.

    Args:
        several: are they over several seeds? Without there is no asterisk.
    """
    texts, ps = ["—"] * len(apart), dict[int, float]()
    for i, one in enumerate(apart):
        if one is None:
            continue
        reach = bounds(one)
        between = f" [{signed(float(reach[0]))}, {signed(float(reach[1]))}]" if reach else ""
        texts[i] = signed(float(one.mean)) + between
        if several and reach:
            ps[i] = float(p_value(one))
    ordered = sorted(ps, key=ps.__getitem__)
    for place, i in enumerate(ordered):
        if ps[i] > LEVEL / (len(ordered) - place):
            break
        texts[i] += " *"
    return texts


def alike(one: Cell, other: Cell) -> bool:
    """Are two cells of the same seeds, concepts and prompts?"""
    of = [(tuple(c.whole), c.texts, {k: t.means.shape for k, t in c.tables.items()}) for c in (one, other)]
    return of[0] == of[1]


def signed(value: float) -> str:
    """Three decimals with a sign."""
    return f"+{three(value)}" if round(value, 3) > 0 else three(value)
