"""What a run ran on, and what each of its stages cost."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from advanchor.core import BadInput, option
from advanchor.store import write_json

log = logging.getLogger(__name__)


@option("lean")
class Lean:
    """What a run does without, to be smaller or faster. Numbers stay what they are, up to rounding.

    Attributes:
        checkpointing: activations of the denoiser's blocks are computed once more in the backward pass instead of kept;
            no bit changes (recomputed.py).
        offload: text encoders and VAE are on the CPU while nobody needs them (visits.py); of use on a GPU alone.
        channels_last: the denoiser's convolutions see the channels of a pixel side by side.
        compile: the denoiser through torch.compile, which takes a minute or more before the first step and is repeated
            for each new shape.
    """

    checkpointing: bool = False
    offload: bool = False
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.compile and self.checkpointing:
            raise ValueError("compile and checkpointing do not go together: leave one of them out")


NOTHING_SPARED = Lean()


@contextmanager
def stage(name: str, stages: dict[str, dict[str, float]], out: Path, device: str) -> Iterator[None]:
    """Add a stage's seconds and its peak memory (MB; allocated on `device` if that is CUDA, else resident) to
    stages.json.
    """
    if name != "load":  # which the command says with the run's name, before torch is imported
        log.info("%s ...", name)
    import torch

    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts anew
        except OSError:
            pass
    start = time.monotonic()
    yield
    before = stages.get(name, {"seconds": 0.0, "peak_mb": 0.0})
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if cuda else resident_peak()
    stages[name] = {"seconds": before["seconds"] + time.monotonic() - start, "peak_mb": max(before["peak_mb"], peak)}
    write_json(out / "stages.json", stages)


def resident_peak() -> float:
    """Peak resident memory in MB since the mark was reset (Linux), or since the process began."""
    try:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if platform.system() == "Darwin" else 1024)


def device(wanted: str) -> str:
    """`auto` is CUDA or the CPU, the first there is; never Apple's GPU (mps), which has no float64, in which UCE and
    MACE solve.

    Raises:
        BadInput: the device does not exist here.
    """
    import torch

    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    there = ["cpu", *(["cuda", *gpus] if gpus else []), *(["mps"] if torch.backends.mps.is_available() else [])]
    if wanted == "auto":
        return "cuda" if gpus else "cpu"
    if wanted not in there:
        shown = "null" if wanted is None else wanted
        raise BadInput(f"device={shown} is not available here: use one of auto, {', '.join(there)}.")
    return wanted


def environment(device: str) -> dict[str, Any]:
    """Commit, code, package versions and machine: what a number may depend on beyond its config and the code of its
    stages (provenance.py).
    """

    def git(*args: str) -> str | None:
        done = subprocess.run(["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit, dirty = git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except FileNotFoundError:  # no git
        commit, dirty = None, False
    packages = ("advanchor", "torch", "diffusers", "transformers", "open-clip-torch", "torchmetrics", "numpy")
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "device": device,
        "packages": {p: importlib.metadata.version(p) for p in packages},
    }
