"""Erase concepts from text-to-image diffusion models with adversarial anchors, and know what the erasure did.

result = advanchor.erase("concept=emoji/fox")     # what the command `advanchor concept=emoji/fox` does
model, edit = advanchor.load(result)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput
from advanchor.prompts import Prompt
from advanchor.report import table

if TYPE_CHECKING:
    from advanchor.protocols import Edit, Model

__all__ = ["BadInput", "Prompt", "erase", "load", "table"]


def erase(*overrides: str, config_dir: str | Path | None = None) -> dict[str, Any]:
    """Run one experiment, as the command line does with the same overrides: same folder, same cache, same result.

    Args:
        config_dir: a folder with options of your own, as --config-dir of the command.

    Returns:
        The content of the run's result.json: scores, diagnostics, config, stages, artifacts.

    Raises:
        BadInput: a mistake in the overrides, in one sentence.
    """
    from advanchor.commands.attempts import made
    from advanchor.compose import by_itself, compose, expand, read
    from advanchor.identity import run_id
    from advanchor.store import lock

    asked = read([*([f"config_dir={config_dir}"] if config_dir is not None else []), *overrides])
    if len(runs := expand(asked)) != 1:
        raise BadInput(
            f"erase() is one run, and this is a sweep of {len(runs)}: call it for each of them, or use the command."
        )
    cfg = compose(runs[0])
    out = Path(cfg.root) / run_id(cfg)
    with lock(out / ".lock"):
        return made(cfg, out, by_itself(runs[0]))


def load(result: dict[str, Any], config_dir: str | Path | None = None) -> tuple[Model, Edit]:
    """The unedited model of a run and the edit that was made to it; `with model.edited(edit):` applies it.

    Relative paths in the result (root, model.path) are those of the folder in which it ran.

    Args:
        config_dir: as in `erase`, where the model is one of your own.

    Raises:
        BadInput: this is no result; the model's folder is gone or holds other weights; the edit is damaged.
    """
    from omegaconf import DictConfig, OmegaConf

    from advanchor.build import build
    from advanchor.compose import composed, names, read
    from advanchor.identity import key
    from advanchor.machine import device
    from advanchor.store import read_tensors

    if isinstance(result, dict) and result.get("artifacts", {}).get("anchor"):
        raise BadInput("load() needs an erased model, and stage=anchor erases nothing: leave it out.")
    try:
        config, edited, model = result["config"], result["artifacts"]["edit"], result["config"]["model"]["name"]
    except (TypeError, KeyError):
        raise BadInput("load() takes the result of erase(), or what json.load makes of a run's result.json.") from None
    own = read([f"config_dir={config_dir}"] if config_dir is not None else [])
    if model not in names("model", own):
        raise BadInput(f"model={model} is none of advanchor's own: say config_dir=<the folder that has it>.")
    node = OmegaConf.merge({"_target_": composed([*own, f"model={model}"]).model._target_}, config["model"])
    assert isinstance(node, DictConfig)
    if key(node, memory=Path(config["root"]) / "store/weights.json") != result["weights"]:
        raise BadInput(f"the weights of model={node.name} are not those of this run: put them back, or run it again.")
    edit = read_tensors(Path(config["root"]) / edited / "edit.safetensors")
    sparing = build(OmegaConf.create({"_target_": "advanchor.machine.Lean", **config.get("lean", {})}), "lean")
    return build(node, "model").open(device(config["device"]), sparing), edit
