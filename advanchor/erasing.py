"""The edit of a run: made once for all runs that differ only in how they look at it, resumed after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from advanchor import stamps
from advanchor.build import build
from advanchor.concept import Concept, Concepts
from advanchor.finding import conditions, described, fetch, started, told
from advanchor.identity import plain
from advanchor.lazy import torch
from advanchor.protocols import Anchor, Edit, Method
from advanchor.store import SUMS, read_json, read_tensors, write_json, write_tensors
from advanchor.trails import END, Trail, clear
from advanchor.training.loop import REHEARSED

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
    method, anchor = cast(Method, build(cfg.method, "method")), cast(Anchor, build(cfg.anchor, "anchor"))
    own = stamps.erasing(model.made_by, method, anchor)
    trail = Trail.of(cfg, folder, own, str(model.device.type), torch.__version__)

    def make(part: Path, log: Callable[..., None]) -> None:
        if not (part / "edit.json").exists():
            learn(cfg, model, concept, method, anchor, own, trail, folder.parent / "anchors" / name, part, log)
        trail.keep(part)
        clear(part, LASTING)  # what methods resume from; as large as the model for some

    made = told(folder, name, make, track)
    trail.drop()
    about = read_json(made / "edit.json")
    return read_tensors(made / "edit.safetensors"), about["diagnostics"], about["code"]


def learn(
    cfg: DictConfig,
    model: Any,
    concept: Concept | Concepts,
    method: Method,
    anchor: Anchor,
    own: str,
    trail: Trail,
    place: Path,
    part: Path,
    log: Callable[..., None],
) -> None:
    """Let the method erase, and write the edit, the anchors as they ended, and what is to be known of both.

    Args:
        own: the code that learns.
        trail: shorter trainings, from the longest of which this one goes on where that makes no difference.
        place: where the anchors are if they were found before, by themselves (finding.py): it begins after them then.
        part: the edit's folder in the making; that of a killed process is gone on with.
    """
    begun, shared = part / "begun", part / "from.json"
    fresh, start = not begun.exists(), time.monotonic()
    targets = started(model, concept, anchor, cfg.seed)
    spent: float | None = 0.0  # by others, on what this training begins with
    # Rehearsals come before the first step, and how many there are depends on how many steps there will be.
    open_ended = getattr(method, "open_ended", False) and all(t.rehearsals(1) == t.rehearsals(2) for t in targets)
    if fresh:
        clear(part)
        if open_ended and (earlier := trail.fetch(part)):
            write_json(shared, earlier)
            spent = earlier["seconds"]
        elif known := fetch(place, part, model, own):
            spent = known["seconds"]
        begun.write_text(own)
    tensors = method.erase(model, targets, cfg.seed, part, log)
    (part / REHEARSED).unlink(missing_ok=True)  # a longer training has its checkpoint
    # Of a resumed erasure only a part was seen.
    seconds = time.monotonic() - start + spent if fresh and spent is not None else None

    diagnostics = described(model, targets, part)
    if shared.exists():
        diagnostics["cost/steps_shared"] = read_json(shared)["steps"]
    if seconds is not None:
        diagnostics["cost/seconds"] = seconds
    write_tensors(part / "edit.safetensors", tensors)
    write_tensors(part / "anchor.safetensors", conditions(targets))
    before = begun.read_text()
    config = plain({group: cfg[group] for group in ("model", "concept", "anchor", "method", "seed")})
    made_by = own if before == own else f"{before} and {own}"
    if open_ended and before == own and trail.steps:
        write_json(part / END, {"steps": trail.steps, "seconds": seconds})
    write_json(part / "edit.json", {"diagnostics": diagnostics, "code": made_by, "config": config})
