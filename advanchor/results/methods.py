"""What a paper's section on methods says of a sweep: every setting of every row, read off the configs of its runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, cast

from advanchor.build import build
from advanchor.intervals import ALIKE, LEVEL
from advanchor.protocols import Judge
from advanchor.results.collection import Finished
from advanchor.results.forms import clean, floating, laid
from advanchor.units import FEWEST

# What of a config decides a number, or may round it; a concept's own settings are a table.
DECIDING = ("seed", "model", "anchor", "method", "sample", "judge", "metric", "attack", "lean", "batch")
SETS = {"erase": "erased", "keep": "kept", "near": "neighbours"}
HALVES = {
    "all": "all prompts of each concept",
    "choose": "every second prompt of each concept, those to choose settings on",
    "report": "every second prompt of each concept, those to report on, with seeds that nothing was chosen on",
}
SENTENCES = (
    "All sentences that are drawn are in prompts.csv, those that are erased with in results.json (config.concept)."
)
TITLES = {"markdown": "# {}", "latex": "\\subsection*{{{}}}"}
Settings = dict[str, tuple[str, ...]]  # name -> every value that it has, in the order of the runs


def methods(runs: Sequence[Finished], form: str) -> str:
    """The section, in markdown or latex (for booktabs)."""
    each = by_row(runs)
    common, differing = apart(each)
    halves = either(HALVES[one.result["config"]["sample"]["half"]] for one in runs)
    images = (
        f"The model is {told(runs, 'model')} (digest of its settings and weights: {of(runs, 'weights')}). Sampling "
        f"steps: {told(runs, 'sample.steps')}; sampler: {sampler(told(runs, 'sample.scheduler'))}; guidance: "
        f"{told(runs, 'sample.guidance')}. Images of each prompt: {told(runs, 'sample.erase')} of the erased concept, "
        f"{told(runs, 'sample.keep')} of kept ones, {told(runs, 'sample.near')} of the nearest neighbours; drawn are "
        f"{halves}. The unedited model draws the same prompts and seeds."
    )
    edits = len({one.result["artifacts"]["edit"] for one in runs})
    erasing = [f"{edits} erasures are behind {len(runs)} runs; seeds: {listed(seeds(runs))}."]
    erasing += [f"The {group} in all rows: {said}." for group, said in settings(common).items()]
    parts: dict[str, list[str]] = {
        "Model and images": [clean(form, images)],
        "Concepts": [concepts(runs, form)],
        "Settings": [clean(form, one) for one in erasing] + ([differences(each, differing, form)] if differing else []),
        "Measuring": [clean(form, one) for one in measured(runs)],
        "Intervals": [clean(form, INTERVALS)],
        "Code": [clean(form, code(runs))],
    }
    return "\n\n".join("\n\n".join([TITLES[form].format(title), *part]) for title, part in parts.items()) + "\n"


INTERVALS = (
    f"Intervals are at {100 * (1 - LEVEL):g} %. Of several seeds they are over seeds and prompts, which are crossed: "
    "the two variances are added, each with a Student's t of its own degrees of freedom. Of one seed they are over the "
    f"prompts of that one training, or over its images where there are fewer than {FEWEST} prompts, and say nothing of "
    "other trainings. The interval of a share is Wilson's with the number of independent images that gives the same "
    f"half width; images of one prompt count as alike with a correlation of at least {ALIKE}. Marked in a table is a "
    "row that is ahead of every other by the paired differences, at "
    f"{100 * LEVEL:g} % for all comparisons together (Holm)."
)


def flat(value: Any, name: str) -> dict[str, str]:
    """A config as its settings by dotted name; the option that a group chose has the group's."""
    if isinstance(value, dict) and value:
        return {dotted: text for key, one in value.items() for dotted, text in flat(one, f"{name}.{key}").items()}
    if isinstance(value, str) and value.strip() == value != "":
        return {name.removesuffix(".name"): value}
    empty = isinstance(value, dict) or value is None
    return {name.removesuffix(".name"): "none" if empty else json.dumps(value, ensure_ascii=False)}


def deciding(one: Finished) -> dict[str, str]:
    config = one.result["config"]
    return {name: text for group in DECIDING for name, text in flat(config.get(group), group).items()}


def by_row(runs: Sequence[Finished]) -> dict[str, Settings]:
    """Of each row of the table every value of every setting that its runs have."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for one in runs:
        row = found.setdefault(" / ".join(one.row), {})
        for name, text in deciding(one).items():
            row.setdefault(name, {})[text] = None
    return {row: {name: tuple(values) for name, values in each.items()} for row, each in found.items()}


def apart(each: dict[str, Settings]) -> tuple[Settings, list[str]]:
    """The settings that all rows share, and the names of the others."""
    names = dict.fromkeys(name for row in each.values() for name in row)
    values = {name: {row.get(name, ()) for row in each.values()} for name in names}
    return {name: next(iter(v)) for name, v in values.items() if len(v) == 1}, [n for n in names if len(values[n]) > 1]


def told(runs: Sequence[Finished], name: str) -> str:
    """Every value of a setting."""
    return either(deciding(one).get(name, "none") for one in runs)


def of(runs: Sequence[Finished], name: str) -> str:
    """Every value of what a result says of itself."""
    return either(str(one.result[name]) for one in runs)


def either(values: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(values))


def listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def settings(common: Settings) -> dict[str, str]:
    """Of each group that they are settings of, all in one line."""
    groups: dict[str, list[str]] = {}
    for name, values in common.items():
        group, _, leaf = name.partition(".")
        said = either(values)
        groups.setdefault(group, []).append(f"{leaf} = {said}" if leaf not in ("", said) else said)
    return {group: "; ".join(said) for group, said in groups.items() if group != "seed"}


def seeds(runs: Sequence[Finished]) -> list[str]:
    return [*dict.fromkeys(str(one.result["config"]["seed"]) for one in runs)]


def sampler(scheduler: str) -> str:
    return {"own": "the model's own sampler"}.get(scheduler, scheduler)


def concepts(runs: Sequence[Finished], form: str) -> str:
    """A table of what is erased, and how many prompts and images it is measured on."""
    heads = ["concept", "kind", "phrase", "superclass", *(f"{said}: prompts / images" for said in SETS.values())]
    lines = []
    for one in {json.dumps(one.result["config"]["concept"]): one for one in runs}.values():
        concept = one.result["config"]["concept"]
        for part in concept.get("several", {"": concept}).values():
            own = {**one.prompts, "erase": [p for p in one.prompts["erase"] if p.label == part["name"]]}
            counts = [f"{len({p.text for p in own[name]})} / {len(own[name])}" for name in SETS]
            named = part["name"] if part is concept else f"{concept['name']}: {part['name']}"
            lines.append([named, part["kind"], part["phrase"], part["superclass"], *counts])
    table = laid(form, [clean(form, head) for head in heads], [[clean(form, text) for text in x] for x in lines], 4)
    return floating(form, table, clean(form, f"What is erased, and on how many prompts and images. {SENTENCES}"))


def differences(each: dict[str, Settings], names: Sequence[str], form: str) -> str:
    """A table of the settings that differ between rows. The longer side goes down the page."""
    lines = [[row, *(either(found.get(name, ("—",))) for name in names)] for row, found in each.items()]
    lines = [["", *names], *lines]
    if len(names) > len(each):
        lines = [list(line) for line in zip(*lines, strict=True)]
    heads, *rest = [[clean(form, text) for text in line] for line in lines]
    return floating(form, laid(form, heads, rest, len(heads)), clean(form, "The settings that differ between rows."))


def measured(runs: Sequence[Finished]) -> list[str]:
    """Who looked at the images, through what, and which code."""
    judge = cast(Judge, build(runs[0].cfg.judge, "judge"))
    extractors = dict.fromkeys(
        s["extractor"] for one in runs for s in one.result["scores"].values() if "extractor" in s
    )
    codes: dict[str, dict[str, None]] = {}
    for one in runs:
        for name, digest in one.codes.items():
            codes.setdefault(name, {})[digest] = None
    said = [
        f"The judge is {told(runs, 'judge')}, version {told(runs, 'judge.version')}, with the detectors "
        f"{listed(judge.judges)}, the first of which gives every score whose name has no 2; digest of its settings: "
        f"{of(runs, 'judge')}. Extractors of distances: {listed(extractors) or 'none was used'}.",
        "What made the scores of each metric (a digest of its sources, the judge's and the judge's weights): "
        f"{listed(f'{name} {either(each)}' for name, each in codes.items()) or 'none'}.",
    ]
    attacks = dict.fromkeys(name for one in runs for name in one.result["config"].get("attack", {}))
    return [*said, f"Attacks: {listed(attacks) or 'none was asked for'}."]


def code(runs: Sequence[Finished]) -> str:
    """What the runs were made by."""
    environments = [one.result["environment"] for one in runs]
    packages = {name: either(env["packages"][name] for env in environments) for name in environments[0]["packages"]}
    stages = dict.fromkeys(stage for one in runs for stage in one.result["provenance"])
    made = (f"{s} {either(one.result['provenance'].get(s, 'none') for one in runs)}" for s in stages)
    return (
        f"Code: commit {either(env['commit'] or 'unknown' for env in environments)}; digests of the sources of each "
        f"stage: {listed(made)}. Python {either(env['python'] for env in environments)}, "
        f"{listed(f'{name} {number}' for name, number in packages.items())}, on "
        f"{either(env['device'] for env in environments)} of {either(env['machine'] for env in environments)}."
    )
