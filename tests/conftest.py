"""What the tests share: the random model, a concept, and a run small enough for a second."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_MODE", "offline")
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # workers that each use every core slow each other fivefold
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from advanchor.compose import compose
from advanchor.run import build, run
from advanchor.store import run_id

TINY = ["experiment=smoke", "tracker=none", "sample.keep=1", "concept.evaluate=['{} in noto style','an emoji of {}']", "~concept.keep", "+concept.keep={wolf: a wolf, car: a car}",
        "concept.evaluate_cross=['{} of a castle']", "batch=6"]  # fmt: skip


@pytest.fixture(scope="session")
def model() -> Any:
    """A loaded Stable Diffusion with random weights."""
    return build(compose(["model=random"]).model, "model").open("cpu")


@pytest.fixture(scope="session")
def concept() -> Any:
    return build(compose(["model=random", "concept=emoji/butterfly"]).concept, "concept")


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the whole story on random weights, with overrides, under tmp_path unless `root` says otherwise."""

    def call(*overrides: str, root: Path = tmp_path) -> dict[str, Any]:
        cfg = compose([*TINY, f"root={root}", *overrides])
        out = root / run_id(cfg)
        out.mkdir(parents=True, exist_ok=True)
        return run(cfg, out)

    return call
