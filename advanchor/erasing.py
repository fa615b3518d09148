"""The edit of a run: made once for all runs that differ only in how they look at it, resumed after a kill."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from advanchor import stamps
from advanchor.anchors.similarity import similarity
from advanchor.anchors.slot import Slot
from advanchor.build import build
from advanchor.concept import Concept, Concepts
from advanchor.identity import plain
from advanchor.lazy import torch
from advanchor.protocols import Anchor, Edit, Method
from advanchor.store import SUMS, cached, read_json, read_tensors, write_json, write_tensors
from advanchor.trails import END, Trail
from advanchor.training.closeness import closeness
from advanchor.training.loop import recorded

LASTING = {"edit.safetensors", "edit.json", "anchor.safetensors", "train.jsonl", SUMS}


def erased(
    cfg: DictConfig, model: Any, concept: Concept | Concepts, folder: Path, name: str, track: Callable[..., None]
) -> tuple[Edit, dict[str, float], str]:
    """The edit of this config, its diagnostics and the code that made it, from the store or made now.

    Args:
        folder, name: where it is kept.
        track: called with each step's number and scalars, also if another run made it.

    Raises:
        BadInput: as the method and the anchor; or the edit is not finite, or damaged.
    """
    live: list[int] = []
    method, anchor = cast(Method, build(cfg.method, "method")), cast(Anchor, build(cfg.anchor, "anchor"))
    own = stamps.erasing(model.made_by, method, anchor)
    trail = Trail.of(cfg, folder, own, str(model.device.type), torch.__version__)

    def log_step(i: int, **scalars: float) -> None:
        live.append(i)
        track(i, **scalars)

    def make(part: Path) -> None:
        if not (part / "edit.json").exists():
            learn(cfg, model, concept, method, anchor, own, trail, part, log_step)
        trail.keep(part)
        clear(part, LASTING)  # what methods resume from; as large as the model for some

    made = cached(folder, name, make)
    trail.drop()
    about = read_json(made / "edit.json")
    if not live:
        for i, scalars in enumerate(recorded(made / "train.jsonl")):
            track(i, **scalars)
    return read_tensors(made / "edit.safetensors"), about["diagnostics"], about["code"]


def clear(folder: Path, lasting: Collection[str] = ()) -> None:
    """Delete all that is in a folder but the names that last."""
    for left in folder.iterdir():
        if left.name not in lasting:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def learn(
    cfg: DictConfig,
    model: Any,
    concept: Concept | Concepts,
    method: Method,
    anchor: Anchor,
    own: str,
    trail: Trail,
    part: Path,
    log: Callable[..., None],
) -> None:
    """Let the method erase, and write the edit, the anchors as they ended, and what is to be known of both.

    Args:
        own: the code that learns.
        trail: shorter trainings, from the longest of which this one goes on where that makes no difference.
        part: the edit's folder in the making; that of a killed process is gone on with.
    """
    begun, shared = part / "begun", part / "from.json"
    fresh, start = not begun.exists(), time.monotonic()
    for one in concept.parts:  # a template in which its name is not found is refused before anything is learned
        Slot(model, one).spans(one.templates)
    targets = [anchor.start(model, one, cfg.seed) for one in concept.parts]
    # Rehearsals come before the first step, and how many there are depends on how many steps there will be.
    open_ended = getattr(method, "open_ended", False) and all(t.rehearsals(1) == t.rehearsals(2) for t in targets)
    if fresh:
        clear(part)
        if open_ended and (earlier := trail.fetch(part)):
            write_json(shared, earlier)
        begun.write_text(own)
    tensors = method.erase(model, targets, cfg.seed, part, log)
    seconds: float | None = time.monotonic() - start if fresh else None  # of a resumed erasure only a part was seen

    each = [{**similarity(model, target), **closeness(model, target, part), **target.report()} for target in targets]
    means = {name: sum(one[name] for one in each) / len(each) for name in each[0]}  # over the concepts
    diagnostics = {name: value for name, value in means.items() if math.isfinite(value)}  # nobody trained: no loss
    if shared.exists():
        earlier = read_json(shared)
        diagnostics["cost/steps_shared"] = earlier["steps"]
        seconds = None if seconds is None or earlier["seconds"] is None else seconds + earlier["seconds"]
    if seconds is not None:
        diagnostics["cost/seconds"] = seconds
    write_tensors(part / "edit.safetensors", tensors)
    write_tensors(part / "anchor.safetensors", {t.concept.name: t.condition(t.concept.templates) for t in targets})
    before = begun.read_text()
    config = plain({group: cfg[group] for group in ("model", "concept", "anchor", "method", "seed")})
    made_by = own if before == own else f"{before} and {own}"
    if open_ended and before == own and trail.steps:
        write_json(part / END, {"steps": trail.steps, "seconds": seconds})
    write_json(part / "edit.json", {"diagnostics": diagnostics, "code": made_by, "config": config})
