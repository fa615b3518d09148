"""One run, top to bottom: erase, draw, measure, show. Called on the same folder again it does only what is missing."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from advanchor import grids, stamps
from advanchor.attacking import Assault, never
from advanchor.attacks.shots import Attack
from advanchor.build import asked, build, check, lean_of, listed, sample_of
from advanchor.concept import Concept, Concepts
from advanchor.core import BadInput, Scores
from advanchor.erasing import erased
from advanchor.gallery.page import Showing, one_run
from advanchor.identity import file_digest, key, plain, run_id
from advanchor.images import Images, draw
from advanchor.machine import device, environment, stage
from advanchor.metrics.attacked import Attacked
from advanchor.metrics.reference import Reference
from advanchor.metrics.sound import enough
from advanchor.naming import mentions
from advanchor.prompts import Prompt, Sample, reseeded
from advanchor.protocols import Judge, Metric, Model, Tracker
from advanchor.shown import Shown, drawn_under, folder_under, recorded_by
from advanchor.store import read_json, write_json
from advanchor.units import with_interval

log = logging.getLogger(__name__)
UNMEASURED = "judge=none: the pictures are drawn, no score is computed; judge=sd measures images of Stable Diffusion."


def finished(cfg: DictConfig, out: Path | None = None) -> dict[str, Any] | None:
    """The run's result if it holds every score that its stage can have of those that the config asks for, else None.
    Loads no model and writes nothing.

    Args:
        out: the run's folder, if it is not where runs are under `root`.

    Raises:
        BadInput: the result is that of another run, or damaged.
    """
    out = out or Path(cfg.root) / run_id(cfg)
    done = result_in(cfg, out)
    if done is None or done["config"]["judge"] != plain(cfg.judge) or done["judge"] != key(cfg.judge):
        return None
    same = all(
        memo(out, done["run"], called(kind, name), node, cfg.judge, done["pictures"]).exists()
        and done["config"].get(kind, {}).get(name) == plain(node)
        for kind, name, node in asked(cfg)
    )
    return done if same or done["unmeasured"] else None


def result_in(cfg: DictConfig, out: Path) -> dict[str, Any] | None:
    """What a folder's result.json holds.

    Raises:
        BadInput: it is the result of another run, or damaged.
    """
    if not (out / "result.json").exists():
        return None
    done = cast(dict[str, Any], read_json(out / "result.json"))
    if done["run"] != run_id(cfg):
        which = f"{done['run']}, and this is {run_id(cfg)}"
        raise BadInput(f"{out} holds the result of another run ({which}): set another root, or move the folder away.")
    return done


def memo(out: Path, run: str, name: str, metric: Any, judge: Any, pictures: str) -> Path:
    """Where a run keeps what one metric measured, with these settings, by this judge, on these pictures."""
    return out / "metrics" / f"{name}-{key(run, plain(metric), plain(judge), pictures)}.json"


def called(kind: str, name: str) -> str:
    """What the file of a metric or an attack is called."""
    return name if kind == "metric" else f"attack_{name}"


def run(cfg: DictConfig, out: Path, words: Sequence[str] = ()) -> dict[str, Any]:
    """Carry out one run in `out` and return what result.json holds.

    Args:
        words: of the command that asks for it, for its page.

    Raises:
        BadInput: as `check`; or the judge cannot measure this model or concept; or a loss, a weight, an image or a
            score is not finite; or a file is damaged.
    """
    if done := finished(cfg, out):
        log.info("%s is complete: nothing to compute.", out)
        return done
    check(cfg)
    root, store = Path(cfg.root), Path(cfg.root) / "store"
    concept, sample = cast(Concept | Concepts, build(cfg.concept, "concept")), sample_of(cfg)
    attacks = {name: cast(Attack, build(node, "attack")) for kind, name, node in listed(cfg) if kind == "attack"}
    metrics: dict[str, tuple[Metric | Attacked, DictConfig]] = {
        name: (build(node, "metric"), node) for kind, name, node in listed(cfg) if kind == "metric"
    }
    metrics |= {f"attack_{name}": (Attacked(name, one.never), cfg.attack[name]) for name, one in attacks.items()}
    config = cast(dict[str, Any], plain(cfg))
    done = result_in(cfg, out)
    if done and (done["config"]["judge"] != config["judge"] or done["judge"] != key(cfg.judge)):
        done = None

    where, prompts = device(cfg.device), concept.prompts(sample)
    judge = judge_of(cfg, where, [metric for metric, _ in metrics.values()], prompts)
    tracker = cast(Tracker, build(cfg.tracker, "tracker"))
    stages: dict[str, dict[str, float]] = read_json(out / "stages.json") if (out / "stages.json").exists() else {}
    scores: Scores = {}
    failed, picture = True, None
    tracker.start(run_id(cfg), config, out)
    try:
        with stage("load", stages, out, where):
            weights, model = opened(cfg, where)
            judge.check([p for group in prompts.values() for p in group], model.pixels)
            cut = too_long(model, prompts)
            drawn_by, seen_by = stamps.drawing(model.made_by), stamps.seeing(judge)

        # Erase: an edit is made once, whoever asks for it.
        edit_key = edit_of(cfg)
        with stage("erase", stages, out, where):
            edit, diagnostics, made_by = erased(cfg, model, concept, store / "edits", edit_key, tracker.log)
        # What is drawn depends on the edit as it is, which another code may have made otherwise under the same name.
        learned = digest_of(store, cfg)
        pictures = key(drawn_by, learned)
        if done and done["pictures"] == pictures:  # asked for one more metric, it keeps the others
            for kind in ("metric", "attack"):
                config[kind] = {**done["config"].get(kind, {}), **config.get(kind, {})}
            scores = done["scores"]

        # Draw: the unedited model's images are shared by all runs of this model and these sampling settings.
        folders = {"": edited_in(store, cfg, sample, pictures), "@base": base_in(store, cfg, sample, drawn_by)}

        def seen(shown: Images) -> Images:
            """What the judge sees in these images is kept beside them."""
            return recorded_by(shown, cfg.judge, seen_by)

        def under_anchor() -> Images:
            file = store / "edits" / edit_key / "anchor.safetensors"
            place = folder_under(file, cfg.model, sample, drawn_by)
            with stage("draw@anchor", stages, out, where):
                return seen(drawn_under(file, model, concept, sample, store / "samples" / place, cfg.batch))

        def floor(name: str) -> Images:
            """The unedited model's images of the same prompts and other seeds, of the same number."""
            with stage("draw@floor", stages, out, where):
                paint = partial(model.draw, **sample.looks)
                return seen(draw(paint, reseeded(prompts[name]), folders["@base"], batch=cfg.batch, label="floor"))

        def other(folder: str, name: str) -> Images:
            """What a model of the same shape with other weights draws for the same prompts and seeds."""
            weights = file_digest(Path(folder).expanduser() / "unet.safetensors")
            place = store / "samples" / f"other-{key(cfg.model, sample.looks, drawn_by, weights)}"
            with stage("draw@other", stages, out, where), model.edited(never(folder)):
                paint = partial(model.draw, **sample.looks)
                return seen(draw(paint, prompts[name], place, batch=cfg.batch, label=f"{name}@{folder}"))

        later: dict[str, Callable[[], Images]] = {f"{name}@floor": partial(floor, name) for name in prompts}
        known = [one for metric, _ in metrics.values() if isinstance(metric, Reference) for one in metric.networks]
        for one in dict.fromkeys((*known, *(attack.never for attack in attacks.values() if attack.never))):
            later |= {f"{name}@{one}": partial(other, one, name) for name in prompts}
        at_work = {
            f"attack_{name}": Assault(
                attack, cfg.attack[name], model, edit, learned, concept, sample, store, cfg.batch, seen, weights
            )
            for name, attack in attacks.items()
        }
        for name, assault in zip(attacks, at_work.values(), strict=True):
            later |= {f"attack/{name}{which}": partial(assault.images, which) for which in ("", "@chance", "@never")}
        images = Shown({**later, "anchor": under_anchor})
        for which, folder in folders.items():
            with stage(f"draw{which}", stages, out, where), model.edited({} if which else edit):
                for name, wanted in prompts.items():
                    paint = partial(model.draw, **sample.looks)
                    images[name + which] = seen(draw(paint, wanted, folder, batch=cfg.batch, label=name + which))
        unchanged(cfg, weights)

        # Measure: one small file per metric, so that a new metric does not repeat the others.
        unmeasured = "" if cfg.judge.name != "none" else UNMEASURED
        for name, (metric, node) in metrics.items() if not unmeasured else ():
            kept = memo(out, run_id(cfg), name, node, cfg.judge, pictures)
            if not kept.exists():
                with stage(name, stages, out, where) if name.startswith("attack_") else nullcontext():
                    shown = {wanted: images[wanted] for wanted in metric.sets}
                with stage("measure", stages, out, where):
                    by = [at_work[name].made_by] if name in at_work else []
                    measured_by = stamps.measuring(metric, judge, seen_by, *by)
                    measured = metric(judge, shown)
                    if isinstance(metric, Reference):
                        others = {f"@{one}": never(one) for one in metric.networks}
                        measured |= metric.predictions(model, {"": edit, "@base": {}, **others}, prompts, sample)
                    write_json(kept, {k: {**s, "code": measured_by} for k, s in measured.items()})
            for score, whole in read_json(kept).items():
                scores[score] = with_interval(prompts, score, whole)

        # Show.
        picture = out / "grid.png"
        grids.grid(images, concept.name, picture)
        tensors = [t for name, t in edit.items() if not name.startswith("guidance.")]
        artifacts = {"edit": store / "edits" / edit_key, **{f"samples{which}": at for which, at in folders.items()}}
        result = {
            "run": run_id(cfg),
            "config": config,
            "scores": scores,
            "diagnostics": diagnostics,
            "stages": stages,
            "grid": str(picture),
            "tracker": "",
            "changed": {"tensors": len(tensors), "parameters": sum(t.numel() for t in tensors)},
            "unmeasured": unmeasured,
            "cut": cut,
            "weights": weights,
            "pictures": pictures,
            "judge": key(cfg.judge),
            "provenance": {"edit": made_by, **dict.fromkeys(("images", "images@base", "images@anchor"), drawn_by)},
            "environment": done["environment"] if done else environment(model.device.type),
            "artifacts": {name: str(at.relative_to(root)) for name, at in artifacts.items()},
        }
        if isinstance(tracker, Showing):
            tracker.show(partial(one_run, cfg, result, words))
        failed = False
    finally:
        shown_at = tracker.finish(scores, picture, failed)
    result["tracker"] = shown_at
    write_json(out / "result.json", result)
    return result


def assist(cfg: DictConfig) -> None:
    """Draw what a run that another process has under way lacks, beside that process; measuring is left to it.

    Raises:
        BadInput: as `run`.
    """
    check(cfg)
    store, where = Path(cfg.root) / "store", device(cfg.device)
    concept, sample = cast(Concept | Concepts, build(cfg.concept, "concept")), sample_of(cfg)
    prompts = [group for group in concept.prompts(sample).items() if group[1]]
    _, model = opened(cfg, where)
    drawn_by, paint = stamps.drawing(model.made_by), partial(model.draw, **sample.looks)
    # While the other process erases, there is nothing else to draw.
    for name, wanted in prompts:
        draw(paint, wanted, base_in(store, cfg, sample, drawn_by), batch=cfg.batch, label=f"{name}@base")
    edit, _, _ = erased(cfg, model, concept, store / "edits", edit_of(cfg), lambda *a, **k: None)
    place = edited_in(store, cfg, sample, key(drawn_by, digest_of(store, cfg)))
    with model.edited(edit):
        for name, wanted in prompts:
            draw(paint, wanted, place, batch=cfg.batch, label=name)


def judge_of(cfg: DictConfig, where: str, metrics: Sequence[Metric | Attacked], prompts: Mapping[str, Any]) -> Judge:
    """What looks at the pictures, on its device.

    Raises:
        BadInput: there are too few prompts for one of the metrics.
    """
    judge = cast(Judge, build(cfg.judge, "judge")).to(where)
    for metric in metrics if judge.name != "none" else ():
        enough(metric, prompts)
    return judge


def opened(cfg: DictConfig, where: str) -> tuple[str, Any]:
    """The digest of a run's weights, and the model."""
    weights = key(cfg.model)
    model = build(cfg.model, "model").open(where, lean_of(cfg))
    model.shelf, model.batch = Path(cfg.root) / "store/latents" / weights, min(model.batch, cfg.batch)
    return weights, model


def unchanged(cfg: DictConfig, weights: str) -> None:
    """Raise BadInput if the model's files no longer are what they were when it was opened."""
    if key(cfg.model) != weights:
        what = f"the weights in {cfg.model.path} were exchanged while the run was under way"
        raise BadInput(f"{what}: run the same command again.")


def edit_of(cfg: DictConfig) -> str:
    """What a run's edit is called in the store."""
    return key(cfg.model, cfg.concept, cfg.anchor, cfg.method, cfg.seed)


def digest_of(store: Path, cfg: DictConfig) -> str:
    """sha256 of a run's edit."""
    return hashlib.sha256((store / "edits" / edit_of(cfg) / "edit.safetensors").read_bytes()).hexdigest()


def base_in(store: Path, cfg: DictConfig, sample: Sample, drawn_by: str) -> Path:
    """Where the unedited model's images are."""
    return store / "samples" / f"base-{key(cfg.model, sample.looks, drawn_by)}"


def edited_in(store: Path, cfg: DictConfig, sample: Sample, pictures: str) -> Path:
    """Where the edited model's images are."""
    return store / "samples" / key(edit_of(cfg), sample.looks, pictures)


def too_long(model: Model, prompts: Mapping[str, Sequence[Prompt]]) -> int:
    """How many of the prompts are longer than the text encoder, which is said: their last words are not drawn.

    Raises:
        BadInput: what a prompt is asked for is among the words that are cut off.
    """
    every = [p for group in prompts.values() for p in group]
    cut = set(model.cut(list(dict.fromkeys(p.text for p in every))))
    for p in every:
        if p.text in cut and mentions(p.text, p.label):
            model.span(p.text, p.label, stream=len(model.streams) - 1)  # the last one reads most
    if cut:
        said = "%d prompts are longer than the text encoder, and their last words are not drawn: '%s...' is one."
        log.warning(said, len(cut), min(cut, key=len)[:60])
    return len(cut)
