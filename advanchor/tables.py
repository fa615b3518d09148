"""A table is a sweep read back: the runs that a command would make, laid out as rows, columns and scores.

    advanchor table concept=emoji/fox,emoji/car anchor=adversarial,superclass seed=0,1,2
    advanchor table experiment=methods --format=latex --strict

Rows, columns and scores are `table.rows`, `table.columns` and `table.cells` of the config. What is in neither is averaged: mean ± standard deviation
over seeds of the mean over all else.
Bold is the best of a column and underlined the second, if the paired bootstrap over prompts tells it from the next (intervals.py).
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

from advanchor.compose import compose_all, expand, validate
from advanchor.concept import Prompt
from advanchor.core import BadInput, Score, share
from advanchor.intervals import Means, above, by_prompt, interval
from advanchor.report import ARROW
from advanchor.run import build, sample_of
from advanchor.store import key, plain, read_json, run_id

FEWEST = 8  # prompts; fewer of them say too little about others, and single images are drawn again instead
FORMS = ("markdown", "latex", "csv", "json")
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
            found[concept] = dict(zip(dict.fromkeys(names), by_prompt([run.images for run in runs], names).tolist(), strict=True))
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
            one = share([bool(v) for v in images[: sum(len(run.images) for run in self.runs if run.seed == self.runs[0].seed)]], "higher")
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
    """What was read: a cell for every place, in the order of the sweep, the commands of missing runs, and the code that made the others."""

    rows: list[tuple[str, ...]]
    columns: list[tuple[str, ...]]
    cells: dict[Place, Cell]
    runs: int
    missing: list[str]
    code: set[str]
    settings: list[str] = field(default_factory=list)  # that tell rows apart
    scores: set[str] = field(default_factory=set)  # that any run has


def read(overrides: Sequence[str]) -> tuple[Sweep, DictConfig]:
    """The sweep's results, and the config of its first run.

    Raises:
        BadInput: a mistake in the overrides; scores that must not be mixed: it says which and why.
    """
    validate(overrides)
    choices = expand(overrides)
    configs = compose_all(choices)
    first = configs[0]
    spec = first.table
    for name in ("rows", "columns", "cells"):
        if not isinstance(spec[name], ListConfig):
            raise BadInput(f"table.{name}={spec[name]} will not do: it must be a list, such as [method,anchor].")
    if unknown := [name for name in [*spec.rows, *spec.columns] if not any(has(cfg, name) for cfg in configs)]:
        raise BadInput(f"there is no setting '{unknown[0]}' to lay out: correct table.rows or table.columns.")
    sweep = Sweep([], [], {}, len(choices), [], set(), list(spec.rows))
    for choice, cfg in zip(choices, configs, strict=True):
        row, column = (tuple(label(cfg, k) for k in spec[axis]) for axis in ("rows", "columns"))
        for seen, one in ((sweep.rows, row), (sweep.columns, column)):
            if one not in seen:
                seen.append(one)
        for name in spec.cells:
            sweep.cells.setdefault((row, column, name), Cell()).wanted += 1
        file = Path(cfg.root) / run_id(cfg) / "result.json"
        if not file.exists():
            alone = ["sweeps=[]"] if any(c.startswith("experiment=") for c in choice) else []  # its own settings are all in the choice
            sweep.missing.append(shlex.join(["advanchor", *choice, *alone]))
            continue
        result = read_json(file)
        measured = scores(file.parent / "metrics", result, cfg)
        sweep.scores |= {*measured, *result["diagnostics"]}
        made = str(result["environment"]["code"])
        sweep.code.add(made)
        for name in spec.cells:
            cell = sweep.cells[row, column, name]
            metric, score = measured.get(name, (None, diagnostic(result, name)))
            if score is None:
                continue
            by = score.get("code", made)
            facts = {
                "n": score["n"], "extractor": score.get("extractor"), "metric": metric, "judge": plain(cfg.judge) if metric else None, "images": plain(cfg.sample),
                "code": made if by == made else f"{made} measured by {by}",
            }  # fmt: skip
            for other, theirs in cell.facts.items():  # concepts may be measured on different numbers of images, the runs of one may not
                if differing := [k for k in facts if facts[k] != theirs[k] and (k != "n" or other == cfg.concept.name)]:
                    said = " and ".join(str({k: f[k] for k in differing}) for f in (theirs, facts))
                    which = " / ".join([*row, *column])
                    raise BadInput(f"{which}: the runs' {name} differ in {said}, and such numbers are not averaged: name one of them, or run all of them again with another root.")
            cell.facts[cfg.concept.name], cell.better = facts, score.get("better", "")
            asked = prompts_of(cfg, name)
            single = score.get("values", [])
            values, texts, labels = (single, [p.text for p in asked], [p.label for p in asked]) if len(single) == len(asked) else ([], [], [])
            width = score.get("high", 0.0) - score.get("low", 0.0)
            cell.runs.append(Value(score["value"], cfg.seed, cfg.concept.name, values, texts, labels, width))
    every = [(name, facts) for (_, _, name), cell in sweep.cells.items() for facts in cell.facts.values()]
    for fact in ("images", "code", "judge", "extractor", "metric"):
        kinds: dict[str, set[str]] = {}
        for name, facts in every:
            if facts[fact] is not None:  # extractor and metric belong to one score, the others to the table
                kinds.setdefault(name if fact in ("extractor", "metric") else "", set()).add(json.dumps(facts[fact], sort_keys=True))
        if mixed := next((f"{name} " * bool(name) + f"{fact}: " + " ".join(sorted(values)) for name, values in kinds.items() if len(values) > 1), ""):
            raise BadInput(f"the runs of this table differ in {mixed}: make a table of each, or run all of them again with one and another root.")
    return sweep, first


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
        raise BadInput(f"no run of this sweep has the score '{unknown[0]}': correct table.cells, or add the metric that gives it; there are {', '.join(sorted(sweep.scores))}.")
    if strict and sweep.missing:
        raise BadInput(f"{len(sweep.missing)} of {sweep.runs} runs are missing; the first is made by `{sweep.missing[0]}`.")
    if strict and (holes := [(place, cell) for place, cell in sweep.cells.items() if len(cell.runs) < cell.wanted]):
        ((row, column, name), cell), *_ = holes
        raise BadInput(f"{' / '.join([*row, *column])}: {len(cell.runs)} of {cell.wanted} runs have {name}; add the metric that gives it and run the sweep again.")
    paper = published(sweep, cfg)
    if form in ("csv", "json"):
        return long(sweep, spec, form, paper)
    marks = {place: mark for column in sweep.columns for name in spec.cells for place, mark in marked(sweep, column, name).items()}
    better = {name: cell.better for (_, _, name), cell in sweep.cells.items() if cell.better}
    heads = [*spec.rows, *(" ".join([*column, name]) + (f" {ARROW[better[name]]}" if name in better else "") for column in sweep.columns for name in spec.cells)]
    lines = []
    for row in sweep.rows:
        places: list[Place] = [(row, column, name) for column in sweep.columns for name in spec.cells]
        lines.append([*row, *(STYLE[form][marks.get(p, "")](sweep.cells[p].text() if p in sweep.cells else "—") for p in places)])
    counts = sorted({(name, facts["n"]) for (_, _, name), cell in sweep.cells.items() for facts in cell.facts.values()})
    note = f"{sweep.runs - len(sweep.missing)} of {sweep.runs} runs; n " + ", ".join(f"{name} {n}" for name, n in counts) + f"; code {', '.join(sorted(sweep.code)) or 'none'}."
    sign = "% " if form == "latex" else ""
    text = [laid(form, heads, lines, len(spec.rows)), "", sign + note]
    if paper:
        beside = [[entry["place"], f"{entry['paper']:.3f}", entry["ours"], "—" if entry["difference"] is None else f"{entry['difference']:+.3f}"] for entry in paper]
        text += ["", f"{sign}Published in {cfg.paper.source}:", "", laid(form, ["", "paper", "ours", "difference"], beside, 1)]
    return "\n".join(text)


def laid(form: str, heads: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    return latex(heads, lines, names) if form == "latex" else "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *lines])


STYLE: dict[str, dict[str, Callable[[str], str]]] = {
    "markdown": {"": str, "best": "**{}**".format, "second": "<u>{}</u>".format},
    "latex": {"": str, "best": "\\textbf{{{}}}".format, "second": "\\underline{{{}}}".format},
}


def marked(sweep: Sweep, column: tuple[str, ...], name: str) -> dict[Place, str]:
    """Best and second of a column, each only if it differs from the next in rank."""
    cells = [(place, cell) for row in sweep.rows if (cell := sweep.cells.get(place := (row, column, name))) and cell.runs and cell.better]
    found = [(place, cell, cell.units) for place, cell in cells if len(cell.runs) >= cell.wanted]
    if len(found) < 2 or len({tuple((concept, *means) for concept, means in units.items()) for _, _, units in found}) > 1 or not found[0][2]:
        return {}
    up = found[0][1].better == "higher"
    ranked = sorted(found, key=lambda f: f[1].mean or 0.0, reverse=up)
    marks: dict[Place, str] = {}
    for mark, (place, _, units), (_, _, following) in zip(("best", "second"), ranked, ranked[1:], strict=False):
        first, next_ = arrays(units), arrays(following)
        if not (above(first, next_) if up else above(next_, first)):
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
            **{k: next((f[k] for f in cell.facts.values()), None) for k in ("extractor", "code")},
        })  # fmt: skip
    if form == "json":
        whole = {"runs": sweep.runs, "missing": sweep.missing, "code": sorted(sweep.code), "scores": lines, **({"paper": list(paper)} if paper else {})}
        return json.dumps(whole, indent=1, ensure_ascii=False)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else ["score"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().rstrip()


def latex(heads: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    """For \\usepackage{booktabs}."""
    signs = {c: f"\\{c}" for c in "_%&#$"} | {"^": "\\^{}", "~": "\\~{}", "<": "$<$", ">": "$>$", "|": "$|$", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "±": "$\\pm$", "—": "---"}

    def clean(text: str) -> str:
        return "".join(signs.get(c, c) for c in text)

    rows = [" & ".join(map(clean, line)) + " \\\\" for line in [heads, *lines]]
    return "\n".join([f"\\begin{{tabular}}{{{'l' * names}{'r' * (len(heads) - names)}}}", "\\toprule", rows[0], "\\midrule", *rows[1:], "\\bottomrule", "\\end{tabular}"])


def published(sweep: Sweep, cfg: DictConfig) -> list[dict[str, Any]]:
    """The experiment's `paper` block beside our numbers, for the places that this table has: what the source says, what was measured, and the difference.

    Raises:
        BadInput: the block is incomplete, or names a score that the table does not have.
    """
    found: list[dict[str, Any]] = []
    for entry in cfg.paper.get("values", []):
        if not isinstance(entry, DictConfig) or {*entry} != {"row", "column", "score", "value"} or not isinstance(entry.value, int | float) or "source" not in cfg.paper:
            raise BadInput("paper needs a source and values such as {row: [ac, empty], column: [fox], score: erasure/hit, value: 0.1}: correct the experiment.")
        if entry.score not in cfg.table.cells:
            raise BadInput(f"paper.values names the score {entry.score}, which is not in table.cells: correct the experiment.")
        place: Place = (tuple(map(shortest, entry.row)), tuple(map(shortest, entry.column)), str(entry.score))
        if cell := sweep.cells.get(place):
            ours = cell.mean
            found.append({
                "place": " / ".join([*place[0], *place[1], place[2]]), "paper": float(entry.value), "ours": cell.text(), "difference": None if ours is None else ours - entry.value,
            })  # fmt: skip
    return found


def prompts_of(cfg: DictConfig, name: str) -> list[Prompt]:
    """The prompts whose images a score is the mean of, in order; none for what is not a mean of measured images."""
    prompts = build(cfg.concept, "concept").prompts(sample_of(cfg))
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
        file = folder / f"{name}-{key(settings, cfg.judge)}.json"
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


def main(args: Sequence[str]) -> str:
    """The command's arguments -> the text to print."""
    flags, overrides = [a for a in args if a.startswith("--")], [a for a in args if not a.startswith("--")]
    forms = {f"--format={f}": f for f in FORMS}
    if unknown := [f for f in flags if f not in (*forms, "--strict")]:
        raise BadInput(f"table does not know {unknown[0]}: use --strict, or one of {', '.join(forms)}.")
    chosen = [forms[f] for f in flags if f in forms] or ["markdown"]
    return table(overrides, chosen[-1], "--strict" in flags)
