"""What the tests share: the random model, a concept, and a run small enough for a second."""

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_MODE", "offline")
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # workers that each use every core slow each other fivefold
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from advanchor.build import build
from advanchor.compose import compose
from advanchor.identity import run_id
from advanchor.protocols import Step
from advanchor.run import run

TINY = [
    "experiment=smoke",
    "tracker=none",
    "sample.keep=1",
    "concept.evaluate=['{} in noto style','an emoji of {}']",
    "~concept.keep",
    "+concept.keep={wolf: a wolf, car: a car}",
    "concept.evaluate_cross=['{} of a castle']",
    "+concept.evaluate_near=['{}']",
    "batch=6",
]
TEMPLATES = ("{}", "an emoji of {}", "a picture of {}")


@pytest.fixture(scope="session")
def model() -> Any:
    """A loaded Stable Diffusion with random weights."""
    return build(compose(["model=random"]).model, "model").open("cpu")


@pytest.fixture(scope="session")
def concept() -> Any:
    return build(compose(["model=random", "concept=emoji/butterfly"]).concept, "concept")


@pytest.fixture
def step(model: Any, concept: Any) -> Step:
    """Three noised latents under three sentences."""
    g = torch.Generator().manual_seed(3)
    return Step(model, concept, torch.randn(3, 4, 8, 8, generator=g), torch.tensor([10, 400, 900]), TEMPLATES)


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the whole story on random weights, with overrides, under tmp_path unless `root` says otherwise."""

    def call(*overrides: str, root: Path = tmp_path) -> dict[str, Any]:
        cfg = compose([*TINY, f"root={root}", *overrides])
        out = root / run_id(cfg)
        out.mkdir(parents=True, exist_ok=True)
        return run(cfg, out)

    return call


def script(name: str) -> Any:
    """A program of scripts/ as a module; they import each other by name."""
    folder = Path(__file__).resolve().parents[1] / "scripts"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    spec = importlib.util.spec_from_file_location(f"script_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def reference(root: Path, without: list[str], seed: int, **more: Any) -> str:
    """A folder that says it is a trained U-Net (scripts/train_reference.py)."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "unet.safetensors").touch()
    (root / "reference.json").write_text(json.dumps({"without": without, "seed": seed, "steps": 1, **more}))
    return str(root)


@pytest.fixture
def references_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders that experiment=robustness names, which only a training makes, where the test runs."""
    for name, without in (("without", ["castle", "contrast", "guitar", "noto"]), ("with", [])):
        for seed in (1, 2):
            reference(tmp_path / f"outputs/references/{name}-{seed}", without, seed)
    monkeypatch.chdir(tmp_path)
