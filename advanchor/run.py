"""One run, top to bottom: erase, draw, measure, show. Called on the same folder again it does only what is missing."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import logging
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from advanchor.concept import Concept, Concepts, Sample
from advanchor.core import BadInput, Kind, Score, Scores
from advanchor.identity import file_digest, key, plain, run_id
from advanchor.images import Images, draw
from advanchor.machine import device, environment, stage
from advanchor.metrics.sound import enough
from advanchor.naming import fill, mentions
from advanchor.prompts import Prompt
from advanchor.protocols import Anchor, Edit, Judge, Method, Metric, Model, Tracker
from advanchor.provenance import code
from advanchor.results import report
from advanchor.store import SUMS, cached, read_json, read_tensors, write_json, write_tensors

log = logging.getLogger(__name__)
GROUPS: tuple[Kind, ...] = ("model", "judge", "concept", "anchor", "method", "tracker")
TOP = ("metric", "sample", "seed", "batch", "device", "root", "study", "sweeps", "table", "paper")


def build(node: DictConfig, kind: Kind, where: str = "") -> Any:
    """Make a component from its config. Constructing is free: nothing is loaded, everything is checked.

    Args:
        kind: what it must be; `where`: how its settings are called, if not by its kind.

    Raises:
        BadInput: `_target_` is none of our options of this kind; an unknown or missing setting, or a value of the wrong type or range.
    """
    where = where or kind
    if not isinstance(node, DictConfig):
        raise BadInput(f"{where}={node} will not do: name one of the options that `advanchor --help` lists.")
    settings, cls = cast(dict[str, Any], plain(node)), target(node.get("_target_"), kind, where)
    try:
        made = cls(**settings)
    except ValidationError as error:
        raise BadInput("; ".join(explain(e, where, settings, cls) for e in error.errors())) from None
    for name, given in settings.items():  # pydantic takes true for 1 and "1" for 1
        if isinstance(given, bool | str) and type(getattr(made, name)) in (int, float):
            raise BadInput(f"{where}.{name}={given} will not do: it must be a number, without quotes.")
    return made


def target(name: Any, kind: Kind, where: str) -> type:
    """The class that a config names, if it is one of our options of this kind: whatever else a name may lead to is not even looked up.

    Raises:
        BadInput: it is not.
    """
    module, _, leaf = str(name).rpartition(".")
    try:
        if not re.fullmatch(r"advanchor(\.\w+)+", module):
            raise ImportError
        found = vars(importlib.import_module(module)).get(leaf)
    except ImportError:
        found = None
    if not isinstance(found, type) or found.__module__ != module or vars(found).get("__option__") != kind:
        raise BadInput(
            f"{where}._target_ is '{name}', which is no {kind} of advanchor: leave it as the yaml files in conf/ have it."
        )
    return found


def explain(error: Any, where: str, settings: Mapping[str, Any], cls: type) -> str:
    """One sentence for one pydantic error."""
    name = ".".join([where, *(str(part) for part in error["loc"])])
    fields = [
        f.name for f in dataclasses.fields(cls if len(error["loc"]) == 1 else Concept) if f.init
    ]  # only a set of concepts holds others
    if error["type"] == "unexpected_keyword_argument":
        close = difflib.get_close_matches(str(error["loc"][-1]), fields, 1)
        return f"there is no setting '{name}': " + (
            f"did you mean {name.rpartition('.')[0]}.{close[0]}?" if close else f"choose from {', '.join(fields)}."
        )
    if error["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{name} is missing: add it to the yaml file or the command line."
    if error["type"] == "too_short":
        return f"{name} is empty: give it at least one entry."
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}."
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{name}={error['input']} will not do: {message}."


def check(cfg: DictConfig) -> None:
    """Build every component of a config, so that a mistake is said before anything is loaded.

    Raises:
        BadInput: as `build`, or a top-level setting that does not exist.
    """
    known = {*GROUPS, *TOP}
    for name in map(str, cfg):
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), 1)
            raise BadInput(
                f"there is no setting '{name}'"
                + (f": did you mean {close[0]}?" if close else f": choose from {', '.join(sorted(known))}.")
            )
    for name, kinds, what in (
        ("seed", int, "a whole number"), ("batch", int, "a whole number"), ("device", str, "auto, cpu, cuda, cuda:1 or mps"), ("root", str, "a folder"),
        ("study", str, "a name"), ("sample", DictConfig, "settings, as conf/config.yaml has them"), ("table", DictConfig, "settings, as conf/config.yaml has them"),
        ("metric", DictConfig, "metrics, such as metric=[erasure,fid]"),
    ):  # fmt: skip
        value = cfg.get(name, OmegaConf.create() if name == "metric" else None)  # `metric=[]` leaves no such key
        if not isinstance(value, kinds) or isinstance(value, bool) or value == "":
            raise BadInput(f"{name}={value} will not do: it must be {what}.")
    for name, least in (("seed", 0), ("batch", 1)):
        if cfg[name] < least:
            raise BadInput(f"{name}={cfg[name]} will not do: it must be at least {least}.")
    if cfg.seed >= 10**11:
        raise BadInput(
            f"seed={cfg.seed} will not do: it must be below 10^11, since every step's random numbers come from one that is 80 million times as large."
        )
    if isinstance(cfg.anchor, DictConfig) and "_target_" not in cfg.anchor and isinstance(cfg.method, DictConfig):
        name = cfg.method.get("name")
        raise BadInput(
            f"nothing says which anchor method={name} was published with: add conf/anchor_of/published_{name}.yaml, or name an anchor."
        )
    built = {group: build(cfg[group], group) for group in GROUPS}
    if getattr(built["method"], "guided", False) and cfg.sample.guidance == 1:
        raise BadInput(
            f"method={cfg.method.name} changes classifier-free guidance, and sample.guidance=1 is none: raise it."
        )
    built["model"].check()
    built["concept"].prompts(sample_of(cfg))
    for part in (built["anchor"], built["method"]):  # some need a concept that has siblings, or keeps something
        if hasattr(part, "suits"):
            for one in built["concept"].parts:
                part.suits(one)
    for name, node in cfg.get("metric", {}).items():  # `metric=[]` leaves no such key
        build(node, "metric", f"metric.{name}")
    if cfg.device not in ("auto", "cpu"):  # which are always there, and need no torch to say so
        device(cfg.device)


def sample_of(cfg: DictConfig) -> Sample:
    return cast(
        Sample, build(cast(DictConfig, OmegaConf.merge({"_target_": "advanchor.concept.Sample"}, cfg.sample)), "sample")
    )


def finished(cfg: DictConfig, out: Path | None = None) -> dict[str, Any] | None:
    """The run's result if it holds every score that the config asks for, else None. Loads no model and writes nothing.

    Args:
        out: the run's folder, if it is not where runs are under `root`.

    Raises:
        BadInput: the result is that of another run, or damaged.
    """
    out = out or Path(cfg.root) / run_id(cfg)
    done, asked = result_in(cfg, out), cfg.get("metric", {})
    if done is None or done["config"]["judge"] != plain(cfg.judge) or done["judge"] != key(cfg.judge):
        return None
    drawn_by = done["provenance"]["images"]
    same = all(
        memo(out, name, node, cfg.judge, drawn_by).exists()
        and done["config"].get("metric", {}).get(name) == plain(node)
        for name, node in asked.items()
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
        raise BadInput(
            f"{out} holds the result of another run ({done['run']}, and this is {run_id(cfg)}): set another root, or move the folder away."
        )
    return done


def memo(out: Path, name: str, metric: Any, judge: Any, drawn_by: str) -> Path:
    """Where a run keeps what one metric measured, with these settings of it and of the judge, on images that this code drew."""
    return out / "metrics" / f"{name}-{key(metric, judge, drawn_by)}.json"


def run(cfg: DictConfig, out: Path) -> dict[str, Any]:
    """Carry out one run in `out` and return what result.json holds.

    Raises:
        BadInput: as `check`; or the judge cannot measure this model or concept; or a loss, a weight, an image or a score is not finite; or a file is damaged.
    """
    if done := finished(cfg, out):
        log.info("%s is complete: nothing to compute.", out)
        return done
    check(cfg)
    root, store = Path(cfg.root), Path(cfg.root) / "store"
    concept, sample = cast(Concept | Concepts, build(cfg.concept, "concept")), sample_of(cfg)
    metrics = cast(
        dict[str, Metric],
        {name: build(node, "metric", f"metric.{name}") for name, node in cfg.get("metric", {}).items()},
    )
    config = cast(dict[str, Any], plain(cfg))
    done = result_in(cfg, out)
    if done and (done["config"]["judge"] != config["judge"] or done["judge"] != key(cfg.judge)):
        done = None

    where = device(cfg.device)
    judge = cast(Judge, build(cfg.judge, "judge")).to(where)
    prompts = concept.prompts(sample)
    for metric in metrics.values() if judge.name != "none" else ():
        enough(metric, prompts)
    tracker = cast(Tracker, build(cfg.tracker, "tracker"))
    stages: dict[str, dict[str, float]] = read_json(out / "stages.json") if (out / "stages.json").exists() else {}
    scores: Scores = {}
    failed, picture = True, None
    tracker.start(run_id(cfg), config, out)
    try:
        with stage("load", stages, out, where):
            weights = key(cfg.model)
            model = build(cfg.model, "model").open(where)
            model.shelf, model.batch = store / "latents" / weights, min(model.batch, cfg.batch)
            judge.check([p for group in prompts.values() for p in group], model.pixels)
            cut = too_long(model, prompts)
            drawn_by = code(type(model).__module__, "advanchor.images")
            seen_by = key(code(type(judge).__module__), [file_digest(f) for f in judge.files()])

            if done and done["provenance"]["images"] == drawn_by:  # asked for one more metric, it keeps the others
                config["metric"], scores = (
                    {**done["config"].get("metric", {}), **config.get("metric", {})},
                    done["scores"],
                )

        # Erase: an edit is made once, whoever asks for it.
        edit_key = key(cfg.model, cfg.concept, cfg.anchor, cfg.method, cfg.seed)
        with stage("erase", stages, out, where):
            edit, diagnostics, made_by = erased(cfg, model, concept, store / "edits", edit_key, tracker.log)

        # Draw: the unedited model's images are shared by all runs of this model and these sampling settings.
        folders = {
            "": store / "samples" / key(edit_key, sample.looks, drawn_by),
            "@base": store / "samples" / f"base-{key(cfg.model, sample.looks, drawn_by)}",
        }

        def watched(shown: Images) -> Images:
            """What the judge sees in these images is kept beside them."""
            return dataclasses.replace(shown, record=shown.root / f"seen-{key(cfg.judge, seen_by)}")

        def under_anchor() -> Images:
            """What the unedited model draws under the finished anchors, for each concept's own sentences; shared by all runs that have the same anchors."""
            import torch

            file = store / "edits" / edit_key / "anchor.safetensors"
            conditions = read_tensors(file)
            cond = {
                fill(t, "", one.phrase): conditions[one.name][i]
                for one in concept.parts
                for i, t in enumerate(one.templates)
            }
            wanted = [
                Prompt(fill(t, "", one.phrase), seed, one.kind, one.name)
                for one in concept.parts
                for t in one.templates
                for seed in range(sample.erase)
            ]

            def paint(group: Sequence[Prompt]) -> list[Any]:
                return cast(
                    list[Any], model.draw(group, cond=torch.stack([cond[p.text] for p in group]), **sample.looks)
                )

            folder = (
                store
                / "samples"
                / f"anchor-{key(cfg.model, sample.looks, drawn_by, hashlib.sha256(file.read_bytes()).hexdigest())}"
            )
            with stage("draw@anchor", stages, out, where):
                return watched(draw(paint, wanted, folder, batch=cfg.batch, label="anchor"))

        images = Shown(anchor=under_anchor)
        for which, folder in folders.items():
            with stage(f"draw{which}", stages, out, where), model.edited({} if which else edit):
                for name, wanted in prompts.items():
                    images[name + which] = watched(
                        draw(partial(model.draw, **sample.looks), wanted, folder, batch=cfg.batch, label=name + which)
                    )
        if key(cfg.model) != weights:
            raise BadInput(
                f"the weights in {cfg.model.path} were exchanged while the run was under way: run the same command again."
            )

        # Measure: one small file per metric, so that a new metric does not repeat the others.
        unmeasured = (
            ""
            if cfg.judge.name != "none"
            else "judge=none: the pictures are drawn, no score is computed; judge=sd measures images of Stable Diffusion."
        )
        for name, metric in metrics.items() if not unmeasured else ():
            kept = memo(out, name, cfg.metric[name], cfg.judge, drawn_by)
            if not kept.exists():
                shown = {wanted: images[wanted] for wanted in metric.sets}
                with stage("measure", stages, out, where):
                    measured_by = key(code(type(metric).__module__, type(judge).__module__), seen_by)[:10]
                    write_json(kept, {k: {**s, "code": measured_by} for k, s in metric(judge, shown).items()})
            scores |= {
                k: cast(Score, {f: v for f, v in s.items() if f not in ("values", "texts", "code")})
                for k, s in read_json(kept).items()
            }

        # Show.
        picture = out / "grid.png"
        report.grid(images, concept.name, picture)
        failed = False
    finally:
        shown_at = tracker.finish(scores, picture, failed)
    tensors = [t for name, t in edit.items() if not name.startswith("guidance.")]
    result = {
        "run": run_id(cfg), "config": config, "scores": scores, "diagnostics": diagnostics, "stages": stages, "grid": str(picture), "tracker": shown_at,
        "changed": {"tensors": len(tensors), "parameters": sum(t.numel() for t in tensors)}, "unmeasured": unmeasured, "cut": cut,
        "weights": weights, "judge": key(cfg.judge), "provenance": {"edit": made_by, **dict.fromkeys(("images", "images@base", "images@anchor"), drawn_by)},
        "environment": done["environment"] if done else environment(model.device.type),
        "artifacts": {"edit": str((store / "edits" / edit_key).relative_to(root)), **{f"samples{w}": str(f.relative_to(root)) for w, f in folders.items()}},
    }  # fmt: skip
    write_json(out / "result.json", result)
    return result


def too_long(model: Model, prompts: Mapping[str, Sequence[Prompt]]) -> int:
    """How many of the prompts are longer than the text encoder, which is said: their last words are not drawn.

    Raises:
        BadInput: what a prompt is asked for is among the words that are cut off.
    """
    every = [p for group in prompts.values() for p in group]
    cut = set(model.cut(list(dict.fromkeys(p.text for p in every))))
    for p in every:
        if p.text in cut and mentions(p.text, p.label):
            model.span(p.text, p.label)
    if cut:
        shortest = min(cut, key=len)
        log.warning(
            "%d prompts are longer than the text encoder, and their last words are not drawn: '%s...' is one.",
            len(cut),
            shortest[:60],
        )
    return len(cut)


class Shown(dict[str, Images]):
    """Sets of images by name; one that is rarely wanted is drawn when it is asked for."""

    def __init__(self, **later: Callable[[], Images]) -> None:
        super().__init__()
        self.later = later

    def __missing__(self, name: str) -> Images:
        self[name] = self.later[name]()
        return self[name]


def erased(
    cfg: DictConfig, model: Any, concept: Concept | Concepts, folder: Path, name: str, track: Callable[..., None]
) -> tuple[Edit, dict[str, float], str]:
    """The edit of this config, its diagnostics and the code that made it, from the store or made now."""
    from advanchor.anchors.similarity import similarity
    from advanchor.anchors.slot import Slot
    from advanchor.training.loop import recorded

    live: list[int] = []

    def log_step(i: int, **scalars: float) -> None:
        live.append(i)
        track(i, **scalars)

    def make(part: Path) -> None:
        method, anchor = cast(Method, build(cfg.method, "method")), cast(Anchor, build(cfg.anchor, "anchor"))
        if not (part / "edit.json").exists():
            begun = part / "begun"
            fresh, start = not begun.exists(), time.monotonic()
            own = code(
                *(type(component).__module__ for component in (model, method, anchor)), "advanchor.anchors.similarity"
            )
            if fresh:
                begun.write_text(own)
            for one in concept.parts:  # a template in which its name is not found is refused before anything is learned
                Slot(model, one).spans(one.templates)
            targets = [anchor.start(model, one, cfg.seed) for one in concept.parts]
            tensors = method.erase(model, targets, cfg.seed, part, log_step)
            cost = (
                {"cost/seconds": time.monotonic() - start} if fresh else {}
            )  # of a resumed erasure only a part was seen
            each = [{**similarity(model, target), **target.report()} for target in targets]
            mean = {name: sum(one[name] for one in each) / len(each) for name in each[0]}  # over the concepts
            diagnostics = {
                name: value for name, value in mean.items() if math.isfinite(value)
            } | cost  # an anchor that nobody trained has no loss
            write_tensors(part / "edit.safetensors", tensors)
            write_tensors(
                part / "anchor.safetensors", {t.concept.name: t.condition(t.concept.templates) for t in targets}
            )
            before = begun.read_text()
            parts = plain({g: cfg[g] for g in ("model", "concept", "anchor", "method", "seed")})
            write_json(
                part / "edit.json",
                {"diagnostics": diagnostics, "code": own if before == own else f"{before} and {own}", "config": parts},
            )
        for left in set(part.iterdir()) - {
            part / f for f in ("edit.safetensors", "edit.json", "anchor.safetensors", "train.jsonl", SUMS)
        }:
            shutil.rmtree(
                left
            ) if left.is_dir() else left.unlink()  # what methods resume from; as large as the model for some

    made = cached(folder, name, make)
    about = read_json(made / "edit.json")
    if not live:  # made by another run: the tracker still gets every scalar
        for i, scalars in enumerate(recorded(made / "train.jsonl")):
            track(i, **scalars)
    return read_tensors(made / "edit.safetensors"), about["diagnostics"], about["code"]
