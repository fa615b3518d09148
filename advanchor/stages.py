"""What a config asks for: a whole run, or what comes before any weight is touched. Called on the same folder again it
does only what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from advanchor import grids, stamps
from advanchor.build import asked, build, check, sample_of
from advanchor.concept import Concept, Concepts
from advanchor.core import Scores
from advanchor.finding import found
from advanchor.identity import key, plain, run_id
from advanchor.images import Images, draw
from advanchor.machine import device, environment, stage
from advanchor.protocols import Metric, Tracker
from advanchor.run import (
    UNMEASURED,
    base_in,
    edit_of,
    finished,
    judge_of,
    memo,
    opened,
    result_in,
    run,
    too_long,
    unchanged,
)
from advanchor.shown import asked_under, drawn_under, folder_under, recorded_by
from advanchor.store import lock, read_json, verified, write_json
from advanchor.units import with_interval

log = logging.getLogger(__name__)


def carry_out(cfg: DictConfig, out: Path, words: Sequence[str] = ()) -> dict[str, Any]:
    """Carry out in `out` what a config asks for, and return what result.json holds.

    Raises:
        BadInput: as `run`, or `tried`.
    """
    return tried(cfg, out) if cfg.stage == "anchor" else run(cfg, out, words)


def tried(cfg: DictConfig, out: Path) -> dict[str, Any]:
    """Find the anchors of a run and measure what the unedited model draws under them; no weight is trained, no edit
    made. What it finds and draws the whole run takes up.

    Raises:
        BadInput: as `check`; or the judge cannot measure this model or concept; or a loss, an image or a score is not
            finite; or the method has no anchor to find by itself; or a file is damaged.
    """
    if done := finished(cfg, out):
        log.info("%s is complete: nothing to compute.", out)
        return done
    check(cfg)
    root, store = Path(cfg.root), Path(cfg.root) / "store"
    concept, sample = cast(Concept | Concepts, build(cfg.concept, "concept")), sample_of(cfg)
    metrics: dict[str, tuple[Metric, DictConfig]] = {n: (build(node, "metric"), node) for _, n, node in asked(cfg)}
    config = cast(dict[str, Any], plain(cfg))
    done = result_in(cfg, out)

    where, prompts = device(cfg.device), {"anchor": asked_under(concept, sample)}
    judge = judge_of(cfg, where, [metric for metric, _ in metrics.values()], prompts)
    tracker = cast(Tracker, build(cfg.tracker, "tracker"))
    stages: dict[str, dict[str, float]] = read_json(out / "stages.json") if (out / "stages.json").exists() else {}
    scores: Scores = {}
    failed, picture = True, None
    tracker.start(run_id(cfg), config, out)
    try:
        with stage("load", stages, out, where):
            weights, model = opened(cfg, where)
            judge.check(prompts["anchor"], model.pixels)
            cut = too_long(model, prompts)
            drawn_by, seen_by = stamps.drawing(model.made_by), stamps.seeing(judge)

        # Find: the anchors are kept by the same name as the edit that they are for.
        with stage("find", stages, out, where):
            place, about = found(cfg, model, concept, store / "anchors", edit_of(cfg), tracker.log)
        file = place / "anchor.safetensors"
        verified(file, folder=place)
        folder = folder_under(file, cfg.model, sample, drawn_by)

        # Draw: the same sentences and seeds without the anchors and under them.
        base = base_in(store, cfg, sample, drawn_by)
        with stage("draw@base", stages, out, where):
            paint = partial(model.draw, **sample.looks)
            before = draw(paint, prompts["anchor"], base, batch=cfg.batch, label="before")
        with stage("draw@anchor", stages, out, where):
            under = drawn_under(file, model, concept, sample, store / "samples" / folder, cfg.batch)
        images: dict[str, Images] = {n: recorded_by(s, cfg.judge, seen_by) for n, s in (("@base", before), ("", under))}
        unchanged(cfg, weights)

        # Measure, as a whole run measures what is drawn under its anchor; and the same without it.
        unmeasured, pictures = "" if cfg.judge.name != "none" else UNMEASURED, key(drawn_by, folder)
        if done and done["judge"] == key(cfg.judge) and done["pictures"] == pictures:  # another metric is added
            config["metric"] = {**done["config"]["metric"], **config["metric"]}
            scores = done["scores"]
        for name, (metric, node) in metrics.items() if not unmeasured else ():
            kept = memo(out, run_id(cfg), name, node, cfg.judge, pictures)
            if not kept.exists():
                with stage("measure", stages, out, where):
                    by = {"code": stamps.measuring(metric, judge, seen_by)}
                    each = {at: metric(judge, {"anchor": shown}) for at, shown in images.items()}
                    write_json(kept, {f"{k}{at}": {**s, **by} for at, one in each.items() for k, s in one.items()})
            for score, whole in read_json(kept).items():
                scores[score] = with_interval(prompts, score, whole)

        # Show.
        picture = out / "grid.png"
        grids.anchor_grid(images["@base"], images[""], picture)
        artifacts = {"anchor": place, "samples@anchor": under.root, "samples@base": before.root}
        result = {
            "run": run_id(cfg),
            "config": config,
            "scores": scores,
            "diagnostics": about["diagnostics"],
            "then": about["then"],
            "stages": stages,
            "grid": str(picture),
            "tracker": "",
            "unmeasured": unmeasured,
            "cut": cut,
            "weights": weights,
            "pictures": pictures,
            "judge": key(cfg.judge),
            "provenance": {"anchor": about["code"], **dict.fromkeys(("images@base", "images@anchor"), drawn_by)},
            "environment": done["environment"] if done else environment(model.device.type),
            "artifacts": {name: str(at.relative_to(root)) for name, at in artifacts.items()},
        }
        failed = False
    finally:
        shown_at = tracker.finish(scores, picture, failed)
    result["tracker"] = shown_at
    write_json(out / "result.json", result)
    return result


def wait(out: Path) -> None:
    """Until the process that tries an anchor in this folder is done: there is too little in it to share."""
    with lock(out / ".lock"):
        pass
