"""A table is a sweep read back: the runs that a command would make, laid out as rows, columns and scores.

    advanchor table concept=emoji/fox,emoji/car anchor=adversarial,superclass seed=0,1,2
    advanchor table experiment=anchors --format=csv --strict

Rows, columns and scores are `table.rows`, `table.columns` and `table.cells` of the config. What is in neither (seeds) is averaged: mean ± standard deviation.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from advanchor.compose import compose, expand
from advanchor.core import BadInput, Score
from advanchor.report import ARROW
from advanchor.store import run_id

Cell = dict[str, Any]  # values, n, and what else must agree


def table(overrides: Sequence[str], form: str = "markdown", strict: bool = False) -> str:
    """The sweep's table as markdown, csv or json; a missing run is an em dash.

    Raises:
        BadInput: a mistake in the overrides; scores that must not be mixed; with `strict`, a missing run (with the command that makes it).
    """
    choices = expand(overrides)
    runs = [(choice, compose(choice)) for choice in choices]
    spec = runs[0][1].table
    cells: dict[tuple[str, ...], dict[tuple[str, ...], dict[str, Cell]]] = {}
    commits: set[str] = set()
    missing: list[str] = []
    better: dict[str, str] = {}
    for choice, cfg in runs:
        row, column = (tuple(label(cfg, k) for k in spec[axis]) for axis in ("rows", "columns"))
        here = cells.setdefault(row, {}).setdefault(column, {name: {"values": [], "facts": {}} for name in spec.cells})
        file = Path(cfg.root) / run_id(cfg) / "result.json"
        if not file.exists():
            missing.append("advanchor " + " ".join(choice))
            continue
        result = json.loads(file.read_text())
        commits.add(str(result["environment"]["commit"])[:10] + ("+changes" if result["environment"]["dirty"] else ""))
        for name in spec.cells:
            if score := result["scores"].get(name) or diagnostic(result, name):
                facts = {"n": score["n"], "extractor": score.get("extractor")}
                if here[name]["facts"] not in ({}, facts):
                    raise BadInput(f"{' / '.join(row)}: the runs' {name} differ in {here[name]['facts']} and {facts}, and such numbers are not averaged: name one of them.")
                here[name]["facts"] = facts
                here[name]["values"].append(score["value"])
                better[name] = score.get("better", "")
    if strict and missing:
        raise BadInput(f"{len(missing)} of {len(runs)} runs are missing; the first is made by `{missing[0]}`.")
    columns = list(dict.fromkeys(c for row in cells.values() for c in row))
    heads = [*spec.rows, *(" ".join([*column, name]) + (f" {ARROW[better[name]]}" if better.get(name) else "") for column in columns for name in spec.cells)]
    grid = [[*row, *(text(found[c][name]["values"]) if c in found else "—" for c in columns for name in spec.cells)] for row, found in cells.items()]
    if form == "json":
        return json.dumps(
            {"runs": len(runs), "missing": missing, "commits": sorted(commits), "rows": [dict(zip(heads, line, strict=True)) for line in grid]}, indent=1, ensure_ascii=False
        )
    if form == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([heads, *grid])
        return out.getvalue().rstrip()
    lines = [heads, ["---"] * len(heads), *grid]
    counts = sorted({(name, c["facts"]["n"]) for row in cells.values() for found in row.values() for name, c in found.items() if c["facts"]})
    note = f"{len(runs) - len(missing)} of {len(runs)} runs; n " + ", ".join(f"{name} {n}" for name, n in counts) + f"; commit {', '.join(sorted(commits)) or 'none'}."
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", note])


def diagnostic(result: dict[str, Any], name: str) -> Score | None:
    """What a run reports beside its scores (anchor/cosine_span, cost/seconds) as a score of one."""
    if name not in result["diagnostics"]:
        return None
    score: Score = {"value": result["diagnostics"][name], "n": 1}
    return {**score, "better": "lower"} if name.startswith("cost/") else score


def label(cfg: DictConfig, name: str) -> str:
    """`concept` -> its name; `anchor.lr` -> its value."""
    found = OmegaConf.select(cfg, name, throw_on_missing=False)
    if found is None and name.rpartition(".")[0] and OmegaConf.select(cfg, name.rpartition(".")[0]) is None:
        raise BadInput(f"there is no setting '{name}' to lay out: correct table.rows or table.columns.")
    return str(found.name if isinstance(found, DictConfig) else found)


def text(values: Sequence[float]) -> str:
    if not values:
        return "—"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def main(args: Sequence[str]) -> str:
    """The command's arguments -> the text to print."""
    flags, overrides = [a for a in args if a.startswith("--")], [a for a in args if not a.startswith("--")]
    forms = {f"--format={f}": f for f in ("markdown", "csv", "json")}
    if unknown := [f for f in flags if f not in (*forms, "--strict")]:
        raise BadInput(f"table does not know {unknown[0]}: use --strict, or one of {', '.join(forms)}.")
    chosen = list(itertools.chain(["markdown"], (forms[f] for f in flags if f in forms)))[-1]
    return table(overrides, chosen, "--strict" in flags)
