"""A sweep read back: its finished runs' scores, each in its place, if they may stand beside each other."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from tqdm import tqdm

from advanchor.build import build, sample_of
from advanchor.compose import CONF, by_itself, compose_all, expand, validate
from advanchor.core import BadInput, Score
from advanchor.identity import plain, run_id
from advanchor.results.cells import Cell, Value
from advanchor.run import called, memo
from advanchor.store import read_json
from advanchor.units import prompts_of

Place = tuple[tuple[str, ...], tuple[str, ...], str]  # row, column, score
Made = dict[tuple[str, str], set[str]]  # stage, and of what -> the code that made it
MADE = {
    "edit": "erased",
    "anchor": "found",
    "images": "drawn",
    "images@base": "drawn before",
    "images@anchor": "drawn under the anchor",
}


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
    if any(cfg.stage == "anchor" for cfg in configs):
        anchors(configs, first.table)
    check(first.table, configs)
    sweep = Sweep([], [], {}, len(choices), [], {}, list(first.table.rows))
    made: Made = {}
    runs = list(zip(choices, configs, strict=True))
    for choice, cfg in tqdm(runs, desc="read", unit="run", leave=False, delay=1):
        row, column = (tuple(label(cfg, name) for name in first.table[axis]) for axis in ("rows", "columns"))
        for seen, one in ((sweep.rows, row), (sweep.columns, column)):
            if one not in seen:
                seen.append(one)
        cells = {name: sweep.cells.setdefault((row, column, name), Cell()) for name in first.table.cells}
        for cell in cells.values():
            cell.wanted += 1
        file = Path(cfg.root) / run_id(cfg) / "result.json"
        if file.exists():
            fill(cells, " / ".join([*row, *column]), file, cfg, sweep, made)
        else:
            sweep.missing.append(shlex.join(["advanchor", *by_itself(choice)]))
    if len(sweep.missing) == sweep.runs:
        several = sweep.runs > 1
        asked_for = [o for o in overrides if not o.lstrip("+").startswith(("table.", "paper."))]
        command = shlex.join(["advanchor", *(["-m"] if several else []), *asked_for])
        who, them = (f"none of the {sweep.runs} runs", "them") if several else ("the run", "it")
        raise BadInput(f"{who} of this sweep is in {first.root}: `{command}` makes {them}.")
    comparable(sweep, made)
    return sweep, first


def anchors(configs: Sequence[DictConfig], spec: DictConfig) -> None:
    """What a table of stage=anchor shows unless told otherwise: what an anchor draws, and how close it is.

    Raises:
        BadInput: some runs of the sweep are of another stage.
    """
    if any(cfg.stage != "anchor" for cfg in configs):
        raise BadInput("the runs of this table differ in stage, and share no score: make a table of each.")
    if spec.cells == OmegaConf.load(Path(CONF) / "config.yaml").table.cells:
        spec.cells = ["anchor/hit", "anchor/content", "anchor/broken", "anchor/cosine_span", "anchor/predicted"]


def erasures(configs: Sequence[DictConfig], command: str) -> None:
    """Raise BadInput if runs are of stage=anchor, where a command is about what an erasure did."""
    if any(cfg.get("stage") == "anchor" for cfg in configs):
        what = f"advanchor {command} is about erased models, and stage=anchor erases nothing"
        raise BadInput(f"{what}: leave stage=anchor out, or lay the anchors out with `advanchor table`.")


def fill(cells: Mapping[str, Cell], place: str, file: Path, cfg: DictConfig, sweep: Sweep, made: Made) -> None:
    """Put a finished run's scores into its cells, and what made them into the sweep.

    Raises:
        BadInput: a score differs from those of the cell in how it was measured.
    """
    result = read_json(file)
    prompts = build(cfg.concept, "concept").prompts(sample_of(cfg))
    measured = scores(file.parent, result, cfg)
    sweep.scores |= {*measured, *result["diagnostics"]}
    for name, cell in cells.items():
        metric, score = measured.get(name, (None, diagnostic(result, name)))
        if score is None:
            continue
        code = provenance(result, name, score, metric is not None)
        for stage, digest in code.items():
            sweep.code.setdefault(stage, set()).add(digest)
            made.setdefault((stage, whose(cfg, stage, name)), set()).add(digest)
        facts = {
            "n": score["n"],
            "extractor": score.get("extractor"),
            "metric": metric,
            "judge": plain(cfg.judge) if metric else None,
            "images": plain(cfg.sample),
        }
        agree(cell, cfg.concept.name, facts, f"{place}: the runs' {name}")
        cell.facts[cfg.concept.name], cell.better = facts, score.get("better", "")
        cell.code |= {f"{stage} {digest}" for stage, digest in code.items()}
        shown = prompts_of(prompts, name)
        values = score.get("values", [])
        texts, labels = score.get("texts", [p.text for p in shown]), [p.label for p in shown]
        if len(values) != len(texts):
            values, texts, labels = [], [], []
        share = score.get("share", False)
        cell.runs.append(Value(score["value"], cfg.seed, cfg.concept.name, values, texts, labels, share))


def agree(cell: Cell, concept: str, facts: Mapping[str, Any], what: str) -> None:
    """Raise BadInput if a run was measured in another way than those of its cell.

    Concepts may be measured on different numbers of images, the runs of one may not.
    """
    for other, theirs in cell.facts.items():
        if differing := [k for k in facts if facts[k] != theirs[k] and (k != "n" or other == concept)]:
            said = " and ".join(str({k: f[k] for k in differing}) for f in (theirs, facts))
            remedy = "name one of them, or run all of them again with another root"
            raise BadInput(f"{what} differ in {said}, and such numbers are not averaged: {remedy}.")


def comparable(sweep: Sweep, made: Made) -> None:
    """Raise BadInput if the cells of a sweep were made by different code, or measured in different ways."""
    remedy = "make a table of each, or run all of them again with"
    for (stage, of), by in made.items():
        if len(by) > 1:
            differ = f"{of} was {stage} by {' and by '.join(sorted(by))}"
            raise BadInput(f"the runs of this table differ in code: {differ}: {remedy} another root.")
    for fact in ("images", "judge", "extractor", "metric"):
        kinds: dict[str, set[str]] = {}  # extractor and metric belong to one score, the others to the table
        for (_, _, name), cell in sweep.cells.items():
            for facts in cell.facts.values():
                if facts[fact] is not None:
                    of = f"{name} " if fact in ("extractor", "metric") else ""
                    kinds.setdefault(of, set()).add(json.dumps(facts[fact], sort_keys=True))
        for of, values in kinds.items():
            if len(values) > 1:
                mixed = f"{of}{fact}: {' '.join(sorted(values))}"
                raise BadInput(f"the runs of this table differ in {mixed}: {remedy} one and another root.")


def check(spec: DictConfig, configs: Sequence[DictConfig]) -> None:
    """Can a table be laid out as this says?

    Raises:
        BadInput: rows, columns or cells are no lists of words, name something twice, or nothing (`columns: []` alone
            has a meaning, the mean over all), or a setting that no run has, or that has no value of its own.
    """
    for name in ("rows", "columns", "cells"):
        such = "[erasure/hit,content/hit,keep/hit]" if name == "cells" else "[method,anchor]"
        listed = isinstance(spec.get(name), ListConfig)
        if not listed or not all(isinstance(one, str) and one.strip() for one in spec[name]):
            raise BadInput(f"table.{name}={spec.get(name)} will not do: it must be a list of words, such as {such}.")
        if not spec[name] and name != "columns":
            raise BadInput(f"table.{name}=[] leaves nothing to show: name at least one, such as {such}.")
        if twice := [one for one, times in Counter(spec[name]).items() if times > 1]:
            raise BadInput(f"table.{name} names {twice[0]} twice: once is enough.")
    for name in [*spec.rows, *spec.columns]:
        if not any(has(cfg, name) for cfg in configs):
            raise BadInput(f"there is no setting '{name}' to lay out: correct table.rows or table.columns.")
        for cfg in configs:
            found = OmegaConf.select(cfg, name, throw_on_missing=False) if has(cfg, name) else None
            if isinstance(found, DictConfig) and "name" not in found:
                remedy = "name one of them, such as sample.steps, in table.rows or table.columns"
                raise BadInput(f"'{name}' is several settings and has no value of its own to lay out: {remedy}.")


def provenance(result: Mapping[str, Any], name: str, score: Score, seen: bool) -> dict[str, str]:
    """What was done to get a score, and the digest of the sources that did it. Where no images were `seen` that is the
    erasing alone; metric=anchor looks at what is drawn under the anchor alone, and nothing else looks at that.
    """
    made = {stage: str(digest) for stage, digest in result["provenance"].items()}
    under_anchor = name.startswith("anchor/")
    stages = [s for s in made if s in ("edit", "anchor") or (seen and (s == "images@anchor") == under_anchor)]
    code = {MADE.get(stage, stage): made[stage] for stage in stages}
    return code | ({"measured": score["code"]} if "code" in score else {})


def whose(cfg: DictConfig, stage: str, name: str) -> str:
    """Within what a stage's code must be one: a method has its own sources, and an anchor, a model and a metric."""
    if stage == "measured":
        return name
    if stage in ("erased", "found"):
        return f"{cfg.model.name} with {cfg.method.name} + {cfg.anchor.name}"
    return str(cfg.model.name)


def scores(folder: Path, result: Mapping[str, Any], cfg: DictConfig) -> dict[str, tuple[dict[str, Any], Score]]:
    """Every score of a run as the command's judge, metrics and attacks gave it, with the settings of its metric; of a
    metric that the command does not name, as the run has it.
    """
    metrics: dict[str, Any] = {
        called(kind, name): settings
        for kind in ("metric", "attack")
        for name, settings in {**result["config"].get(kind, {}), **plain(cfg.get(kind, {}))}.items()
    }
    found: dict[str, tuple[dict[str, Any], Score]] = {}
    for name, settings in metrics.items():
        file = memo(folder, result["run"], name, settings, cfg.judge, result["pictures"])
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
