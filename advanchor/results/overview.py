"""What a page of pictures says of a sweep before its runs: the table, the trade-off, what was lost where."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from advanchor.build import build, sample_of
from advanchor.compose import by_itself
from advanchor.core import BadInput
from advanchor.gallery.page import page
from advanchor.gallery.subject import subject
from advanchor.identity import key, run_id
from advanchor.report import ARROW
from advanchor.results.points import CONTENT, ERASED, KEPT
from advanchor.results.sweep import Sweep, label, read, scores
from advanchor.results.tables import every_mark, leave_out, notes
from advanchor.run import result_in
from advanchor.units import prompts_of

Run = tuple[DictConfig, dict[str, Any], list[str]]  # config, result, words of its command
NEAR = "keep/hit_near"
COLOURS = 8  # of page.css, those of painters.py
MARKS = (  # of rows in a figure, about 10 px wide; told apart without colours
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "M-4.5 -4.5h9v9h-9z",
    "M0 -6.5L5.5 0L0 6.5L-5.5 0z",
    "M0 -6L6 5H-6z",
    "M0 6L6 -5H-6z",
    "M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
)
WIDTH, HEIGHT = 360, 280  # of a figure's drawing area


def finished_runs(
    overrides: Sequence[str], choices: Sequence[Sequence[str]], configs: Sequence[DictConfig]
) -> list[Run]:
    """Those of a command's runs that are there, with the words of each.

    Raises:
        BadInput: none is; one is another's, damaged, or was measured by another judge than the command names.
    """
    found: list[Run] = []
    for choice, cfg in zip(choices, configs, strict=True):
        folder = Path(cfg.root) / run_id(cfg)
        if (result := result_in(cfg, folder)) is None:
            continue
        if result["judge"] != key(cfg.judge):
            was, remedy = result["config"]["judge"]["name"], "name that judge, or run it again with this one"
            raise BadInput(f"{folder} was measured by another judge ({was}) than judge={cfg.judge.name}: {remedy}.")
        found.append((cfg, result, by_itself(choice)))
    if not found:
        several = len(configs) > 1
        command = shlex.join(["advanchor", *(["-m"] if several else []), *overrides])
        who, them = (f"none of the {len(configs)} runs", "them") if several else ("the run", "it")
        raise BadInput(f"{who} is in {configs[0].root}: `{command}` makes {them}.")
    return found


def sweep_page(overrides: Sequence[str], runs: Sequence[Run]) -> str:
    """The page of a sweep.

    Raises:
        BadInput: as `sweep.read`, `subject` and `page`.
    """
    sweep, first = read(overrides)
    leave_out(sweep, first.table)
    common = set.intersection(*(set(words) for _, _, words in runs))
    subjects = []
    for cfg, result, words in runs:
        one = subject(cfg, result, words)
        group = ("concept=", "method=", "anchor=", "seed=", "sweeps=", "experiment=", "root=")
        told = " ".join(word for word in words if word not in common and not word.startswith(group))
        one.title += f", {told}" if told else ""
        subjects.append(one)
    rows = [tuple(label(cfg, name) for name in first.table.rows) for cfg, _, _ in runs]
    titles = {one.run: one.title for one in subjects}
    places = {run: row for run, row in zip(titles, rows, strict=True)}
    overview = {
        "table": laid_out(sweep, first, places, [label_of(cfg, first) for cfg, _, _ in runs]),
        "notes": notes(sweep, first.table),
        "missing": sweep.missing,
        "marks": {row: i for i, row in enumerate(sweep.rows)},
        "look": look,
        "plots": plots({run: result["scores"] for run, (_, result, _) in zip(titles, runs, strict=True)}),
        "places": places,
        "titles": titles,
        "map": interference(runs),
        "width": WIDTH,
        "height": HEIGHT,
    }
    study = "" if first.study == "base" else f" {first.study}"
    return page(subjects, f"Sweep{study}: {len(runs)} of {sweep.runs} runs", overview)


def label_of(cfg: DictConfig, first: DictConfig) -> tuple[str, ...]:
    return tuple(label(cfg, name) for name in first.table.columns)


def look(i: int) -> tuple[str, str]:
    """The i-th row's class and mark."""
    return f"c{i % COLOURS}", MARKS[i % len(MARKS)]


def laid_out(
    sweep: Sweep, first: DictConfig, places: Mapping[str, tuple[str, ...]], columns: Sequence[tuple[str, ...]]
) -> dict[str, Any]:
    """The sweep's table: heads, and of each row its names, its cells with their marks, and its runs."""
    spec = first.table
    marks = every_mark(sweep, spec)
    better = {name: cell.better for (_, _, name), cell in sweep.cells.items() if cell.better}
    where = [(column, name) for column in sweep.columns for name in spec.cells]
    heads = [" ".join([*column, name, ARROW.get(better.get(name, ""), "")]).strip() for column, name in where]
    rows = []
    for row in sweep.rows:
        cells = [(sweep.cells.get((row, column, name)), (row, column, name)) for column, name in where]
        texts = [(cell.text() if cell else "—", marks.get(place, "")) for cell, place in cells]
        rows.append((row, texts, [run for run, at in places.items() if at == row]))
    return {"names": list(spec.rows), "heads": heads, "rows": rows}


def plots(scores: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is kept, and what is left of the rest of the erased prompts, against what is erased: a point for each run.

    Empty where nothing of it was measured.
    """
    found = []
    for name, title in ((KEPT, "kept concepts found ↑"), (CONTENT, "rest of the erased prompts found ↑")):
        points = [
            (run, each[ERASED], each[name], each[ERASED]["value"] * WIDTH, (1 - each[name]["value"]) * HEIGHT)
            for run, each in scores.items()
            if ERASED in each and name in each
        ]
        if points:
            found.append({"name": name, "title": title, "points": points})
    return found


def interference(runs: Sequence[Run]) -> dict[str, Any]:
    """Of each run and every concept that was measured in it: how often it is found after, minus before, by the first
    detector, of how many images, and whether it is what was erased. A concept that is kept and a neighbour too counts
    with the images of both.
    """
    lines: list[dict[str, tuple[float, int, bool]]] = []
    for cfg, result, _ in runs:
        prompts = build(cfg.concept, "concept").prompts(sample_of(cfg))
        measured = scores(Path(cfg.root) / result["run"], result, cfg)
        each: dict[str, list[tuple[float, bool]]] = {}
        for name in (ERASED, KEPT, NEAR):
            if name not in measured or f"{name}@base" not in measured:
                continue
            after, before = (measured[one][1].get("values", []) for one in (name, f"{name}@base"))
            for p, now, was in zip(prompts_of(prompts, name), after, before, strict=True):
                each.setdefault(p.label, []).append((now - was, name == ERASED))
        lines.append(
            {one: (statistics.mean(c for c, _ in of), len(of), any(own for _, own in of)) for one, of in each.items()}
        )
    concepts = list(dict.fromkeys(one for line in lines for one in line))
    return {
        "concepts": concepts,
        "lines": list(zip([r["run"] for _, r, _ in runs], lines, strict=True)),
        "shade": shade,
    }


def shade(change: float) -> str:
    """The class of a cell: how much was lost, or gained, in fifths."""
    fifths = math.ceil(abs(round(change, 2)) * 5)
    return f"{'l' if change < 0 else 'g'}{fifths}" if fifths else ""
