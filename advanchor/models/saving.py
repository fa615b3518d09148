"""An edited model, written so that diffusers reads it without us."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput
from advanchor.models.edits import parameters, part
from advanchor.protocols import Edit

if TYPE_CHECKING:
    from torch import Tensor

LORA = "pytorch_lora_weights.safetensors"  # where diffusers looks for one


def denoiser(model: Any) -> str:
    """The name of the denoiser's folder in the diffusers layout."""
    return "transformer" if getattr(model.pipe, "transformer", None) is not None else "unet"


def lacking(model: Any) -> list[str]:
    """The parts that the pipeline could have and has not, which diffusers wants to be told of when it is loaded."""
    parts = model.pipe.components
    return [name for name in parts if parts[name] is None and name.startswith(("text_encoder", "tokenizer"))]


def plain(edit: Edit) -> None:
    """Raise BadInput if a part of the edit is no weight of a network."""
    for kind, what in (("eraser.", "networks of its own beside the layers"), ("guidance.", "how it is sampled")):
        if any(name.startswith(kind) for name in edit):
            raise BadInput(
                f"this run changed {what}, which no weights in the diffusers layout can say: use it from here."
            )


def whole(model: Any, edit: Edit) -> dict[str, Tensor]:
    """The denoiser's tensors that the edit replaces, low-rank factors multiplied out."""
    return parameters({name: tensor.to(model.device) for name, tensor in edit.items()}, model.weights("full"))


def pipeline(model: Any, edit: Edit, folder: Path) -> None:
    """The whole edited pipeline, in float32: what diffusers draws with it is what the run draws. Of a model in half
    precision the numbers are those that it drew with, the edit rounded as they are.

    Raises:
        BadInput: as `plain`.
    """
    plain(edit)
    with model.edited(edit):
        own = [p for net in (model.network, *model.encoders.values()) for p in net.parameters()]
        before = [p.dtype for p in own]
        try:
            for p in own:
                p.data = p.data.float()
            model.pipe.save_pretrained(folder)
        finally:
            for p, dtype in zip(own, before, strict=True):
                p.data = p.data.to(dtype)
    nameless(folder)


def nameless(folder: Path) -> None:
    """Take out of a folder's configs where its networks were loaded from, which diffusers writes into them."""
    for file in folder.rglob("*.json"):
        config = json.loads(file.read_text())
        if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(config, indent=2) + "\n")


def tensors(model: Any, edit: Edit, folder: Path) -> None:
    """The changed tensors alone, low-rank factors multiplied out, a file for each network, under the names that they
    have in diffusers and transformers: the format in which ESD and UCE are released.

    Raises:
        BadInput: as `plain`.
    """
    plain(edit)
    found = {denoiser(model): whole(model, edit)}
    for encoder in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        found[encoder] = part(edit, f"{encoder}.")
    for network, own in found.items():
        if own:
            save(own, folder / f"{network}.safetensors")


def lora(model: Any, edit: Edit, folder: Path) -> None:
    """Low-rank factors as a LoRA that `load_lora_weights` of diffusers takes.

    Raises:
        BadInput: something else changed, or nothing did.
    """
    factors = part(edit, "lowrank.")
    if len(factors) < len(edit) or not factors:
        raise BadInput("this run's edit is not of low rank (method=spm is): take --as=folder or --as=tensors.")
    own = model.weights("full")
    out: dict[str, Tensor] = {}
    for name in sorted({name.rpartition(".")[0] for name in factors}):
        module, shape = name.removesuffix(".weight"), own[name].shape
        down, up = factors[f"{name}.down"], factors[f"{name}.up"]
        out[f"{denoiser(model)}.{module}.lora_A.weight"] = down.view(len(down), *shape[1:])
        out[f"{denoiser(model)}.{module}.lora_B.weight"] = up.view(*up.shape, *(1 for _ in shape[2:]))
    save(out, folder / LORA)


def save(found: Mapping[str, Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: t.detach().cpu().contiguous() for name, t in found.items()}, file, metadata={"format": "pt"})
