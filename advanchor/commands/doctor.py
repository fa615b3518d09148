"""`advanchor doctor key=value ...`: what is here, what is missing, and what a run of this config would take."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from advanchor import hub
from advanchor.build import build, lean_of, sample_of
from advanchor.compose import compose, composed, expand
from advanchor.core import BadInput
from advanchor.identity import run_id
from advanchor.machine import device
from advanchor.models import layout
from advanchor.results.tables import parted
from advanchor.run import edit_of, finished
from advanchor.shown import asked_under

HELP = """\
advanchor doctor key=value ...   versions, devices, the weights of model and judge, what a run of this config would do,
                                 and about how much memory and time it would take; nothing is drawn, trained or
                                 fetched (weights are hashed once, as every command does, and root/store remembers it)

--help                           this text"""
PACKAGES = ("torch", "diffusers", "transformers", "hydra-core", "open-clip-torch", "torchmetrics", "wandb")
EXTRAS = {
    "plot": "matplotlib",
    "tune": "optuna",
    "sd": "nudenet",
    "workers": "hydra-joblib-launcher",
    "LoRA in diffusers": "peft",
}
LEAST = 0.5e9  # bytes: Python and the libraries, measured on the emoji model


def doctor(overrides: Sequence[str]) -> str:
    """A line for each thing, and at the end whether the run would start.

    Raises:
        BadInput: the words are no config at all, or a sweep.
    """
    if len(runs := expand(overrides)) != 1:
        raise BadInput(f"doctor looks at one run, and this is a sweep of {len(runs)}: name one.")
    cfg = composed(runs[0])
    lines = {
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in PACKAGES)]),
        "extras": ", ".join(f"{what}: {version(p) or f'no ({p} is not installed)'}" for what, p in EXTRAS.items()),
        "machine": machine(cfg),
        "model": said(lambda: model_of(cfg)),
        "judge": said(lambda: judge_of(cfg)),
    }
    if unfetched(cfg):
        return aligned({**lines, "run": "would fetch the model first"})
    try:
        checked = compose(runs[0])
    except BadInput as error:
        return aligned({**lines, "run": f"would not start: {error}"})
    lines["run"] = said(lambda: run_of(checked))
    lines["needs"] = said(lambda: needs_of(checked))
    return aligned(lines)


def aligned(lines: dict[str, str]) -> str:
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:{width}}{text}".replace("\n", "\n" + " " * width) for name, text in lines.items())


def said(what: Callable[[], str]) -> str:
    """What a part says, or the sentence that it is refused with."""
    try:
        return what()
    except BadInput as error:
        return str(error)


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def machine(cfg: DictConfig) -> str:
    """Cores, memory and disk, and the devices that torch sees."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    there = next(p for p in (Path(cfg.root), *Path(cfg.root).absolute().parents) if p.exists())
    gpus = [
        f"cuda:{i} {torch.cuda.get_device_name(i)}, {gigabytes(torch.cuda.get_device_properties(i).total_memory)}"
        for i in range(torch.cuda.device_count())
    ]
    return (
        f"{os.cpu_count()} cores, {gigabytes(memory)} of memory, {gigabytes(shutil.disk_usage(there).free)} free where "
        f"root={cfg.root} is; {'; '.join(gpus) or 'no GPU'}; device={cfg.device} is {said(lambda: device(cfg.device))}"
    )


def unfetched(cfg: DictConfig) -> bool:
    """Is the model a repository of the hub of which the cache has no whole copy?"""
    path = cfg.model.get("path")
    if not isinstance(path, str) or hub.repository(path) is None:
        return False
    try:
        layout.check(hub.place(path))
    except BadInput:
        return True
    return False


def model_of(cfg: DictConfig) -> str:
    """Where the weights are, and how large; or what is missing."""
    model = build(cfg.model, "model")
    if not hasattr(model, "folder"):
        return f"{model.name}: made when it is opened, from a seed"
    if unfetched(cfg):
        return f"{model.name}: {model.path} of the Hugging Face hub, not whole in its cache; a run says its size first"
    files = model.files()
    source = f"{model.path} of the Hugging Face hub, in " if hub.repository(str(model.path)) else ""
    size = gigabytes(sum(file.stat().st_size for file in files))
    return f"{model.name}: {len(files)} files, {size}, {source}{model.folder()}"


def judge_of(cfg: DictConfig) -> str:
    """The files of the judge."""
    judge = build(cfg.judge, "judge")
    if judge.name == "none":
        return "none: pictures are drawn, and no score is computed"
    files = judge.files()
    if judge.name == "sd":
        from advanchor.judges.sd_networks import MEASURES

        return f"sd: published networks for {', '.join(MEASURES)}, fetched by their libraries when first needed"
    return f"{judge.name}: {len(files)} files, {gigabytes(sum(file.stat().st_size for file in files))}"


def run_of(cfg: DictConfig) -> str:
    """What the command would do."""
    name, store = run_id(cfg), Path(cfg.root) / "store"
    if finished(cfg):
        return f"{Path(cfg.root) / name} is complete: nothing to compute"
    if cfg.stage == "anchor":
        images = len(asked_under(cast(Any, build(cfg.concept, "concept")), sample_of(cfg)))
        said = f"find the anchor ({cfg.anchor.name} in {cfg.method.name}), draw {images} images under it and before"
        return f"{Path(cfg.root) / name}: {said}, and touch no weight"
    edit = store / "edits" / edit_of(cfg)
    prompts = cast(Any, build(cfg.concept, "concept")).prompts(sample_of(cfg))
    images = sum(map(len, prompts.values()))
    first = "its edit is there" if edit.exists() else f"erase ({cfg.method.name} towards {cfg.anchor.name})"
    if cfg.judge.name == "none":
        return f"{Path(cfg.root) / name}: {first}, draw {images} images after and before, measure nothing"
    more = f", attack by {', '.join(cfg.attack)}" if cfg.get("attack") else ""
    besides = " (what metrics and attacks draw besides is not counted)" if cfg.metric or cfg.get("attack") else ""
    asked = ", ".join(cfg.metric or ()) or "nothing"
    return f"{Path(cfg.root) / name}: {first}, draw {images} images after and before{besides}, measure {asked}{more}"


def needs_of(cfg: DictConfig) -> str:
    """Memory and time, counted on the model's shapes."""
    import torch

    from advanchor.models import sketch

    model, method = build(cfg.model, "model"), cfg.method
    if hasattr(model, "folder"):
        lean = lean_of(cfg)
        shape = sketch.sketched(model.folder(), model.name, model.distilled, model.predicts, model.dtype, lean)
    else:
        return "a tiny model: nothing worth counting"
    steps = int(method.get("steps") or 0)
    batch, scope = int(method.get("batch") or 1), str(method.get("scope") or "attn2")
    prompts = cast(Any, build(cfg.concept, "concept")).prompts(sample_of(cfg))
    images = 2 * sum(map(len, prompts.values()))
    together = min(cfg.batch, max(map(len, prompts.values())))
    found = sketch.needs(shape, scope, batch, together, cfg.sample.steps, cfg.sample.guidance)
    parts = ", ".join(f"{name} {n / 1e6:,.1f} M" for name, n in found.parts.items())
    weights = found.weights(lean.offload and device(cfg.device) != "cpu")
    total = LEAST + weights + max(found.training if steps else 0, found.drawing)
    most = (
        "" if method.get("scope") and not method.get("rank") else "at most "
    )  # factors are smaller than what they move
    training = (
        f"a training step {most}{gigabytes(found.training)} (batch {batch}, all of {scope})" if steps else "no training"
    )
    lines = [
        f"{parts} parameters; about {gigabytes(total)} in {model.dtype}",
        f"weights {gigabytes(weights)}; {training}; drawing {gigabytes(found.drawing)} ({together} at once); "
        f"Python and libraries {gigabytes(LEAST)}",
    ]
    if copies := {name: len(node.doses) for name, node in (cfg.get("attack") or {}).items() if node.get("doses")}:
        size = 4 * found.parts["denoiser"] * max(copies.values())
        lines.append(
            f"at most {gigabytes(size)} more while the weights are attacked ({', '.join(copies)}): a float32 copy of "
            "the denoiser for each dose"
        )
    if device(cfg.device) == "cpu":
        speed = measured(torch)
        lines.append(f"about {duration(images * found.image / speed)} to draw {images} images, after and before")
        if steps:
            lines.append(
                f"about {duration(found.step / speed)} for two passes there and back, of which each of {steps} steps "
                "of training has one or more"
            )
        lines.append(f"(a matrix product makes {speed / 1e9:.0f} GFLOP/s here and now; small networks are slower)")
    else:
        lines.append(f"{found.image / 1e12:.3g} TFLOP an image, {found.step / 1e12:.3g} a training step")
    return "\n".join(lines)


def measured(torch: Any) -> float:
    """Floating-point operations in a second, by matrix products for a third of one."""
    a, n, start = torch.ones(1024, 1024), 0, time.monotonic()
    while time.monotonic() - start < 0.3:
        a @ a
        n += 1
    return float(2 * 1024**3 * n / (time.monotonic() - start))


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.1f} s"


def main(args: Sequence[str]) -> str:
    """The command's arguments -> the text to print."""
    flags, overrides = parted("doctor", args, ["--help"])
    return HELP if "--help" in flags else doctor(overrides)
