"""A table is a sweep read back: the runs that a command would make, laid out as rows, columns and scores.

    advanchor table concept=emoji/fox,emoji/car anchor=adversarial,superclass seed=0,1,2
    advanchor table experiment=methods --format=latex --strict

Rows, columns and scores are `table.rows`, `table.columns` and `table.cells` of the config. What is in neither is averaged: mean ± standard deviation
over seeds of the mean over all else. The interval of a single seed is over the prompts of that one training and says
nothing about how far trainings differ. Bold is the best of a column and underlined the second, if both it and the next
have several seeds and the paired bootstrap over prompts tells them apart (intervals.py).
"""

from __future__ import annotations

import csv
import io
import json
import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf
from tqdm import tqdm

from advanchor.compose import compose_all, expand, validate
from advanchor.concept import Prompt
from advanchor.core import BadInput, Score, share
from advanchor.results.intervals import Means, above, by_prompt, interval
from advanchor.results.report import ARROW
from advanchor.run import build, memo, sample_of
from advanchor.store import plain, read_json, run_id

FEWEST = 8  # prompts; fewer of them say too little about others, and single images are drawn again instead
FORMS = ("markdown", "latex", "csv", "json")
HELP = """advanchor table key=value ...   the runs that `advanchor -m key=value ...` makes, read back as a table; nothing is computed

--format=markdown               as it prints unless told otherwise
--format=latex                  a tabular for booktabs
--format=csv                    a line for every score, with its interval, counts, direction and code
--format=json                   the same, with the commands of missing runs
--strict                        a missing run or score is an error that names the command which makes it
--help                          this text

experiment=<name>               the runs of an experiment; its table is laid out as it says
root=outputs                    where the runs are
table.rows=[method,anchor]      settings that tell lines apart: a group stands for its name, any other (anchor.lr) for its value
table.columns=[concept]         settings that tell columns apart; [] for the mean over all of them
table.cells=[erasure/hit,...]   scores, and what a run reports beside them (anchor/cosine_span, cost/seconds)
+paper.source, +paper.values    published numbers to stand beside ours, such as {row: [ac, empty], column: [fox], score: erasure/hit, value: 0.1}"""
Place = tuple[tuple[str, ...], tuple[str, ...], str]  # row, column, score


@dataclass(frozen=True)
class Value:
    """One run's score: the single images' values behind it, if it is a mean of them, with their prompts and what each should show, and how wide its own interval is."""

    value: float
    seed: int = 0
    concept: str = ""
    images: Sequence[float] = ()
    prompts: Sequence[str] = ()
    labels: Sequence[str] = ()
    width: float = 0.0


@dataclass
class Cell:
    """One score of all runs that differ in neither row nor column, and what must agree between them."""

    runs: list[Value] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # of each concept
    better: str = ""
    wanted: int = 0  # runs that the sweep has for it
    code: set[str] = field(default_factory=set)

    @property
    def mean(self) -> float | None:
        """Over all runs."""
        return statistics.mean(run.value for run in self.runs) if self.runs else None

    @property
    def seeds(self) -> list[float]:
        """The mean of each seed, over concepts and whatever else is in neither row nor column; a seed of which runs are missing is not comparable and left out."""
        each: dict[int, list[Value]] = {}
        for run in self.runs:
            each.setdefault(run.seed, []).append(run)
        have = {seed: Counter(run.concept for run in runs) for seed, runs in each.items()}
        whole = reduce(or_, have.values(), Counter[str]())
        return [statistics.mean(run.value for run in runs) for seed, runs in each.items() if have[seed] == whole]

    @property
    def units(self) -> dict[str, dict[str, float]]:
        """Of each concept what is drawn again for an interval, each with its mean over seeds: its prompts, or its single images where these are too few.

        Empty if the score is no mean of single images.
        """
        if not all(run.images for run in self.runs):
            return {}
        found: dict[str, dict[str, float]] = {}
        for concept in dict.fromkeys(run.concept for run in self.runs):
            runs = [run for run in self.runs if run.concept == concept]
            few = len(set(runs[0].prompts)) < FEWEST
            names = [f"{text} #{i}" if few else text for i, text in enumerate(runs[0].prompts)]
            found[concept] = dict(
                zip(dict.fromkeys(names), by_prompt([run.images for run in runs], names).tolist(), strict=True)
            )
        return found

    def by_label(self) -> dict[str, float]:
        """The mean over the images that should show each concept."""
        each: dict[str, list[float]] = {}
        for run in self.runs:
            for label, value in zip(run.labels, run.images, strict=True):
                each.setdefault(label, []).append(value)
        return {label: statistics.mean(values) for label, values in each.items()}

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval. Where all images agree the bootstrap has no width, and Wilson's interval of a share of so many images stands for it."""
        units = self.units
        if not units:
            return None
        images = [value for run in self.runs for value in run.images]
        if set(images) in ({0.0}, {1.0}) and self.runs[0].width > 0:  # a share's own interval has width even then
            one = share(
                [bool(v) for v in images[: sum(len(run.images) for run in self.runs if run.seed == self.runs[0].seed)]],
                "higher",
            )
            return one["low"], one["high"]
        return interval(*arrays(units))

    def text(self) -> str:
        """Mean and standard deviation of several seeds, or the one value and its interval; of a sweep that is not finished also how many of its runs that is."""
        if self.mean is None:
            return "—"
        seeds, bounds = self.seeds, self.bounds
        some = f" ({len(self.runs)} of {self.wanted} runs)" if len(self.runs) < self.wanted else ""
        if len(seeds) > 1:
            return f"{three(statistics.mean(seeds))} ± {three(statistics.stdev(seeds))}{some}"
        if not seeds:
            return f"{three(self.mean)}{some}"
        return three(seeds[0]) + (f" [{three(bounds[0])}, {three(bounds[1])}]" if bounds else "") + some


def three(value: float) -> str:
    """Three decimals, and no minus before a zero."""
    return f"{round(value, 3) + 0.0:.3f}"


def arrays(units: Mapping[str, Mapping[str, float]]) -> list[Means]:
    return [np.array(list(means.values())) for means in units.values()]


@dataclass
class Sweep:
    """What was read: a cell for every place, in the order of the sweep, the commands of missing runs, and the code that
    made each stage of the others.
    """

    rows: list[tuple[str, ...]]
    columns: list[tuple[str, ...]]
    cells: dict[Place, Cell]
    runs: int
    missing: list[str]
    code: dict[str, set[str]]  # stage -> digests of the sources that made it
    settings: list[str] = field(default_factory=list)  # that tell rows apart
    scores: set[str] = field(default_factory=set)  # that any run has


def read(overrides: Sequence[str]) -> tuple[Sweep, DictConfig]:
    """The sweep's results, and the config of its first run.

    Raises:
        BadInput: a mistake in the overrides; no run is there; a score that is no number; scores that must not be mixed:
            it says which and why.
    """
    validate(overrides)
    choices = expand(overrides)
    configs = compose_all(choices)
    first = configs[0]
    spec = first.table
    check(spec, configs)
    sweep = Sweep([], [], {}, len(choices), [], {}, list(spec.rows))
    made: dict[tuple[str, str], set[str]] = {}  # stage and of what -> the code that made it
    runs = list(zip(choices, configs, strict=True))
    for choice, cfg in tqdm(runs, desc="read", unit="run", leave=False, delay=1):
        row, column = (tuple(label(cfg, k) for k in spec[axis]) for axis in ("rows", "columns"))
        for seen, one in ((sweep.rows, row), (sweep.columns, column)):
            if one not in seen:
                seen.append(one)
        for name in spec.cells:
            sweep.cells.setdefault((row, column, name), Cell()).wanted += 1
        file = Path(cfg.root) / run_id(cfg) / "result.json"
        if not file.exists():
            alone = (
                ["sweeps=[]"] if any(c.startswith("experiment=") for c in choice) else []
            )  # its own settings are all in the choice
            sweep.missing.append(shlex.join(["advanchor", *choice, *alone]))
            continue
        result = read_json(file)
        prompts = build(cfg.concept, "concept").prompts(sample_of(cfg))
        measured = scores(file.parent, result, cfg)
        sweep.scores |= {*measured, *result["diagnostics"]}
        for name in spec.cells:
            cell = sweep.cells[row, column, name]
            metric, score = measured.get(name, (None, diagnostic(result, name)))
            if score is None:
                continue
            values = score.get("values", [])
            code = provenance(result, name, score, metric is not None)
            for stage, digest in code.items():
                sweep.code.setdefault(stage, set()).add(digest)
                made.setdefault((stage, whose(cfg, stage, name)), set()).add(digest)
            facts = {
                "n": score["n"], "extractor": score.get("extractor"), "metric": metric, "judge": plain(cfg.judge) if metric else None, "images": plain(cfg.sample),
            }  # fmt: skip
            for (
                other,
                theirs,
            ) in cell.facts.items():  # concepts may be measured on different numbers of images, the runs of one may not
                if differing := [k for k in facts if facts[k] != theirs[k] and (k != "n" or other == cfg.concept.name)]:
                    said = " and ".join(str({k: f[k] for k in differing}) for f in (theirs, facts))
                    which = " / ".join([*row, *column])
                    raise BadInput(
                        f"{which}: the runs' {name} differ in {said}, and such numbers are not averaged: name one of them, or run all of them again with another root."
                    )
            cell.facts[cfg.concept.name], cell.better = facts, score.get("better", "")
            cell.code |= {f"{stage} {digest}" for stage, digest in code.items()}
            shown = prompts_of(prompts, name)
            texts, labels = score.get("texts", [p.text for p in shown]), [p.label for p in shown]
            if len(values) != len(texts):
                values, texts, labels = [], [], []
            width = score.get("high", 0.0) - score.get("low", 0.0)
            cell.runs.append(Value(score["value"], cfg.seed, cfg.concept.name, values, texts, labels, width))
    if len(sweep.missing) == sweep.runs:
        asked_for = [o for o in overrides if not o.lstrip("+").startswith(("table.", "paper."))]
        command = shlex.join(["advanchor", *(["-m"] if sweep.runs > 1 else []), *asked_for])
        raise BadInput(
            f"{f'none of the {sweep.runs} runs' if sweep.runs > 1 else 'the run'} of this sweep is in {first.root}: `{command}` makes {'them' if sweep.runs > 1 else 'it'}."
        )
    for (stage, of), by in made.items():
        if len(by) > 1:
            raise BadInput(
                f"the runs of this table differ in code: {of} was {stage} by {' and by '.join(sorted(by))}: make a table of each, or run all of them again with another root."
            )
    every = [(name, facts) for (_, _, name), cell in sweep.cells.items() for facts in cell.facts.values()]
    for fact in ("images", "judge", "extractor", "metric"):
        kinds: dict[str, set[str]] = {}
        for name, facts in every:
            if facts[fact] is not None:  # extractor and metric belong to one score, the others to the table
                kinds.setdefault(name if fact in ("extractor", "metric") else "", set()).add(
                    json.dumps(facts[fact], sort_keys=True)
                )
        if mixed := next(
            (
                f"{name} " * bool(name) + f"{fact}: " + " ".join(sorted(values))
                for name, values in kinds.items()
                if len(values) > 1
            ),
            "",
        ):
            raise BadInput(
                f"the runs of this table differ in {mixed}: make a table of each, or run all of them again with one and another root."
            )
    return sweep, first


def check(spec: DictConfig, configs: Sequence[DictConfig]) -> None:
    """Can a table be laid out as this says?

    Raises:
        BadInput: rows, columns or cells are no lists of words, name something twice, or nothing (`columns: []` alone
            has a meaning, the mean over all), or a setting that no run has, or that has no value of its own.
    """
    for name in ("rows", "columns", "cells"):
        such = "[erasure/hit,keep/hit]" if name == "cells" else "[method,anchor]"
        if not isinstance(spec.get(name), ListConfig) or not all(
            isinstance(one, str) and one.strip() for one in spec[name]
        ):
            raise BadInput(f"table.{name}={spec.get(name)} will not do: it must be a list of words, such as {such}.")
        if not spec[name] and name != "columns":
            raise BadInput(f"table.{name}=[] leaves nothing to show: name at least one, such as {such}.")
        if twice := [one for one, times in Counter(spec[name]).items() if times > 1]:
            raise BadInput(f"table.{name} names {twice[0]} twice: once is enough.")
    for name in [*spec.rows, *spec.columns]:
        if not any(has(cfg, name) for cfg in configs):
            raise BadInput(f"there is no setting '{name}' to lay out: correct table.rows or table.columns.")
        if any(
            isinstance(found := OmegaConf.select(cfg, name, throw_on_missing=False), DictConfig) and "name" not in found
            for cfg in configs
            if has(cfg, name)
        ):
            raise BadInput(
                f"'{name}' is several settings and has no value of its own to lay out: name one of them, such as sample.steps, in table.rows or table.columns."
            )


MADE = {"edit": "erased", "images": "drawn", "images@base": "drawn before", "images@anchor": "drawn under the anchor"}


def provenance(result: Mapping[str, Any], name: str, score: Score, seen: bool) -> dict[str, str]:
    """What was done to get a score, and the digest of the sources that did it. Where no images were `seen` that is the
    erasing alone; anchor/hit looks at what is drawn under the anchor and at nothing else, and nothing else looks at
    that.
    """
    made = {stage: str(digest) for stage, digest in result["provenance"].items()}
    drawn = ({"images@anchor"} if name == "anchor/hit" else {*made} - {"images@anchor"}) if seen else set()
    code = {MADE.get(stage, stage): digest for stage, digest in made.items() if stage in {"edit", *drawn}}
    return code | ({"measured": score["code"]} if "code" in score else {})


def whose(cfg: DictConfig, stage: str, name: str) -> str:
    """Within what a stage's code must be one: a method has its own sources, and an anchor, a model and a metric."""
    return (
        name
        if stage == "measured"
        else f"{cfg.model.name} with {cfg.method.name} + {cfg.anchor.name}"
        if stage == "erased"
        else str(cfg.model.name)
    )


def table(overrides: Sequence[str], form: str = "markdown", strict: bool = False) -> str:
    """The sweep's table; a missing run is an em dash.

    Args:
        form: markdown, latex (booktabs), csv or json; the last two have a line for every score, with its interval.
        strict: a missing run or score is an error.

    Raises:
        BadInput: as `read`; a score that no run has; with `strict`, a missing run, with the command that makes it, or a missing score.
    """
    sweep, cfg = read(overrides)
    spec = cfg.table
    if sweep.scores and (unknown := [name for name in spec.cells if name not in sweep.scores]):
        raise BadInput(
            f"no run of this sweep has the score '{unknown[0]}': correct table.cells, or add the metric that gives it; there are {', '.join(sorted(sweep.scores))}."
        )
    if strict and sweep.missing:
        raise BadInput(
            f"{len(sweep.missing)} of {sweep.runs} runs are missing; the first is made by `{sweep.missing[0]}`."
        )
    if strict and (holes := [(place, cell) for place, cell in sweep.cells.items() if len(cell.runs) < cell.wanted]):
        ((row, column, name), cell), *_ = holes
        raise BadInput(
            f"{' / '.join([*row, *column])}: {len(cell.runs)} of {cell.wanted} runs have {name}; add the metric that gives it and run the sweep again."
        )
    paper = published(sweep, cfg)
    if form in ("csv", "json"):
        return long(sweep, spec, form, paper)
    marks = {
        place: mark
        for column in sweep.columns
        for name in spec.cells
        for place, mark in marked(sweep, column, name).items()
    }
    better = {name: cell.better for (_, _, name), cell in sweep.cells.items() if cell.better}
    heads = [
        *spec.rows,
        *(
            " ".join([*column, name]) + (f" {ARROW[better[name]]}" if name in better else "")
            for column in sweep.columns
            for name in spec.cells
        ),
    ]
    lines = []
    for row in sweep.rows:
        places: list[Place] = [(row, column, name) for column in sweep.columns for name in spec.cells]
        cells = [(clean(form, sweep.cells[p].text() if p in sweep.cells else "—"), marks.get(p, "")) for p in places]
        lines.append([*(clean(form, one) for one in row), *(STYLE[form][mark](text) for text, mark in cells)])
    sign = "% " if form == "latex" else ""
    text = [
        laid(form, [clean(form, head) for head in heads], lines, len(spec.rows)),
        "",
        *(sign + note for note in notes(sweep, spec)),
    ]
    if paper:
        beside = [
            [
                entry["place"],
                f"{entry['paper']:.3f}",
                entry["ours"],
                "—" if entry["difference"] is None else f"{entry['difference']:+.3f}",
            ]
            for entry in paper
        ]
        beside = [[clean(form, one) for one in line] for line in beside]
        text += [
            "",
            f"{sign}Published in {' '.join(str(cfg.paper.source).split())}:",
            "",
            laid(form, ["", "paper", "ours", "difference"], beside, 1),
        ]
    return "\n".join(text)


def notes(sweep: Sweep, spec: DictConfig) -> list[str]:
    """What stands below a table: how much of it is there, of how many images and by which code, and what its intervals
    are over.
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
    if any(len(cell.seeds) == 1 and cell.bounds for cell in sweep.cells.values()):
        found.append(f"{SPREAD} Nothing is marked best or second by it.")
    if any(len(cell.seeds) > 1 for cell in sweep.cells.values()):
        found.append("± is the standard deviation over seeds.")
    return found


def laid(form: str, heads: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    return (
        latex(heads, lines, names)
        if form == "latex"
        else "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *lines])
    )


SPREAD = f"[low, high] is 95 % over the prompts of one training (over its images where there are fewer than {FEWEST} prompts); how far other seeds' trainings differ is unknown."
SIGNS = {
    "markdown": {"\\": "\\\\", "|": "\\|", "*": "\\*", "`": "\\`", "<": "&lt;", "\n": " "},
    "latex": {
        **{c: f"\\{c}" for c in "_%&#${}"}, "\\": "\\textbackslash{}", "^": "\\^{}", "~": "\\~{}", "<": "$<$", ">": "$>$", "|": "$|$", "\n": " ",
        "↑": "$\\uparrow$", "↓": "$\\downarrow$", "±": "$\\pm$", "—": "---",
    },
}  # fmt: skip


def clean(form: str, text: str) -> str:
    """The text as it is, whatever its signs mean in this form."""
    return "".join(SIGNS[form].get(c, c) for c in text)


STYLE: dict[str, dict[str, Callable[[str], str]]] = {
    "markdown": {"": str, "best": "**{}**".format, "second": "<u>{}</u>".format},
    "latex": {"": str, "best": "\\textbf{{{}}}".format, "second": "\\underline{{{}}}".format},
}


def marked(sweep: Sweep, column: tuple[str, ...], name: str) -> dict[Place, str]:
    """Best and second of a column, each only if it differs from the next in rank, by the paired bootstrap over prompts,
    and both have several seeds: nobody knows how far a single training would be from another.
    """
    cells = [
        (place, cell)
        for row in sweep.rows
        if (cell := sweep.cells.get(place := (row, column, name))) and cell.runs and cell.better
    ]
    found = [(place, cell, cell.units) for place, cell in cells if len(cell.runs) >= cell.wanted]
    if (
        len(found) < 2
        or len({tuple((concept, *means) for concept, means in units.items()) for _, _, units in found}) > 1
        or not found[0][2]
    ):
        return {}
    up = found[0][1].better == "higher"
    ranked = sorted(found, key=lambda f: f[1].mean or 0.0, reverse=up)
    marks: dict[Place, str] = {}
    for mark, (place, cell, units), (_, after, following) in zip(("best", "second"), ranked, ranked[1:], strict=False):
        first, next_ = arrays(units), arrays(following)
        if min(len(cell.seeds), len(after.seeds)) < 2 or not (above(first, next_) if up else above(next_, first)):
            break
        marks[place] = mark
    return marks


def long(sweep: Sweep, spec: Any, form: str, paper: Sequence[Mapping[str, Any]]) -> str:
    """A line for every score: where it stands, mean, standard deviation over seeds, 95 % interval, counts, direction and what made it."""
    lines = []
    for (row, column, name), cell in sweep.cells.items():
        low, high = cell.bounds or (None, None)
        lines.append({
            **dict(zip(spec.rows, row, strict=True)), **dict(zip(spec.columns, column, strict=True)), "score": name,
            "mean": statistics.mean(cell.seeds or [cell.mean]) if cell.mean is not None else None,
            "sd": statistics.stdev(cell.seeds) if len(cell.seeds) > 1 else None, "low": low, "high": high,
            "n": min((f["n"] for f in cell.facts.values()), default=None), "runs": len(cell.runs), "wanted": cell.wanted, "seeds": len(cell.seeds), "better": cell.better,
            "extractor": next((f["extractor"] for f in cell.facts.values()), None), "code": ", ".join(sorted(cell.code)) or None,
        })  # fmt: skip
    if form == "json":
        code = {stage: sorted(by) for stage, by in sweep.code.items()}
        whole = {
            "runs": sweep.runs,
            "missing": sweep.missing,
            "code": code,
            "interval": SPREAD,
            "scores": lines,
            **({"paper": list(paper)} if paper else {}),
        }
        return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else ["score"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().rstrip()


def latex(heads: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    """For \\usepackage{booktabs}, of clean text. A line's [ would be an argument of the \\\\ before it."""
    rows = ["{}" * line[0].startswith("[") + " & ".join(line) + " \\\\" for line in [heads, *lines]]
    return "\n".join(
        [
            f"\\begin{{tabular}}{{{'l' * names}{'r' * (len(heads) - names)}}}",
            "\\toprule",
            rows[0],
            "\\midrule",
            *rows[1:],
            "\\bottomrule",
            "\\end{tabular}",
        ]
    )


def published(sweep: Sweep, cfg: DictConfig) -> list[dict[str, Any]]:
    """The experiment's `paper` block beside our numbers, for the places that this table has: what the source says, what was measured, and the difference.

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
                "paper needs a source and values such as {row: [ac, empty], column: [fox], score: erasure/hit, value: 0.1}: correct the experiment."
            )
        if entry.score not in cfg.table.cells:
            raise BadInput(
                f"paper.values names the score {entry.score}, which is not in table.cells: correct the experiment."
            )
        place: Place = (tuple(map(shortest, entry.row)), tuple(map(shortest, entry.column)), str(entry.score))
        if cell := sweep.cells.get(place):
            ours = cell.mean
            found.append({
                "place": " / ".join([*place[0], *place[1], place[2]]), "paper": float(entry.value), "ours": cell.text(), "difference": None if ours is None else ours - entry.value,
            })  # fmt: skip
    return found


def prompts_of(prompts: Mapping[str, Sequence[Prompt]], name: str) -> list[Prompt]:
    """The prompts whose images a score is the mean of, in order; none for what is not a mean of a set's images."""
    family, _, rest = name.removesuffix("@base").partition("/")
    if family == "erasure" or rest.partition(":")[0] == "erase":
        label = rest.partition(":")[2]
        return [p for p in prompts["erase"] if not label or p.label == label]
    if family != "keep" and rest.partition(":")[0] != "keep":
        return []
    label, kept = rest.partition(":")[2], rest.removeprefix("hit_") if rest.startswith("hit_") else ""
    return [p for p in prompts["keep"] if (not label or p.label == label) and (not kept or p.kept == kept)]


def scores(folder: Path, result: Mapping[str, Any], cfg: DictConfig) -> dict[str, tuple[dict[str, Any], Score]]:
    """Every score of a run as the command's judge and metrics gave it, with the settings of its metric; of a metric that the command does not name, as the run has it."""
    metrics: dict[str, Any] = {**result["config"].get("metric", {}), **plain(cfg.get("metric", {}))}
    found: dict[str, tuple[dict[str, Any], Score]] = {}
    for name, settings in metrics.items():
        file = memo(folder, name, settings, cfg.judge, result["provenance"]["images"])
        if file.exists():
            found |= {score: (settings, value) for score, value in read_json(file).items()}
    return found


def diagnostic(result: Mapping[str, Any], name: str) -> Score | None:
    """What a run reports beside its scores (anchor/cosine_span, cost/seconds) as a score of one."""
    if name not in result["diagnostics"]:
        return None
    score: Score = {"value": result["diagnostics"][name], "n": 1}
    return {**score, "better": "lower"} if name.startswith("cost/") else score


def has(cfg: DictConfig, name: str) -> bool:
    """Is there a setting of this dotted name, whatever its value?"""
    parent, _, leaf = name.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return isinstance(node, DictConfig) and leaf in node


def label(cfg: DictConfig, name: str) -> str:
    """`concept` -> its name; `anchor.lr` -> its value; an em dash where a run has no such setting."""
    if not has(cfg, name):
        return "—"
    found = OmegaConf.select(cfg, name, throw_on_missing=False)
    return str(found.name) if isinstance(found, DictConfig) else shortest(found)


def shortest(value: Any) -> str:
    """A setting's value, a number in its shortest form."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


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
    flags, overrides = parted("table", args, [*(f"--format={f}" for f in FORMS), "--strict", "--help"])
    return HELP if "--help" in flags else table(overrides, flags.get("--format", "markdown"), "--strict" in flags)
