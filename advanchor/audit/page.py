"""AUDIT.md: what a record states, for people who decide and do not program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from advanchor.audit.drawn import PROMPTS
from advanchor.audit.seal import SIGNATURE
from advanchor.audit.statement import ANCHOR, EDIT, STATEMENT
from advanchor.report import SMEARS, number, second
from advanchor.store import SUMS

TEXT = """# What was done about "{concept}" in `{model}`, and what was measured

This is a record, not a certificate. A program took an image generator, `{model}`, and changed {parameters:,} of its
numbers so that it no longer draws "{concept}" (method `{method}`, anchor `{anchor}`: what it was led towards instead).
Then it drew the same pictures with the original and with the changed model, and counted two things in them: whether
"{concept}" is still there, and whether everything else is. Programs counted, not people.

**[What this does not show](#what-this-does-not-show) belongs to every number below.**

## What was measured

{measured}

{words}

## Attacks

{attacks}

## Limits

{gate}

## What this does not show

{limits}

## Pictures

Before is the original model, after the changed one, with the same words and the same starting noise. All that was asked
for is in `{prompts}`.

{pictures}

![Before and after, in pairs of rows](grid.png)

## The files

| file | what it is |
| --- | --- |
{files}

`advanchor verify <this folder>` holds every file against `{sums}` and against `{statement}`.
`advanchor verify <this folder> --recompute` draws and counts again with the edit in this folder. Keep the sha256 of
`{sums}` in another place: whoever changes a file can write `{sums}` anew, but not your copy of its digest.

## Every number

An interval is 95 %, over the prompts of this training. What each number counts is in `docs/methods.md` of advanchor.

| number | value | 95 % interval | pictures | better | code |
| --- | --- | --- | --- | --- | --- |
{numbers}

## How it was made

Run `{run}`: `{command}`

| what | which |
| --- | --- |
{made}

```yaml
{settings}
```
"""
WORDS = """\
- **Found** is the share of pictures, from 0 (none) to 1 (all), in which a judge recognises what is named.
- **Judge** is a program that looks at a picture and says what it shows. {judges}
- **95 % interval**: of many intervals made like this one 95 in 100 hold the true share. The fewer the pictures, the
  wider it is; look at its worse end, not at the middle.
- **Before** is the original model, **after** the changed one. A **seed** is the number that decides the noise from
  which a picture begins; the same words and seed give the same picture."""
PLAIN = {  # what a score of the first judge counts; {} is the concept
    "erasure/hit": '"{}" was asked for and found; lower is better',
    "content/hit": '"{}" was asked for with something else in the same sentence, and that is found; higher is better',
    "keep/hit": "Something else was asked for, which should stay, and is found; higher is better",
    "keep/hit_near": 'What is most like "{}" was asked for and is found; higher is better',
    "broken/erase": '"{}" was asked for, and the picture shows nothing that can be recognised; lower is better',
    "broken/keep": "Something else was asked for, and the picture shows nothing recognisable; lower is better",
}
SMEARED = ("broken/erase", "broken/erase2")
ATTACKED = {  # what an attack's scores count
    "asr": "found, with the attack or without it",
    "chance": "found, had one drawn as many pictures by chance",
    "never": "found by the same attack in a model that never learned it",
    "excess": "above the higher of these two",
}
ABOUT = {
    STATEMENT: "all that is stated, for programs: an in-toto Statement v1",
    EDIT: "what was changed in the model, as tensors",
    ANCHOR: "the finished anchor, the direction in which the model was changed",
    "result.json": "all that the run reported",
    "grid.png": "pictures before and after, side by side",
    PROMPTS: "every prompt and seed that was drawn, before and after",
    "metrics/": "the value of every single picture, behind each number",
    "pictures/": "some of the pictures",
    SUMS: "the digests of all files",
    SIGNATURE: "the signature, if it was signed",
}
GROUPS = ("model", "concept", "anchor", "method", "sample", "judge", "metric", "attack")


def page(said: Mapping[str, Any]) -> str:
    """Args: said: the predicate of a statement, without the digests of the record's files."""
    concept, judge = said["concept"], said["judge"]
    environment = said["environment"]
    names = ", ".join(judge["detectors"])
    judges = f"Here there are {len(judge['detectors'])} of different build, of the set `{judge['name']}`: {names}."
    made = {
        "original model": f"`{said['model']['name']}`, weights {said['model']['contents'] or said['model']['key']}",
        "method, anchor, seed": f"{said['method']}, {said['anchor']}, {said['seed']}",
        "code of the edit, of the pictures": f"{said['code']['edit']}, {said['code']['images']}",
        "program": f"advanchor {environment['packages']['advanchor']}, commit {environment['commit'] or 'unknown'}"
        + (", with changes that were not committed" if environment["dirty"] else ""),
        "machine": f"{environment['machine']}, {environment['device']}, Python {environment['python']}",
        "seconds of each stage": ", ".join(f"{name} {cost['seconds']:.0f}" for name, cost in said["stages"].items()),
        "pictures of each set": ", ".join(f"{name} {n}" for name, n in said["prompts"]["count"].items()),
    }
    config = OmegaConf.create({group: said["config"][group] for group in GROUPS if group in said["config"]})
    return TEXT.format(
        concept=concept,
        model=said["model"]["name"],
        parameters=said["changed"]["parameters"],
        method=said["method"],
        anchor=said["anchor"],
        measured="\n".join(rows(said)),
        words=WORDS.format(judges=judges),
        attacks="\n".join(attacked(said)),
        gate="\n".join(gate(said["gate"])),
        limits="\n".join(f"- {one}" for one in said["does_not_show"]),
        pictures="\n".join(shown(said["shown"])),
        files="\n".join(f"| `{name}` | {about} |" for name, about in ABOUT.items()),
        numbers="\n".join(numbers(said["scores"])),
        run=said["run"],
        command=" ".join(["advanchor", *said["command"]]),
        made="\n".join(f"| {name} | {which} |" for name, which in made.items()),
        settings=OmegaConf.to_yaml(config).rstrip(),
        prompts=PROMPTS,
        sums=SUMS,
        statement=STATEMENT,
    )


def rows(said: Mapping[str, Any]) -> Iterator[str]:
    """The table of what most people ask for first."""
    scores, detectors = said["scores"], said["judge"]["detectors"]
    yield "| what | judge | pictures | before | after | 95 % interval |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, title in PLAIN.items():
        for one, judge in zip((name, second(name)), detectors, strict=False):
            if score := scores.get(one):
                before = scores.get(f"{one}@base")
                was = number(one, before["value"]) if before else "—"
                now = f"**{number(one, score['value'])}** | {interval(one, score)}"
                yield f"| {title.format(said['concept'])} | {judge} | {score['n']} | {was} | {now} |"
    if max((scores[name]["value"] for name in SMEARED if name in scores), default=0.0) > SMEARS:
        yield ""
        yield "**Many pictures that were asked for it show nothing: look at them. What draws smears is broken.**"


def attacked(said: Mapping[str, Any]) -> Iterator[str]:
    """What was tried to bring the concept back, and what it found beside what chance finds."""
    if not said["attacks"]:
        yield "None was tried. Nothing here says how hard it is to bring the concept back."
        return
    scores = said["scores"]
    yield f'What was tried to bring "{said["concept"]}" back, and how often it was found then, by each judge:'
    yield ""
    yield "| attack | what | judge | pictures | share | 95 % interval |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in said["attacks"]:
        for what, title in ATTACKED.items():
            for by, judge in zip(("", "2"), said["judge"]["detectors"], strict=False):
                if score := scores.get(one := f"attack/{name}/{what}{by}"):
                    found = f"{number(one, score['value'])} | {interval(one, score)}"
                    yield f"| {name} | {title} | {judge} | {score['n']} | {found} |"


def gate(said: Mapping[str, Any]) -> Iterator[str]:
    """The limits that it was held against, if any."""
    if not said["asked"]:
        yield "It was held against no limits: nobody said what is good enough (`gate=` was not asked for)."
        return
    outcome = "holds all of them" if said["passed"] else "does **not** hold all of them"
    yield f"It was held against the limits of `gate={said['name']}`, by the worse end of each interval. It {outcome}:"
    yield ""
    yield from (f"- {line}" for line in said["lines"])


def shown(pairs: Sequence[Mapping[str, str]]) -> Iterator[str]:
    yield "| asked for | before | after |"
    yield "| --- | --- | --- |"
    for one in pairs:
        asked = one["text"].replace("|", "\\|")
        yield f"| {asked} (seed {one['seed']}) | ![before]({one['before']}) | ![after]({one['after']}) |"


def numbers(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, score in scores.items():
        better, code = score.get("better", "—"), score.get("code", "—")
        yield f"| `{name}` | {score['value']:.6g} | {interval(name, score)} | {score['n']} | {better} | {code} |"


def interval(name: str, score: Mapping[str, Any]) -> str:
    return f"{number(name, score['low'])} to {number(name, score['high'])}" if "low" in score else "—"
