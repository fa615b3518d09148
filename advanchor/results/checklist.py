"""A reproducibility checklist of a sweep, filled from its runs: yes, no or not asked, each with its number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

from advanchor.build import build
from advanchor.protocols import Judge
from advanchor.report import missing as unmeasured
from advanchor.results.collection import Finished
from advanchor.results.forms import clean, laid

YES, NO, NOT_ASKED = "yes", "no", "not asked"
Line = tuple[str, str, str]  # what, its answer, the number behind it


def checklist(runs: Sequence[Finished], missing: Sequence[str]) -> str:
    """As Markdown.

    Args:
        missing: the commands of the runs that are not there.
    """
    groups = {
        "Runs": there(runs, missing),
        "Code and machine": made(runs),
        "Chance": chance(runs),
        "What was measured": measured(runs),
        "Cost": cost(runs),
    }
    page = ["# Checklist", "Filled from the runs; *no* is a no, and *not asked* was not part of the command."]
    for title, lines in groups.items():
        cells = [[clean("markdown", text) for text in line] for line in lines]
        page += [f"## {title}", laid("markdown", ["", "", "number"], cells, 1)]
    return "\n\n".join(page) + "\n"


def there(runs: Sequence[Finished], missing: Sequence[str]) -> list[Line]:
    known = [one for one in runs if one.result["cut"]]
    lines = [
        line("Every run of the sweep is finished", not missing, f"{len(runs)} of {len(runs) + len(missing)} runs"),
        ("Erasures", YES, f"{len({one.result['artifacts']['edit'] for one in runs})} in {len(runs)} runs"),
        ("Images", YES, images(runs)),
        line("No prompt is cut off by the text encoder", not known, f"{len(known)} of {len(runs)} runs have such"),
    ]
    return lines + [("Missing run", NO, one) for one in missing]


def images(runs: Sequence[Finished]) -> str:
    """How many of erase, keep and near were drawn: runs may share them, those of the unedited model above all."""
    found: dict[str, set[tuple[str, str, int]]] = {"samples": set(), "samples@base": set()}
    for one in runs:
        for which, drawn in found.items():
            place = one.result["artifacts"][which]
            drawn |= {(place, p.text, p.seed) for prompts in one.prompts.values() for p in prompts}
    edited, unedited = (len(drawn) for drawn in found.values())
    return f"{edited} of edited models, {unedited} of the unedited one; more in prompts.csv"


def made(runs: Sequence[Finished]) -> list[Line]:
    """One code, one set of versions and one machine, or which there are."""
    environments = [one.result["environment"] for one in runs]
    dirty = sum(env["dirty"] for env in environments)
    lines = [
        single("One commit for all runs", (str(env["commit"]) for env in environments)),
        line("The commit is known and nothing was changed beside it", not dirty and all(
            env["commit"] for env in environments), f"{dirty} of {len(runs)} runs with changed files"),
    ]  # fmt: skip
    for stage in dict.fromkeys(stage for one in runs for stage in one.result["provenance"]):
        of: dict[str, list[str]] = {}  # a method has its own sources, and so have an anchor and a model
        for one in runs:
            config, digest = one.result["config"], one.result["provenance"].get(stage)
            parts = ("model", "method", "anchor") if stage == "edit" else ("model",)
            of.setdefault(" + ".join(config[part]["name"] for part in parts), []).append(str(digest))
        lines += [single(f"One code of {stage}: {name}", digests) for name, digests in of.items()]
    for name in dict.fromkeys(name for one in runs for name in one.codes):
        lines.append(single(f"One code of scores: {name}", (one.codes.get(name, "not measured") for one in runs)))
    lines.append(single("One set of weights", (one.result["weights"] for one in runs)))
    lines.append(
        single("One judge", (f"{one.result['config']['judge']['name']} {one.result['judge']}" for one in runs))
    )
    for name in environments[0]["packages"]:
        lines.append(single(f"One version of {name}", (env["packages"][name] for env in environments)))
    lines.append(single("One version of Python", (env["python"] for env in environments)))
    lines.append(single("One machine", (f"{env['machine']}, {env['device']}" for env in environments)))
    lines.append(("The processor or GPU is recorded", NO, "runs keep the platform and the kind of device alone"))
    return lines


def chance(runs: Sequence[Finished]) -> list[Line]:
    each: dict[tuple[str, ...], set[int]] = {}
    for one in runs:
        each.setdefault(one.row, set()).add(one.result["config"]["seed"])
    several = sum(len(seeds) > 1 for seeds in each.values())
    counts = " or ".join(map(str, sorted({len(seeds) for seeds in each.values()})))
    every = [score for one in runs for score in one.result["scores"].values()]
    bounded = sum("low" in score for score in every)
    halves = Counter(one.result["config"]["sample"]["half"] for one in runs)
    reported = ", ".join(f"sample.half={half} in {n} runs" for half, n in halves.items())
    return [
        line("Several seeds of every row", several == len(each), f"{counts} in {len(each)} rows"),
        single("The same seeds in every row", (" ".join(map(str, sorted(seeds))) for seeds in each.values())),
        line("Every score has an interval", bounded == len(every), f"{bounded} of {len(every)} scores"),
        line("Reported on prompts that no setting was chosen on", set(halves) == {"report"}, reported),
    ]


def measured(runs: Sequence[Finished]) -> list[Line]:
    """What was looked at, by whom, and what was not."""
    judge = cast(Judge, build(runs[0].cfg.judge, "judge"))
    blank = sum(bool(one.result["unmeasured"]) for one in runs)
    lines = [
        line("A judge looked at every run", not blank, f"{len(runs) - blank} of {len(runs)} runs"),
        line("A second judge looked", len(judge.judges) > 1, f"{len(judge.judges)}: {', '.join(judge.judges)}"),
    ]
    wanted = {
        "The erased concept": "erasure/hit",
        "The rest of the erased prompts": "content/hit",
        "Kept concepts": "keep/hit",
        "The nearest neighbours": "keep/hit_near",
        "Pictures of nothing": "broken/erase",
        "A distance to the unedited model's images": "fid/keep",
    }
    for title, name in wanted.items():
        counts = [one.result["scores"][name]["n"] for one in runs if name in one.result["scores"]]
        asked = any(name.split("/")[0] in one.codes for one in runs) or name.startswith("keep/")
        answer = YES if len(counts) == len(runs) else NO if counts or asked else NOT_ASKED
        lines.append((title, answer, f"{name} in {len(counts)} of {len(runs)} runs{count(counts)}"))
    attacks = dict.fromkeys(name for one in runs for name in one.result["config"].get("attack", {}))
    if not attacks:
        lines.append(("Is it really gone? An attack", NOT_ASKED, "0 attacks"))
    for name in attacks:
        found = [one.result["scores"].get(f"attack/{name}/excess") for one in runs]
        counts = [score["n"] for score in found if score]
        answer = YES if len(counts) == len(runs) else NO
        lines.append((f"Attack: {name}", answer, f"{len(counts)} of {len(runs)} runs{count(counts)}, beside chance"))
        never = [f"attack/{name}/never" in one.result["scores"] for one in runs]
        answer = YES if all(never) else NO if any(never) else NOT_ASKED
        lines.append((f"Attack: {name}, beside a model that never knew", answer, f"{sum(never)} of {len(runs)} runs"))
    for said in dict.fromkeys(said for one in runs for said in lacking(one.result)):
        lines.append(("Not measured", NO, said))
    return lines


def lacking(result: dict[str, Any]) -> list[str]:
    """What was asked for and could not be measured."""
    if result["unmeasured"]:
        return [result["unmeasured"]]
    return unmeasured(result["scores"], result["config"].get("metric", {}), result["config"]["judge"]["name"])


def cost(runs: Sequence[Finished]) -> list[Line]:
    """What each run of its own took: what it found in the store is in the run that made it."""
    stages: dict[str, float] = {}
    for one in runs:
        for name, spent in one.result["stages"].items():
            stages[name] = stages.get(name, 0.0) + spent["seconds"]
    peak = max((spent["peak_mb"] for one in runs for spent in one.result["stages"].values()), default=0.0)
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in stages.items())
    shared = [one.result["diagnostics"].get("cost/steps_shared", 0) for one in runs]
    return [
        ("Wall-clock time", YES, f"{sum(stages.values()):.0f} s in all: {spent}"),
        ("Peak memory of a stage", YES, f"{peak:.0f} MB"),
        line("Every training was made by itself", not any(shared), f"{sum(shared):.0f} steps made by shorter ones"),
    ]


def line(what: str, holds: bool, number: str) -> Line:
    return what, YES if holds else NO, number


def single(what: str, values: Iterable[str]) -> Line:
    """Is there one value? Of several how many runs have each."""
    each = Counter(values)
    number = next(iter(each)) if len(each) == 1 else ", ".join(f"{value} ({n})" for value, n in each.items())
    return line(what, len(each) == 1, number)


def count(counts: Sequence[int]) -> str:
    """Of how many images."""
    return f", n = {' or '.join(map(str, sorted({*counts})))}" if counts else ""
