"""Checkpoints of erased models, as their authors leave them, as edits of a model (edits.py).

What is read, by what its tensors are called:

    <parameter of the denoiser>      ESD and UCE (.safetensors), and any whole network; AC's and others' {"unet": ...}
    text_model.<parameter>           a text encoder
    lora_unet_<module>.lora_down|lora_up.weight, .alpha
                                     SPM and LoRAs of the web UIs: up @ down * alpha / rank is added to the module
    <module>.lora_A|lora_B.weight    LoRAs of diffusers, with unet. or transformer. before it
    model.diffusion_model.<name>     a whole U-Net with the names of the first releases, as SalUn's and old ESD's .pt
    what `advanchor` itself keeps    outputs/store/edits/*/edit.safetensors

or a folder in the diffusers layout, of which the denoiser and the text encoders are read. A pickle is read by torch's
weights_only loader alone, which builds tensors and nothing else.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput
from advanchor.hub import NETWORKS
from advanchor.lazy import torch
from advanchor.models import layout
from advanchor.protocols import Edit, Model

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
HALVES = {  # of a LoRA, by how the names of its tensors end
    **dict.fromkeys((".lora_down.weight", ".lora_A.weight", ".lora.down.weight", ".lora_A.default.weight"), "down"),
    **dict.fromkeys((".lora_up.weight", ".lora_B.weight", ".lora.up.weight", ".lora_B.default.weight"), "up"),
    ".alpha": "alpha",
}
FIRST = "model.diffusion_model."  # before a U-Net's tensors in the layout of the first releases
OTHER = re.compile(r"(model_ema|first_stage_model|cond_stage_model|conditioner)\.|.*position_ids$|logit_scale$")
BUFFERS = ("betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_", "model_ema", "modifier_token")

log = logging.getLogger(__name__)


def check(place: Path) -> None:
    """Raise BadInput if there is nothing at `place` that could be read."""
    if place.is_dir():
        if not any((place / part).is_dir() for part in NETWORKS):
            raise BadInput(f"method.edit={place} is no folder in the diffusers layout: name one, or a file.")
    elif not place.is_file():
        raise BadInput(f"method.edit={place} is not there: set it to a checkpoint of an erased model.")
    elif place.suffix not in (".safetensors", *PICKLES):
        raise BadInput(f"method.edit={place} is no {', '.join(('.safetensors', *PICKLES))}: convert it to one of them.")


def read(place: Path, model: Model) -> Edit:
    """The edit that a checkpoint is of a model: of whole networks the tensors that differ, in float32.

    Raises:
        BadInput: as `check`; it is damaged, a pickle of more than tensors, of another model, or changes nothing.
    """
    check(place)
    tensors = folder(place) if place.is_dir() else file(place)
    frozen = {**model.weights("full"), **model.weights("text_encoder")}
    edit: dict[str, Tensor] = {}
    unknown: list[str] = []
    found = first_names(tensors, model, place)
    factors: dict[str, dict[str, Tensor]] = {}
    modules = {name.removesuffix(".weight").replace(".", "_"): name for name in frozen if name.endswith(".weight")}
    for name, tensor in found.items():
        plain = re.sub(r"^(unet|transformer)\.", "", name)
        half = next((end for end in HALVES if name.endswith(end)), None)
        if name.startswith(("lowrank.", "eraser.", "guidance.")):
            edit[name] = tensor  # our own
        elif half is not None:
            module = re.sub(r"^(lora_unet_|lora_transformer_)", "", plain.removesuffix(half))
            at = modules.get(module.replace(".", "_"))
            if at is None:
                unknown.append(name)
            else:
                factors.setdefault(at, {})[HALVES[half]] = tensor
        elif (own := of_model(plain, frozen)) is not None:
            if tensor.shape != frozen[own].shape:
                shapes = tuple(tensor.shape), tuple(frozen[own].shape)
                raise BadInput(
                    f"{name} in {place} has shape {shapes[0]}, and model={model.name} has {shapes[1]} there: name the "
                    "model= that it was made for."
                )
            if not torch.equal(tensor, frozen[own].cpu()):
                edit[own] = tensor
        else:
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - 1} more of {len(found)} tensors" if unknown[1:] else ""
        raise BadInput(
            f"model={model.name} has no place for {unknown[0]}{more} in {place}: name the model= that it was made for, "
            "or take the checkpoint in the diffusers layout."
        )
    for at, parts in factors.items():
        edit |= membrane(at, parts, place)
    if not edit:
        raise BadInput(f"{place} holds the weights of model={model.name} as they are: it erases nothing.")
    return edit


def folder(place: Path) -> dict[str, Tensor]:
    """The tensors of a folder's denoiser and text encoders."""
    from safetensors.torch import load_file

    found: dict[str, Tensor] = {}
    for part in NETWORKS:
        if part != "vae" and (place / part).is_dir():
            prefix = f"{part}." if part.startswith("text_encoder") else ""
            for one in layout.weights(place / part):
                if one.suffix == ".safetensors":
                    found |= {f"{prefix}{name}": tensor.float() for name, tensor in load_file(one).items()}
    return found


def file(place: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names, of nested ones with the name of the text encoder before them.

    Raises:
        BadInput: it cannot be read.
    """
    from safetensors.torch import load_file

    try:
        whole: Any = (
            load_file(place)
            if place.suffix == ".safetensors"
            else torch.load(place, map_location="cpu", weights_only=True)
        )
    except Exception as error:
        why = " ".join(str(error).split())[:150]
        raise BadInput(
            f"{place} cannot be read as tensors alone ({why}): copy it anew, or convert it to .safetensors."
        ) from None
    found: dict[str, Tensor] = {}
    for name, held in whole.items() if isinstance(whole, Mapping) else ():
        if isinstance(held, torch.Tensor):
            found[str(name)] = held
        elif isinstance(held, Mapping):
            prefix = f"{name}." if str(name).startswith("text_encoder") else ""
            found |= {f"{prefix}{inner}": one for inner, one in held.items() if isinstance(one, torch.Tensor)}
    if not found:
        raise BadInput(f"{place} holds no tensors by their names: name a checkpoint of an erased model.")
    return {name: tensor.float() for name, tensor in found.items() if not name.startswith(BUFFERS)}


def of_model(name: str, frozen: Mapping[str, Tensor]) -> str | None:
    """Which of a model's tensors is meant, or None."""
    bare = name if name.startswith("text_encoder") else f"text_encoder.{name}"
    prefix, _, inner = bare.partition(".")
    inner = inner.removeprefix("text_model.")
    return next((n for n in (name, bare, f"{prefix}.{inner}", f"{prefix}.text_model.{inner}") if n in frozen), None)


def first_names(tensors: Mapping[str, Tensor], model: Model, place: Path) -> dict[str, Tensor]:
    """The same with diffusers' names where those are of the first releases; their VAE and text encoder are left out.

    Raises:
        BadInput: it is a part of such a U-Net, whose place cannot be told.
    """
    ours = {name: tensor for name, tensor in tensors.items() if not OTHER.match(name)}
    if not any(name.startswith(FIRST) for name in ours):
        return ours
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    network: Any = getattr(model, "network", None)
    try:
        made = convert_ldm_unet_checkpoint(dict(ours), network.config)
    except (KeyError, AttributeError, TypeError):  # diffusers looks for what a whole one has
        made = {}
    if len(made) < sum(name.startswith(FIRST) for name in ours):
        raise BadInput(
            f"{place} has a part of a U-Net with the names of the first releases, or one of another architecture than "
            f"model={model.name}: take a whole one, or one in the diffusers layout."
        )
    log.info("%s: its U-Net is read; text encoder and VAE are those of model=%s.", place, model.name)
    return {name: tensor.float() for name, tensor in made.items()}


def membrane(at: str, parts: Mapping[str, Tensor], place: Path) -> dict[str, Tensor]:
    """Low-rank factors of a matrix or kernel as our edits have them; alpha / rank is in the first.

    Raises:
        BadInput: a half is missing.
    """
    if {"down", "up"} - parts.keys():
        raise BadInput(f"{place} has half a low-rank pair for {at}: copy it anew.")
    down, up = parts["down"].flatten(1), parts["up"].flatten(1)
    scale = float(parts["alpha"]) / len(down) if "alpha" in parts else 1.0
    return {f"lowrank.{at}.down": down.contiguous(), f"lowrank.{at}.up": (scale * up).contiguous()}
