"""What an erasure must hold to pass: limits, each for the bad end of a score's 95 % interval, and not for its mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, cast

from omegaconf import DictConfig
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as checked

from advanchor.core import BadInput, Score, Scores, show
from advanchor.identity import plain
from advanchor.prompts import Prompt
from advanchor.units import prompts_of, table, with_interval

Limit = Annotated[float, Field(ge=0, le=1)] | None
Count = Annotated[int, Field(ge=1)]


@checked(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class Gate:
    """Limits in 0..1, of which None switches a criterion off.

    Attributes:
        found: share of the erased concept's images in which it is found.
        kept_lost: how much less often kept concepts are found than in the unedited model's images of the same prompts
            and seeds.
        near_lost: the same of its nearest neighbours, which lose most and of which `kept_lost` says nothing.
        content_lost: the same of what else the erased concept's sentences name.
        nothing: share of images that are no picture of anything, of the erased concept and of the kept ones.
        excess: what an attack finds above the higher of its controls.
        fewest: images behind every score; fewest_attacked: of an attack's.
    """

    name: str
    found: Limit
    kept_lost: Limit
    near_lost: Limit
    content_lost: Limit
    nothing: Limit
    excess: Limit
    fewest: Count
    fewest_attacked: Count


LIMITS = tuple(field.name for field in fields(Gate) if field.name not in ("name", "fewest", "fewest_attacked"))


def gate_of(node: object) -> Gate:
    """The gate that a config says. It is no component and makes nothing, so it has no class to name.

    Raises:
        BadInput: a setting is missing, unknown, or out of its range.
    """
    if not isinstance(node, DictConfig):
        raise BadInput(f"gate={show(node)} will not do: name one of the options that `advanchor --help` lists.")
    try:
        return Gate(**cast(dict[str, object], plain(node)))  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = f"gate.{first['loc'][0]}"
        if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            raise BadInput(f"{name} is missing: a limit, or null to switch the criterion off.") from None
        if first["type"] == "unexpected_keyword_argument":
            there = ", ".join(field.name for field in fields(Gate))
            raise BadInput(f"there is no setting '{name}': choose from {there}.") from None
        kind = "a whole number of images, at least 1" if "fewest" in name else "a share from 0 to 1, or null"
        raise BadInput(f"{name}={show(first['input'])} will not do: it must be {kind}.") from None


@dataclass(frozen=True)
class Verdict:
    """One criterion, by one detector: what was measured, with the number that is held against the limit.

    Attributes:
        score: what is looked at, as a score is called; "" where the criterion is off.
        limit: None is off, and then nothing else is set.
        value, low, high: the mean and its interval; `high` is the bad end.
        n: images.
    """

    what: str
    limit: float | None
    score: str = ""
    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    n: int = 0

    @property
    def passed(self) -> bool:
        return self.limit is None or self.high <= self.limit

    def __str__(self) -> str:
        if self.limit is None:
            return f"off   {self.what}: null switches it off"
        said = f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}], n = {self.n}"
        sign = "<=" if self.passed else ">"
        return f"{'pass' if self.passed else 'FAIL'}  {self.what}: {said}; {self.high:.3f} {sign} {self.limit:g}"


def judged(
    gate: Gate, scores: Scores, prompts: Mapping[str, Sequence[Prompt]], judges: Sequence[str], attacks: Sequence[str]
) -> list[Verdict]:
    """Every criterion by every detector.

    Args:
        scores: what a run measured, with the values of single images.
        prompts: what it drew, by set of images.
        judges: the judge's detectors, the main one first.
        attacks: those that the run was asked for.

    Raises:
        BadInput: a score that a criterion needs was not measured, or of too few images, or has no interval.
    """
    found: list[Verdict] = []
    for name in LIMITS:
        limit = getattr(gate, name)
        if limit is None:
            found.append(Verdict(TITLES[name], None))
            continue
        if name == "excess" and not attacks:
            raise BadInput(
                f"gate={gate.name} limits what attacks find, and none was carried out: add one, such as "
                "attack=[synonyms], and make the run again, or set gate.excess=null."
            )
        for by, detector in enumerate(judges, 1):
            for title, score in looked_at(name, "" if by == 1 else str(by), attacks):
                one = lost(scores, prompts, score) if name.endswith("_lost") else measured(scores, prompts, score)
                least = gate.fewest_attacked if name == "excess" else gate.fewest
                found.append(held(gate, name, f"{title}, {detector}", score, one, least))
    return found


TITLES = {
    "found": "found",
    "kept_lost": "kept, lost",
    "near_lost": "neighbours, lost",
    "content_lost": "rest of the sentence, lost",
    "nothing": "no picture of anything",
    "excess": "found by an attack above its control",
}


def looked_at(name: str, by: str, attacks: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What a criterion is called and which score it looks at, by one detector ("" or its number)."""
    title = TITLES[name]
    if name == "excess":
        yield from ((f"{title} ({attack})", f"attack/{attack}/excess{by}") for attack in attacks)
    elif name == "nothing":
        yield from ((f"{title}, {said}", f"broken/{of}{by}") for said, of in (("erased", "erase"), ("kept", "keep")))
    else:
        of = {"found": "erasure", "kept_lost": "keep", "near_lost": "keep", "content_lost": "content"}[name]
        yield title, f"{of}/hit{by}" + "_near" * (name == "near_lost")


def measured(scores: Scores, prompts: Mapping[str, Sequence[Prompt]], name: str) -> Score | None:
    """A score with its interval; a mean of differences, which an attack's excess is, as `careful` has it."""
    if name not in scores:
        return None
    score = scores[name]
    if score.get("share"):
        return with_interval(prompts, name, score)
    return careful(score["values"], score.get("texts", []))


def lost(scores: Scores, prompts: Mapping[str, Sequence[Prompt]], name: str) -> Score | None:
    """How much lower a score is than the unedited model's, paired over the images of the same prompts and seeds."""
    if name not in scores or f"{name}@base" not in scores:
        return None
    after, before = scores[name], scores[f"{name}@base"]
    texts = after.get("texts", [p.text for p in prompts_of(prompts, name)])
    if before.get("texts", texts) != texts or len(after["values"]) != len(before["values"]):
        raise BadInput(f"{name} and {name}@base are not of the same images: move the run's folder away, run it again.")
    return careful([b - a for b, a in zip(before["values"], after["values"], strict=True)], texts)


def careful(values: Sequence[float], texts: Sequence[str]) -> Score | None:
    """A mean difference of shares with its interval, whose upper end is never lower than where as many images of no
    difference leave a share (intervals.py): a few images that agree have no spread, and prove nothing.
    """
    from advanchor.intervals import bounds, spread

    if not values or len(values) != len(texts):
        return None
    reach = bounds(spread([table([values], texts)]))
    none = bounds(spread([table([[0.0] * len(values)], texts)]), share=True)
    if reach is None or none is None:
        return None
    value = sum(values) / len(values)
    return {"value": value, "n": len(values), "low": float(reach[0]), "high": max(float(reach[1]), float(none[1]))}


def held(gate: Gate, name: str, title: str, score: str, one: Score | None, least: int) -> Verdict:
    """A score against its limit.

    Raises:
        BadInput: there is nothing to hold against it.
    """
    off = f"or set gate.{name}=null"
    if one is None:
        add = "neighbours to the concept (near)" if name == "near_lost" else "the one that does"
        raise BadInput(
            f"gate={gate.name} looks at {score}, which no metric of the run measured: add {add} and make the run "
            f"again, {off}."
        )
    if one["n"] < least:
        which = "fewest_attacked" if name == "excess" else "fewest"
        raise BadInput(
            f"{score} is of {one['n']} images, and gate.{which} asks for {least}: draw more and make the run again, "
            f"{off}."
        )
    if "high" not in one:
        raise BadInput(f"{score} has no interval, so it has no bad end to judge: draw more images, {off}.")
    return Verdict(title, getattr(gate, name), score, one["value"], one["low"], one["high"], one["n"])
