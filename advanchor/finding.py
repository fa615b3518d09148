"""The anchors of a run by themselves: found as its method would find them, and no weight of the model moves.

What the erasure would do before its first weight moves is kept, and the erasure begins there (erasing.py). An anchor's
search looks at the frozen model alone, so also one that learns in turn with the weights is found as it would end; but
between two of its steps a weight moves, so the erasure makes that search again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import DictConfig

from advanchor import stamps
from advanchor.anchors.similarity import similarity
from advanchor.anchors.slot import Slot
from advanchor.build import build
from advanchor.concept import Concept, Concepts
from advanchor.core import BadInput
from advanchor.identity import plain
from advanchor.lazy import torch
from advanchor.protocols import Anchor, Edit, Method, Model, Target
from advanchor.store import NAME, SUMS, cached, finish, named, part_of, read_json, write_json, write_tensors
from advanchor.trails import brought, clear
from advanchor.training.closeness import closeness
from advanchor.training.loop import REHEARSED, SEARCH, anchors_alone, recorded

LASTING = {"anchor.safetensors", "anchor.json", REHEARSED, "train.jsonl", NAME, SUMS}
# What an erasure does of an anchor that was found: nothing was to be learned; it begins there; it searches once more.
Then = Literal["fixed", "settled", "again"]


def found(
    cfg: DictConfig, model: Any, concept: Concept | Concepts, folder: Path, name: str, track: Callable[..., None]
) -> tuple[Path, dict[str, Any]]:
    """The anchors of this config, from the store or found now: their folder, and what is to be known of them
    (`diagnostics`, `code`, `then`).

    Args:
        folder, name: where they are kept.
        track: called with each step's number and scalars, also if another run found them.

    Raises:
        BadInput: as the method and the anchor; or the method trains in a loop of its own; or a file is damaged.
    """
    method, anchor = cast(Method, build(cfg.method, "method")), cast(Anchor, build(cfg.anchor, "anchor"))
    own = stamps.erasing(model.made_by, method, anchor)

    def make(part: Path, log: Callable[..., None]) -> None:
        if not (part / "anchor.json").exists():
            search(cfg, model, concept, method, anchor, own, part, log)
        clear(part, LASTING | {place.name for place in part.glob("anchor-*")})

    place = told(folder, name, make, track)
    return place, read_json(place / "anchor.json")


def told(
    folder: Path, name: str, make: Callable[[Path, Callable[..., None]], None], track: Callable[..., None]
) -> Path:
    """`cached`, of what is made in steps: they are tracked as they are made, or from their record if others made them.

    Args:
        make: called with the folder in the making and with what each step's number and scalars are to be given to.
        track: called with them.
    """
    live: list[int] = []

    def log_step(i: int, **scalars: float) -> None:
        live.append(i)
        track(i, **scalars)

    made = cached(folder, name, lambda part: make(part, log_step))
    if not live:
        for i, scalars in enumerate(recorded(made / "train.jsonl")):
            track(i, **scalars)
    return made


def search(
    cfg: DictConfig,
    model: Any,
    concept: Concept | Concepts,
    method: Method,
    anchor: Anchor,
    own: str,
    part: Path,
    log: Callable[..., None],
) -> None:
    """Find the anchors, and write them and what is to be known of them; a killed search is gone on with."""
    begun = part / "begun"
    fresh, start = not begun.exists(), time.monotonic()
    if fresh:
        clear(part)
        begun.write_text(own)
    targets = started(model, concept, anchor, cfg.seed)
    edit: Edit = {}
    if any(target.state() for target in targets):  # words and closed forms are what they are
        with anchors_alone():
            edit = method.erase(model, targets, cfg.seed, part, log)
    if edit:
        why = f"method={cfg.method.name} trains in a loop of its own, which cannot be stopped before its first weight"
        raise BadInput(f"{why}: leave stage=anchor out, or take an anchor that does not learn.")
    settled = (part / REHEARSED).exists() or any(part.glob("anchor-*"))
    then: Then = "settled" if settled else "again" if (part / SEARCH).exists() else "fixed"
    seconds = time.monotonic() - start if fresh else None  # of a resumed search only a part was seen
    diagnostics = described(model, targets, part)
    if seconds is not None:
        diagnostics["cost/seconds"] = seconds
    write_tensors(part / "anchor.safetensors", conditions(targets))
    for record in part.rglob("train.jsonl"):  # it has grown to its end, and can be checked from now on
        part_of(record).write_bytes(record.read_bytes())
        finish(record)
    before = begun.read_text()
    about = {
        "diagnostics": diagnostics,
        "code": own if before == own else f"{before} and {own}",
        "made_by": maker(model, own),
        "seconds": seconds,
        "then": then,
        "config": plain({group: cfg[group] for group in ("model", "concept", "anchor", "method", "seed")}),
    }
    write_json(part / "anchor.json", about)


def started(model: Model, concept: Concept | Concepts, anchor: Anchor, seed: int) -> list[Target]:
    """An anchor at work on each of the concepts.

    Raises:
        BadInput: as the anchor; or a concept's name is not found in one of its templates.
    """
    for one in concept.parts:  # which is refused before anything is learned
        Slot(model, one).spans(one.templates)
    return [anchor.start(model, one, seed) for one in concept.parts]


def described(model: Model, targets: list[Target], folder: Path) -> dict[str, float]:
    """How close finished anchors are to their concepts, and what their searches report: means over the concepts."""
    each = [{**similarity(model, target), **closeness(model, target, folder), **target.report()} for target in targets]
    means = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
    return {name: value for name, value in means.items() if math.isfinite(value)}  # nobody trained: no loss


def conditions(targets: list[Target]) -> dict[str, Any]:
    """Finished anchors as tensors: a condition for each of a concept's templates."""
    return {target.concept.name: target.condition(target.concept.templates) for target in targets}


def maker(model: Any, own: str) -> list[str]:
    """The code, device and library that find anchors: what another has found is not gone on from."""
    return [own, str(model.device.type), str(torch.__version__)]


def fetch(place: Path, part: Path, model: Any, own: str) -> dict[str, Any] | None:
    """Copy what was done before the first weight of an erasure into its folder, which is empty.

    Args:
        place: where the anchors would be.

    Returns:
        What is known of it: `seconds` that it took (null: not known). None if there is nothing to begin from.

    Raises:
        BadInput: it is damaged.
    """
    if not (place / "anchor.json").exists():
        return None
    named(place, place.name)
    about: dict[str, Any] = read_json(place / "anchor.json")
    if about["then"] != "settled" or about["made_by"] != maker(model, own) or about["code"] != own:
        return None
    brought(place, part)
    return about
