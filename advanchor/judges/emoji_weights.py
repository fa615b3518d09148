"""A small network as a folder: config.json, what it is built from, and model.safetensors in half precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def save(net: nn.Module, settings: dict[str, Any], folder: Path) -> None:
    """Write the folder. `settings` are the arguments that build the network."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings, indent=1))
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    save_file(half, folder / "model.safetensors")


def load(cls: type[Net], folder: Path) -> Net:
    """Read a folder that `save` wrote; returns the network in evaluation mode, float32."""
    net = cls(**json.loads((folder / "config.json").read_text()))
    stored = load_file(folder / "model.safetensors")
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
    return net.eval().requires_grad_(False)
