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
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from advanchor.compose import compose_all, expand, validate
from advanchor.concept import Prompt
from advanchor.core import BadInput, Score
from advanchor.intervals import by_prompt, differ, interval
from advanchor.report import ARROW
from advanchor.run import build, sample_of
from advanchor.store import run_id

FEWEST = 8  # prompts; fewer of them say too little about others, and single images are drawn again instead
FORMS = ("markdown", "latex", "csv", "json")
Place = tuple[tuple[str, ...], tuple[str, ...], str]  # row, column, score


@dataclass(frozen=True)
class Value:
    """One run's score: the single images' values behind it, if it is a mean of them, with their prompts and what each should show."""

    value: float
    seed: int = 0
    concept: str = ""
    images: Sequence[float] = ()
    prompts: Sequence[str] = ()
    labels: Sequence[str] = ()


@dataclass
class Cell:
    """One score of all runs that differ in neither row nor column, and what must agree between them."""

    runs: list[Value] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # of each concept
    better: str = ""

    @property
    def mean(self) -> float | None:
        """Over all runs."""
        return statistics.mean(run.value for run in self.runs) if self.runs else None

    @property
    def seeds(self) -> list[float]:
        """The mean of each seed, over concepts and whatever else is in neither row nor column; a seed of which runs are missing is not comparable and left out."""
        each: dict[int, list[float]] = {}
        for run in self.runs:
            each.setdefault(run.seed, []).append(run.value)
        return [statistics.mean(values) for values in each.values() if len(values) == max(map(len, each.values()))]

    @property
    def units(self) -> dict[str, float]:
        """What is drawn again for an interval, each with its mean over seeds: the prompts of each concept, or its single images where these are too few.

        Empty if the score is no mean of single images.
        """
        if not all(run.images for run in self.runs):
            return {}
        found: dict[str, float] = {}
        for concept in dict.fromkeys(run.concept for run in self.runs):
            runs = [run for run in self.runs if run.concept == concept]
            few = len(set(runs[0].prompts)) < FEWEST
            names = [f"{text} #{i}" if few else text for i, text in enumerate(runs[0].prompts)]
            means = by_prompt([run.images for run in runs], names)
            found |= {f"{concept}: {name}": float(mean) for name, mean in zip(dict.fromkeys(names), means, strict=True)}
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
        units = self.units
        return interval(np.array(list(units.values()))) if units else None

    def text(self) -> str:
        if not self.runs:
            return "—"
        seeds = self.seeds
        if len(seeds) > 1:
            return f"{statistics.mean(seeds):.3f} ± {statistics.stdev(seeds):.3f}"
        bounds = self.bounds
        return f"{seeds[0]:.3f}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")


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
    sweep = Sweep([], [], {}, len(choices), [], set(), list(spec.rows))
    for choice, cfg in zip(choices, configs, strict=True):
        row, column = (tuple(label(cfg, k) for k in spec[axis]) for axis in ("rows", "columns"))
        for seen, one in ((sweep.rows, row), (sweep.columns, column)):
            if one not in seen:
                seen.append(one)
        file = Path(cfg.root) / run_id(cfg) / "result.json"
        if not file.exists():
            missing = "advanchor " + " ".join(choice)
            sweep.missing.append(missing)
            continue
        result = json.loads(file.read_text())
        sweep.code.add(code(result))
        single = images(file.parent / "metrics")
        for name in spec.cells:
            cell = sweep.cells.setdefault((row, column, name), Cell())
            score = result["scores"].get(name) or diagnostic(result, name)
            if score is None:
                continue
            facts = {"n": score["n"], "extractor": score.get("extractor"), "images": dict(cfg.sample), "code": code(result)}
            for other, theirs in cell.facts.items():  # concepts may be measured on different numbers of images, the runs of one may not
                if differing := [k for k in facts if facts[k] != theirs[k] and (k != "n" or other == cfg.concept.name)]:
                    said = " and ".join(str({k: f[k] for k in differing}) for f in (theirs, facts))
                    raise BadInput(f"{' / '.join([*row, *column])}: the runs' {name} differ in {said}, and such numbers are not averaged: name one of them, or run them again.")
            cell.facts[cfg.concept.name], cell.better = facts, score.get("better", "")
            asked = prompts_of(cfg, name)
            known = name in single and len(single[name]) == len(asked)
            behind = (single[name], [p.text for p in asked], [p.label for p in asked]) if known else ()
            cell.runs.append(Value(score["value"], cfg.seed, cfg.concept.name, *behind))
    unlike = {k: sorted({json.dumps(facts[k], sort_keys=True) for c in sweep.cells.values() for facts in c.facts.values()}) for k in ("images", "code")}
    if mixed := {k: v for k, v in unlike.items() if len(v) > 1}:
        raise BadInput(f"the runs of this table differ in {'; '.join(f'{k}: {chr(32).join(v)}' for k, v in mixed.items())}: make a table of each, or run them again with one.")
    return sweep, first


def table(overrides: Sequence[str], form: str = "markdown", strict: bool = False) -> str:
    """The sweep's table; a missing run is an em dash.

    Args:
        form: markdown, latex (booktabs), csv or json; the last two have a line for every score, with its interval.
        strict: a missing run is an error.

    Raises:
        BadInput: as `read`; with `strict`, a missing run, with the command that makes it.
    """
    sweep, cfg = read(overrides)
    if strict and sweep.missing:
        raise BadInput(f"{len(sweep.missing)} of {sweep.runs} runs are missing; the first is made by `{sweep.missing[0]}`.")
    spec = cfg.table
    if form in ("csv", "json"):
        return long(sweep, spec, form)
    marks = {place: mark for column in sweep.columns for name in spec.cells for place, mark in marked(sweep, column, name).items()}
    better = {name: cell.better for (_, _, name), cell in sweep.cells.items() if cell.better}
    heads = [*spec.rows, *(" ".join([*column, name]) + (f" {ARROW[better[name]]}" if name in better else "") for column in sweep.columns for name in spec.cells)]
    lines = []
    for row in sweep.rows:
        places: list[Place] = [(row, column, name) for column in sweep.columns for name in spec.cells]
        lines.append([*row, *(STYLE[form][marks.get(p, "")](sweep.cells.get(p, Cell()).text()) for p in places)])
    counts = sorted({(name, facts["n"]) for (_, _, name), cell in sweep.cells.items() for facts in cell.facts.values()})
    note = f"{sweep.runs - len(sweep.missing)} of {sweep.runs} runs; n " + ", ".join(f"{name} {n}" for name, n in counts) + f"; code {', '.join(sorted(sweep.code)) or 'none'}."
    body = latex(heads, lines, len(spec.rows)) if form == "latex" else "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *lines])
    return "\n".join([body, "", ("% " if form == "latex" else "") + note, *published(sweep, cfg)])


STYLE: dict[str, dict[str, Callable[[str], str]]] = {
    "markdown": {"": str, "best": "**{}**".format, "second": "<u>{}</u>".format},
    "latex": {"": str, "best": "\\textbf{{{}}}".format, "second": "\\underline{{{}}}".format},
}


def marked(sweep: Sweep, column: tuple[str, ...], name: str) -> dict[Place, str]:
    """Best and second of a column, each only if it differs from the next in rank."""
    found = [(place, cell, cell.units) for row in sweep.rows if (cell := sweep.cells.get(place := (row, column, name))) and cell.runs and cell.better]
    if len(found) < 2 or len({tuple(units) for _, _, units in found}) > 1 or not found[0][2]:
        return {}
    ranked = sorted(found, key=lambda f: statistics.mean(f[1].seeds), reverse=found[0][1].better == "higher")
    marks: dict[Place, str] = {}
    for mark, (place, _, units), (_, _, following) in zip(("best", "second"), ranked, ranked[1:], strict=False):
        if not differ(*(np.array(list(u.values())) for u in (units, following))):
            break
        marks[place] = mark
    return marks


def long(sweep: Sweep, spec: Any, form: str) -> str:
    """A line for every score: where it stands, mean, standard deviation over seeds, 95 % interval, counts, direction and what made it."""
    lines = []
    for (row, column, name), cell in sweep.cells.items():
        low, high = cell.bounds or (None, None)
        lines.append({
            **dict(zip(spec.rows, row, strict=True)), **dict(zip(spec.columns, column, strict=True)), "score": name,
            "mean": statistics.mean(cell.seeds) if cell.runs else None, "sd": statistics.stdev(cell.seeds) if len(cell.seeds) > 1 else None, "low": low, "high": high,
            "n": min((f["n"] for f in cell.facts.values()), default=None), "runs": len(cell.runs), "seeds": len(cell.seeds), "better": cell.better,
            **{k: next((f[k] for f in cell.facts.values()), None) for k in ("extractor", "code")},
        })  # fmt: skip
    if form == "json":
        return json.dumps({"runs": sweep.runs, "missing": sweep.missing, "code": sorted(sweep.code), "scores": lines}, indent=1, ensure_ascii=False)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else ["score"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().rstrip()


def latex(heads: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    """For \\usepackage{booktabs}."""
    signs = {"_": "\\_", "%": "\\%", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "±": "$\\pm$", "—": "---", "@": "@"}

    def clean(text: str) -> str:
        return "".join(signs.get(c, c) for c in text)

    rows = [" & ".join(map(clean, line)) + " \\\\" for line in [heads, *lines]]
    return "\n".join([f"\\begin{{tabular}}{{{'l' * names}{'r' * (len(heads) - names)}}}", "\\toprule", rows[0], "\\midrule", *rows[1:], "\\bottomrule", "\\end{tabular}"])


def published(sweep: Sweep, cfg: DictConfig) -> list[str]:
    """The experiment's `paper` block beside our numbers: what the source says, what was measured, and the difference.

    Raises:
        BadInput: the block names a place that the table does not have.
    """
    lines = []
    for entry in cfg.paper.get("values", []):
        place: Place = (tuple(map(str, entry.row)), tuple(map(str, entry.column)), str(entry.score))
        if place[0] not in sweep.rows or place[1] not in sweep.columns:
            raise BadInput(f"paper.values names {' / '.join([*place[0], *place[1]])}, which is not in this table: correct the experiment.")
        cell = sweep.cells.get(place, Cell())
        ours = cell.mean
        difference = "—" if ours is None else f"{ours - entry.value:+.3f}"
        lines.append(f"| {' / '.join([*place[0], *place[1], place[2]])} | {entry.value:.3f} | {cell.text()} | {difference} |")
    return ["", f"Published in {cfg.paper.source}:", "", "| | paper | ours | difference |", "| --- | --- | --- | --- |", *lines] if lines else []


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


def images(folder: Path) -> dict[str, list[float]]:
    """The single images' values behind a run's scores."""
    scores = [item for file in sorted(folder.glob("*.json")) for item in json.loads(file.read_text()).items()]
    return {name: score["values"] for name, score in scores if "values" in score}


def diagnostic(result: Mapping[str, Any], name: str) -> Score | None:
    """What a run reports beside its scores (anchor/cosine_span, cost/seconds) as a score of one."""
    if name not in result["diagnostics"]:
        return None
    score: Score = {"value": result["diagnostics"][name], "n": 1}
    return {**score, "better": "lower"} if name.startswith("cost/") else score


def code(result: Mapping[str, Any]) -> str:
    """The package's code that made a run (machine.py)."""
    return str(result["environment"]["code"])


def label(cfg: DictConfig, name: str) -> str:
    """`concept` -> its name; `anchor.lr` -> its value, a number in its shortest form."""
    found = OmegaConf.select(cfg, name, throw_on_missing=False)
    if found is None and name.rpartition(".")[0] and OmegaConf.select(cfg, name.rpartition(".")[0]) is None:
        raise BadInput(f"there is no setting '{name}' to lay out: correct table.rows or table.columns.")
    if isinstance(found, float):
        return f"{found:g}"
    return "none" if found is None else str(found.name if isinstance(found, DictConfig) else found)


def main(args: Sequence[str]) -> str:
    """The command's arguments -> the text to print."""
    flags, overrides = [a for a in args if a.startswith("--")], [a for a in args if not a.startswith("--")]
    forms = {f"--format={f}": f for f in FORMS}
    if unknown := [f for f in flags if f not in (*forms, "--strict")]:
        raise BadInput(f"table does not know {unknown[0]}: use --strict, or one of {', '.join(forms)}.")
    chosen = [forms[f] for f in flags if f in forms] or ["markdown"]
    return table(overrides, chosen[-1], "--strict" in flags)
