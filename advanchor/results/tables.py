"""A table is a sweep read back: the runs that a command would make, laid out as rows, columns and scores.

    advanchor table concept=emoji/fox,emoji/car anchor=adversarial,superclass seed=0,1,2
    advanchor table experiment=methods --format=latex --strict

Rows, columns and scores are `table.rows`, `table.columns` and `table.cells` of the config. What is in neither is
averaged: mean ± standard deviation over seeds of the mean over all else. The interval of a single seed is over the
prompts of that one training and says nothing about how far trainings differ. Bold is a row that is better than every
other of its column by the paired differences over the same seeds, prompts and concepts, underlined one that is better
than all but that; every row needs the same several seeds (intervals.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from advanchor.compose import CONF
from advanchor.core import BadInput
from advanchor.intervals import ahead
from advanchor.report import ARROW
from advanchor.results.differences import NOTE, chosen, differences
from advanchor.results.forms import FORMS, SEVERAL, STYLE, clean, laid, long
from advanchor.results.published import beside, published
from advanchor.results.sweep import Place, Sweep, read
from advanchor.units import SPREAD

HELP = """\
advanchor table key=value ...   the runs of `advanchor -m key=value ...`, read back as a table; nothing is computed

--format=markdown               as it prints unless told otherwise
--format=latex                  a tabular for booktabs
--format=csv                    a line for every score, with its interval, counts, direction and code
--format=json                   the same, with the commands of missing runs
--against=<row>                 each other row's difference from this one (similarity,60), paired, with its interval
--strict                        a missing run or score is an error that names the command which makes it
--help                          this text

experiment=<name>               the runs of an experiment; its table is laid out as it says
root=outputs                    where the runs are
table.rows=[method,anchor]      what tells lines apart: a group stands for its name, any other (anchor.lr) for its value
table.columns=[concept]         settings that tell columns apart; [] for the mean over all of them
table.cells=[erasure/hit,...]   scores, and what a run reports beside them (anchor/cosine_span, cost/seconds)
+paper.source=<where from>      published numbers to stand beside ours, and where they were published
+paper.values=[<number>,...]    such as {row: [ac, empty], column: [fox], score: erasure/hit, value: 0.1}"""


def table(overrides: Sequence[str], form: str = "markdown", strict: bool = False, against: str = "") -> str:
    """The sweep's table; a missing run is an em dash.

    Args:
        form: markdown, latex (booktabs), csv or json; the last two have a line for every score, with its interval.
        strict: a missing run or score is an error.
        against: a row, its values with commas between them; shown are the others' differences from it. Markdown and
            latex only.

    Raises:
        BadInput: as `read`; a score that no run has; with `strict`, a missing run, with the command that makes it, or a
            missing score; `against` names no row, or another form is asked for.
    """
    sweep, cfg = read(overrides)
    spec = cfg.table
    leave_out(sweep, spec)
    known(sweep, spec)
    if strict and sweep.missing:
        raise BadInput(
            f"{len(sweep.missing)} of {sweep.runs} runs are missing; the first is made by `{sweep.missing[0]}`."
        )
    if strict and (holes := [(place, cell) for place, cell in sweep.cells.items() if len(cell.runs) < cell.wanted]):
        ((row, column, name), cell), *_ = holes
        raise BadInput(
            f"{' / '.join([*row, *column])}: {len(cell.runs)} of {cell.wanted} runs have {name}; "
            "add the metric that gives it and run the sweep again."
        )
    if against and form in ("csv", "json"):
        raise BadInput(f"--against has no --format={form}: csv and json have every score, take markdown or latex.")
    paper = published(sweep, cfg)
    marks = every_mark(sweep, spec)
    if form in ("csv", "json"):
        return long(sweep, spec, form, paper, marks)
    page = [body(sweep, spec, form, marks, against), ""]
    sign = "% " if form == "latex" else ""
    page += [sign + note for note in notes(sweep, spec, against)]
    if paper and not against:
        page += ["", f"{sign}Published in {' '.join(str(cfg.paper.source).split())}:", "", beside(paper, form)]
    return "\n".join(page)


def body(
    sweep: Sweep, spec: DictConfig, form: str, marks: Mapping[Place, str], against: str = "", bounded: bool = False
) -> str:
    """The lines of a table, in markdown or latex.

    Args:
        bounded: an interval in every cell that has one, instead of the standard deviation over seeds.
    """
    better = {name: cell.better for (_, _, name), cell in sweep.cells.items() if cell.better}
    heads = list(spec.rows)
    for column in sweep.columns:
        for name in spec.cells:
            arrow = f" {ARROW[better[name]]}" if name in better else ""
            heads.append(" ".join([*column, name]) + arrow)
    lines = []
    if against:
        row = chosen(sweep.rows, against)
        lines = [[clean(form, one) for one in line] for line in differences(sweep, row, spec.cells)]
    for row in sweep.rows if not against else ():
        line = [clean(form, one) for one in row]
        for place in ((row, column, name) for column in sweep.columns for name in spec.cells):
            text = sweep.cells[place].text(bounded) if place in sweep.cells else "—"
            line.append(STYLE[form][marks.get(place, "")](clean(form, text)))
        lines.append(line)
    return laid(form, [clean(form, head) for head in heads], lines, len(spec.rows))


def leave_out(sweep: Sweep, spec: DictConfig) -> None:
    """Of the scores that a table shows unless told otherwise, leave out those that no run of the sweep has: sentences
    need not name anything else than the concept, and a metric need not be asked for.
    """
    usual = OmegaConf.load(Path(CONF) / "config.yaml").table.cells
    if spec.cells == usual and sweep.scores & {*usual}:
        spec.cells = [name for name in usual if name in sweep.scores]
        sweep.cells = {place: cell for place, cell in sweep.cells.items() if place[2] in spec.cells}


def known(sweep: Sweep, spec: DictConfig) -> None:
    """Raise BadInput if a table shows a score that no run has."""
    if sweep.scores and (unknown := [name for name in spec.cells if name not in sweep.scores]):
        raise BadInput(
            f"no run of this sweep has the score '{unknown[0]}': correct table.cells, or add the metric that gives it; "
            f"there are {', '.join(sorted(sweep.scores))}."
        )


def notes(sweep: Sweep, spec: DictConfig, against: str = "", bounded: bool = False) -> list[str]:
    """What stands below a table: how much of it is there, of how many images and by which code, and what its intervals
    are over.

    Args:
        bounded: as `body`.
    """
    counts = []
    for name in spec.cells:
        each: dict[int, dict[str, None]] = {}
        for (_, _, n), cell in sweep.cells.items():
            for concept, facts in cell.facts.items() if n == name else ():
                each.setdefault(facts["n"], {})[concept] = None
        said = [f"{n} ({', '.join(concepts)})" if len(each) > 1 else str(n) for n, concepts in sorted(each.items())]
        counts += [f"{name} {' and '.join(said)}"] if said else []
    code = "; ".join(f"{stage} by {', '.join(sorted(by))}" for stage, by in sweep.code.items())
    found = [f"{sweep.runs - len(sweep.missing)} of {sweep.runs} runs; images: {', '.join(counts)}; code: {code}."]
    if against:
        return [*found, NOTE.format(row=against, over="seeds, prompts and concepts")]
    if any(len(cell.seeds) == 1 and cell.bounds for cell in sweep.cells.values()):
        found.append(SPREAD)
    if len(sweep.rows) > 1 and any(len(cell.seeds) == 1 and cell.better for cell in sweep.cells.values()):
        found.append("Nothing is marked best or second where a row has one seed.")
    if any(len(cell.seeds) > 1 for cell in sweep.cells.values()):
        found.append(SEVERAL if bounded else "± is the standard deviation over seeds.")
    return found


def every_mark(sweep: Sweep, spec: DictConfig) -> dict[Place, str]:
    """Best and second of all columns."""
    marks = dict[Place, str]()
    for column in sweep.columns:
        for name in spec.cells:
            marks |= marked(sweep, column, name)
    return marks


def marked(sweep: Sweep, column: tuple[str, ...], name: str) -> dict[Place, str]:
    """Best and second of a column: a row that is ahead of every other, and one that is ahead of all but that.

    A row of which runs are missing is passed over. All others must have the same several seeds, prompts and concepts:
    of a single training nobody knows how far another would be from it.
    """
    found = []
    for place in ((row, column, name) for row in sweep.rows):
        cell = sweep.cells.get(place)
        if cell and cell.runs and cell.better and len(cell.runs) >= cell.wanted:
            found.append((place, cell))
    alike = {(tuple(cell.whole), tuple(cell.tables), tuple(cell.texts.items())) for _, cell in found}
    if len(found) < 2 or len(alike) > 1 or len(found[0][1].seeds) < 2:
        return {}
    up = found[0][1].better == "higher"
    found.sort(key=lambda one: one[1].mean or 0.0, reverse=up)
    rows = [list(cell.tables.values()) for _, cell in found]
    marks: dict[Place, str] = {}
    for i, mark in enumerate(("best", "second")[: len(found) - 1]):
        if not ahead(rows[i], rows[i + 1 :], 1 if up else -1):
            break
        marks[found[i][0]] = mark
    return marks


def parted(command: str, args: Sequence[str], known: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """A command's arguments -> its flags with their values ("" of one that has none), and its overrides.

    Args:
        known: the flags as `--help` lists them, with a value for each that takes one: "--strict", "--to=<folder>".

    Raises:
        BadInput: a flag that the command does not know, or that is given twice, or a value that is none of those it
            takes.
    """
    flags: dict[str, str] = {}
    for arg in (a for a in args if a.startswith("-")):
        name, _, value = arg.partition("=")
        takes = [k.partition("=")[2] for k in known if k.partition("=")[0] == name]
        if not (arg in known or (value and any(t.startswith("<") for t in takes))):
            raise BadInput(f"{command} does not know {arg}: it takes {', '.join(known)}.")
        if name in flags:
            raise BadInput(f"{command} was given {name} twice: say it once.")
        flags[name] = value
    return flags, [a for a in args if not a.startswith("-")]


def main(args: Sequence[str]) -> str:
    """The command's arguments -> the text to print."""
    flags, overrides = parted(
        "table", args, [*(f"--format={f}" for f in FORMS), "--against=<row>", "--strict", "--help"]
    )
    if "--help" in flags:
        return HELP
    return table(overrides, flags.get("--format", "markdown"), "--strict" in flags, flags.get("--against", ""))
