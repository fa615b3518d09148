"""Erase concepts from text-to-image diffusion models with adversarial anchors, and know what the erasure did.

    result = advanchor.erase("concept=emoji/fox")     # what the command `advanchor concept=emoji/fox` does
    model, edit = advanchor.load(result)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advanchor.core import Edit, Model

__all__ = ["erase", "load"]


def erase(*overrides: str) -> dict[str, Any]:
    """Run one experiment, as the command line does with the same overrides: same folder, same cache, same result.

    Returns:
        The content of the run's result.json: scores, diagnostics, config, stages, artifacts.

    Raises:
        advanchor.core.BadInput: a mistake in the overrides, in one sentence.
    """
    from advanchor.compose import compose
    from advanchor.run import run
    from advanchor.store import lock, run_id

    cfg = compose(overrides)
    out = Path(cfg.root) / run_id(cfg)
    with lock(out / ".lock"):
        return run(cfg, out)


def load(result: dict[str, Any]) -> tuple[Model, Edit]:
    """The unedited model of a run and the edit that was made to it; `with model.edited(edit):` applies it."""
    from safetensors.torch import load_file

    from advanchor.compose import compose
    from advanchor.run import build, device

    config = result["config"]
    settings = [f"model.{k}={v}" for k, v in config["model"].items() if k in ("path", "autocast") and v]
    cfg = compose([f"model={config['model']['name']}", *settings])
    return build(cfg.model, "model").open(device(config["device"])), load_file(Path(config["root"]) / result["artifacts"]["edit"] / "edit.safetensors")
