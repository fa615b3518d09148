"""`advanchor front`: rows compared where they have erased equally much, not after equally many steps.

    advanchor front experiment=front
    advanchor front concept=emoji/rose,emoji/castle anchor=similarity,superclass method.steps=15,30,60,120 seed=0,1,2

A row's budgets are the values of the one setting of method or anchor that differs within it (`method.steps` more often
than not). Each training, of one seed and concept, is a curve over them (curves.py); a number in the table is the mean
over trainings of what is read off each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from advanchor.compose import compose_all, expand, validate
from advanchor.core import BadInput
from advanchor.report import ARROW
from advanchor.results.cells import three
from advanchor.results.curves import Curve, Front, Names, Read, Unit
from advanchor.results.differences import NOTE as AGAINST
from advanchor.results.differences import chosen, told
from advanchor.results.figures import folder_for, painted
from advanchor.results.forms import clean, laid
from advanchor.results.painters import fronts_of
from advanchor.results.sweep import Sweep, check, erasures, label, read
from advanchor.results.tables import parted
from advanchor.store import slug

STEPS = "method.steps"  # of which 0 are the unedited model
HELP = """\
advanchor front key=value ...   the runs of `advanchor -m key=value ...` at equal erasure; nothing is computed

--at=0.2,0.1,0.05               shares of the erased concept's images in which it is still found, to compare at
--against=<row>                 each other row's difference from this one, paired, with its interval
--to=<folder>                   also figures (front-<column>.png and .pdf) and every number (front.json)
--help                          this text

experiment=<name>               the runs of an experiment
root=outputs                    where the runs are
table.rows=[method,anchor]      what tells curves apart; the one other setting that differs in a row is its budget
table.columns=[concept]         what is compared by itself; [concept.kind] averages over the concepts of a kind
table.cells=[erasure/hit,...]   erasure/hit is what is compared at, the others what is read there; those of the second
                                judge (erasure/hit2, ...) make a table of their own"""
NOTES = (
    "Read on straight lines between budgets, for each training (seed and concept) at the first that leaves so little; "
    "[low, high] is 95 % over seeds and concepts. (k of n): so many trainings can be read there, and the mean is over "
    "those, the easy ones: it is not comparable; `begin beyond` are those whose first budget leaves less already. "
    "Volume: the share of all possible outcomes that some budget is at least as good as."
)


def budgets_of(
    configs: Sequence[DictConfig], rows: Sequence[str], columns: Sequence[str]
) -> dict[tuple[Names, Names], str]:
    """Row and column -> the setting of method or anchor that differs between its runs; "" where none does.

    Raises:
        BadInput: several do, or one that is no number.
    """
    each: dict[tuple[Names, Names], list[dict[str, Any]]] = {}
    for cfg in configs:
        flat = flattened({part: OmegaConf.to_container(cfg[part], resolve=True) for part in ("method", "anchor")})
        row, column = (tuple(label(cfg, name) for name in names) for names in (rows, columns))
        each.setdefault((row, column), []).append(flat)
    found = {}
    for (row, column), several in each.items():
        names = [n for n in dict.fromkeys(k for o in several for k in o) if len({repr(o.get(n)) for o in several}) > 1]
        if len(names) > 1:
            more = f"{' and '.join(names)} differ within {' / '.join([*row, *column])}"
            raise BadInput(f"{more}, and one of them is its budget: name the others in table.rows.")
        values = [one[name] for one in several for name in names]
        if wrong := [v for v in values if isinstance(v, bool) or not isinstance(v, int | float)]:
            raise BadInput(f"{names[0]}={wrong[0]} is no budget, which is a number: name it in table.rows.")
        found[row, column] = names[0] if names else ""
    return found


def flattened(node: Any, above: str = "") -> dict[str, Any]:
    """Dotted name -> value."""
    if not isinstance(node, Mapping):
        return {above: node}
    return {k: v for name, one in node.items() for k, v in flattened(one, f"{above}.{name}".strip(".")).items()}


def fronts(overrides: Sequence[str]) -> tuple[list[Front], Sweep]:
    """The curves of a sweep by each judge that `table.cells` names, and the sweep.

    Raises:
        BadInput: as `sweep.read` and `budgets_of`; no score to compare at, or none to read there.
    """
    validate(overrides)
    configs = compose_all(expand(overrides))
    erasures(configs, "front")
    spec = configs[0].table
    check(spec, configs)
    rows = [name for name in spec.rows if name != STEPS]
    judges = []
    for number in (1, 2):
        names = [name for name in spec.cells if (2 if re.search(r"/(hit|erase|keep)2", name) else 1) == number]
        found = next((name for name in names if re.fullmatch(r"erasure/hit2?", name)), "")
        if found and len(names) > 1:
            judges.append(Front(f"judge {number}", found, [name for name in names if name != found]))
    if not judges or not rows:
        needs = "erasure/hit in table.cells, what to read there beside it, and in table.rows what tells curves apart"
        raise BadInput(f"front compares at equal erasure: name {needs}.")
    budgets = budgets_of(configs, rows, spec.columns)
    settings = [name for name in dict.fromkeys(budgets.values()) if name]
    cells = [name for one in judges for name in (one.found, *one.scores)]
    wide = [o for o in overrides if not re.match(r"\+*table\.(rows|cells)=", o)]
    every = [*cells, *(f"{name}@base" for name in cells)]
    sweep, _ = read([*wide, f"table.rows=[{','.join([*rows, *settings])}]", f"table.cells=[{','.join(every)}]"])
    if missing := [name for name in cells if name not in sweep.scores]:
        raise BadInput(f"no run of this sweep has the score '{missing[0]}': correct table.cells, or add its metric.")
    for one in judges:
        collect(one, sweep, len(rows), budgets, settings)
    return judges, sweep


def collect(
    front: Front, sweep: Sweep, names: int, budgets: Mapping[tuple[Names, Names], str], settings: Sequence[str]
) -> None:
    """Put a sweep's runs on their curves.

    Args:
        names: how many of a sweep's row names are the row's own; the budgets follow.
    """
    points: dict[tuple[Names, Names], dict[Unit, dict[float, dict[str, float]]]] = {}
    for (wide, column, name), cell in sweep.cells.items():
        row, score = wide[:names], name.removesuffix("@base")
        unedited = score != name
        setting = budgets.get((row, column), "")
        if score not in (front.found, *front.scores) or (unedited and setting != STEPS):
            continue
        budget = 0.0 if unedited or not setting else float(wide[names + settings.index(setting)])
        for run in cell.runs:
            trainings = points.setdefault((row, column), {})
            trainings.setdefault((run.seed, run.concept), {}).setdefault(budget, {})[score] = run.value
            front.better[score] = cell.better
            front.shares |= {score} if run.share else set()
    for place, trainings in points.items():
        for unit, found in trainings.items():
            kept = [(budget, at) for budget, at in sorted(found.items()) if front.found in at]
            scores = {name: [at.get(name) for _, at in kept] for name in front.scores}
            curve = Curve([budget for budget, _ in kept], [at[front.found] for _, at in kept], scores, front.better)
            front.curves.setdefault(place, {})[unit] = curve


def page(fronts: Sequence[Front], sweep: Sweep, levels: Sequence[float], against: str = "") -> str:
    """A table for each judge and column, and what is to be known of them."""
    parts = []
    for front in fronts:
        for column in sweep.columns:
            rows = [row for row, at in front.curves if at == column]
            reads = {row: front.reads(row, column, levels) for row in rows}
            names = list(next(iter(reads.values()), {}))
            heads = [" ".join([*column, front.judge]), *(headed(name, front.better) for name in names)]
            if against:
                row = chosen(rows, against)
                others = [one for one in rows if one != row]
                columns = [compared(reads[row][name], [reads[one][name] for one in others]) for name in names]
                lines = [[" + ".join(one), *(col[i] for col in columns)] for i, one in enumerate(others)]
            else:
                lines = [[" + ".join(row), *(text(reads[row][name]) for name in names)] for row in rows]
            clear = [[clean("markdown", one) for one in line] for line in [heads, *lines]]
            parts += [laid("markdown", clear[0], clear[1:], 1), ""]
    notes = [f"{sweep.runs - len(sweep.missing)} of {sweep.runs} runs.", NOTES]
    return "\n".join([*parts, *notes, *([AGAINST.format(row=against, over="seeds and concepts")] if against else [])])


def headed(name: str, better: Mapping[str, str]) -> str:
    score, _, at = name.partition(" at ")
    arrow = ARROW.get(better.get(score, "higher" if score == "volume" else ""), "")
    return " ".join(part for part in (score, arrow, at and f"at {at}") if part)


def text(one: Read) -> str:
    """Mean and interval; where not all trainings come so far, the mean of those that do and how many they are."""
    if one.spread is None:
        mean = f"{three(float(one.there.mean()))} " if one.there.size else ""
        beyond = f", {one.beyond} begin beyond" if one.beyond else ""
        return f"{mean}({one.there.size} of {one.values.size}{beyond})"
    reach = one.bounds
    return three(float(one.spread.mean)) + (f" [{three(reach[0])}, {three(reach[1])}]" if reach else "")


def compared(one: Read, others: Sequence[Read]) -> list[str]:
    """Each other's difference from one, with the number of concepts where these are not all."""
    pairs = [other.minus(one) for other in others]
    texts = told([pair and pair[0] for pair in pairs], len(one.seeds) > 1)
    some = [f" ({p[1]} of {len(one.concepts)} concepts)" if p and p[1] < len(one.concepts) else "" for p in pairs]
    return [text + said for text, said in zip(texts, some, strict=True)]


def numbers(fronts: Sequence[Front], sweep: Sweep, levels: Sequence[float]) -> dict[str, Any]:
    """All of it: every curve of every seed and concept, what is read off each, and the means with their intervals."""
    rows = []
    for front in fronts:
        for (row, column), trainings in front.curves.items():
            curves = [
                {"seed": seed, "concept": concept, "budget": one.budgets, front.found: one.found, **one.scores}
                for (seed, concept), one in trainings.items()
            ]
            means: dict[str, Any] = {}
            for name, one in front.reads(row, column, levels).items():
                means[name] = {
                    "mean": float(one.spread.mean) if one.spread else None,
                    "interval": one.bounds,
                    "seeds": one.seeds,
                    "concepts": one.concepts,
                    "values": [[None if v != v else float(v) for v in line] for line in one.values],
                }
            rows.append({"judge": front.judge, "row": row, "column": column, "read": means, "curves": curves})
    code = {stage: sorted(by) for stage, by in sweep.code.items()}
    return {"runs": sweep.runs, "missing": sweep.missing, "code": code, "levels": list(levels), "rows": rows}


def main(args: Sequence[str]) -> str:
    """The command's arguments -> the text to print.

    Raises:
        BadInput: a mistake in the arguments; as `fronts`; the folder cannot be written.
    """
    flags, overrides = parted("front", args, ["--at=<levels>", "--against=<row>", "--to=<folder>", "--help"])
    if "--help" in flags:
        return HELP
    try:
        levels = [float(one) for one in flags.get("--at", "0.2,0.1,0.05").split(",")]
    except ValueError:
        levels = []
    if not levels or not all(0 <= one <= 1 for one in levels):
        raise BadInput(f"--at={flags['--at']} will not do: write shares between 0 and 1, such as --at=0.2,0.1,0.05.")
    found, sweep = fronts(overrides)
    said = page(found, sweep, levels, flags.get("--against", ""))
    if "--to" not in flags:
        return said
    folder = folder_for(flags["--to"])
    (folder / "front.json").write_text(json.dumps(numbers(found, sweep, levels), indent=1, allow_nan=False) + "\n")
    figures = []
    for column in sweep.columns:
        words = "-".join(["front", *column])
        name = words if re.fullmatch(r"[\w-]{1,60}", words) else f"front-{slug(words)}"
        figures.append((name, partial(fronts_of, fronts=found, column=column), (11.0, 4.2 * len(found))))
    return "\n".join([said, "", *painted(figures, folder), str(folder / "front.json")])
