"""Checkpoints of erased models, as their authors leave them, as edits of a model (edits.py).

What is read, by what its tensors are called:

    <parameter of the denoiser>      ESD and UCE (.safetensors), and any whole network; AC's and others' {"unet": ...}
    text_model.<parameter>           a text encoder
    lora_unet_<module>.lora_down|lora_up.weight, .alpha
                                     SPM and LoRAs of the web UIs: up @ down * alpha / rank is added to the module
    <module>.lora_A|lora_B.weight    LoRAs of diffusers, with unet., transformer. or text_encoder. before it, and with
                                     lora_alpha and r where the file's header has them
    model.diffusion_model.<name>     a whole U-Net with the names of the first releases, as SalUn's and old ESD's .pt
    what `advanchor` itself keeps    outputs/store/edits/*/edit.safetensors

or a folder: in the diffusers layout, of which the denoiser and the text encoders are read, or of a file for each of
these networks, as `advanchor export --as=tensors` leaves it. A pickle is read by torch's weights_only loader alone,
which builds tensors and nothing else.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
OTHER = re.compile(r"(model_ema|first_stage_model|cond_stage_model|conditioner|betas|alphas_|sqrt_|log_one|posterior_)")
ENCODERS = tuple(name for name in NETWORKS if name.startswith("text_encoder"))
READ = tuple(name for name in NETWORKS if name != "vae")

log = logging.getLogger(__name__)


def check(place: Path) -> None:
    """Raise BadInput if there is nothing at `place` that could be read."""
    if place.is_dir():
        if not any((place / part).is_dir() or (place / f"{part}.safetensors").is_file() for part in READ):
            raise BadInput(f"method.edit={place} is no folder in the diffusers layout: name one, or a file.")
    elif not place.is_file():
        raise BadInput(f"method.edit={place} is not there: set it to a checkpoint of an erased model.")
    elif place.suffix not in (".safetensors", *PICKLES):
        raise BadInput(f"method.edit={place} is no {', '.join(('.safetensors', *PICKLES))}: convert it to one of them.")


def read(place: Path, model: Model) -> Edit:
    """The edit that a checkpoint is of a model, in float32: of whole networks the tensors that differ, seen in the
    checkpoint's own precision.

    Raises:
        BadInput: as `check`; it is damaged, not finite, a pickle of more than tensors, of another model, or changes
            nothing.
    """
    check(place)
    tensors = folder(place) if place.is_dir() else file(place)
    scales = {} if place.is_dir() else scaled(place)
    if wrong := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise BadInput(f"{wrong[0]} in {place} is not finite: copy the checkpoint anew.")
    found = first_names(tensors, model, place)
    frozen = {**model.weights("full"), **model.weights("text_encoder")}
    modules = {name.removesuffix(".weight").replace(".", "_"): name for name in frozen if name.endswith(".weight")}
    edit: dict[str, Tensor] = {}
    factors: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    for name, tensor in found.items():
        plain = re.sub(r"^(unet|transformer)\.", "", name)
        half = next((end for end in HALVES if name.endswith(end)), "")
        if name.startswith("guidance."):
            raise BadInput(f"{place} is how a run samples, and no weights: run its method (negative_prompt, sld_*).")
        if name.startswith(("lowrank.", "eraser.")):
            edit[name] = tensor.float()  # our own
        elif half:
            module = re.sub(r"^(lora_unet_|lora_transformer_)", "", plain.removesuffix(half))
            at = of_model(f"{module}.weight", frozen) or modules.get(module.replace(".", "_"))
            if at is None:
                unknown.append(name)
            elif HALVES[half] in factors.setdefault(at, {}):
                raise BadInput(f"{place} has two low-rank pairs for {at}: keep one of them.")
            else:
                factors[at][HALVES[half]] = tensor.float()
        elif (own := of_model(plain, frozen)) is not None:
            if own in edit:
                raise BadInput(f"{place} has {own} twice: keep the one that is meant.")
            if tensor.shape != frozen[own].shape:
                shapes = tuple(tensor.shape), tuple(frozen[own].shape)
                raise BadInput(
                    f"{name} in {place} has shape {shapes[0]}, and model={model.name} has {shapes[1]} there: name the "
                    "model= that it was made for."
                )
            # The coarser of file and model says what is the same: what only rounding tells apart is no edit.
            here, half = frozen[own].detach().cpu(), cast(Any, model).dtype
            if not torch.equal(tensor, here.to(tensor.dtype)) and not torch.equal(tensor.to(half), here.to(half)):
                edit[own] = tensor.float()
        elif not stays(plain, tensor, model):
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - 1} more of {len(found)} tensors" if unknown[1:] else ""
        raise BadInput(
            f"model={model.name} has no place for {unknown[0]}{more} in {place}: name the model= that it was made for, "
            "or take the checkpoint in the diffusers layout."
        )
    for at, parts in factors.items():
        edit |= membrane(at, parts, frozen[at], scales.get(at.partition(".")[0], scales.get("", 1.0)), place)
    if not edit:
        raise BadInput(f"{place} holds the weights of model={model.name} as they are: it erases nothing.")
    return edit


def folder(place: Path) -> dict[str, Tensor]:
    """The tensors of a folder's denoiser and text encoders."""
    found: dict[str, Tensor] = {}
    for part in READ:
        files = layout.weights(place / part) if (place / part).is_dir() else [place / f"{part}.safetensors"]
        for one in files:
            if one.suffix == ".safetensors" and one.is_file():
                found |= file(one, f"{part}." if part in ENCODERS else "")
    return found


def file(place: Path, prefix: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file by their names, those of a text encoder with its name before them.

    Args:
        prefix: before all names; unless given, that of the text encoder that the file is called by.

    Raises:
        BadInput: it cannot be read, or has other networks than these.
    """
    from safetensors.torch import load_file

    if prefix is None:
        prefix = f"{place.stem}." if place.stem in ENCODERS else ""
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
            found[prefix + str(name)] = held
        elif isinstance(held, Mapping) and any(isinstance(one, torch.Tensor) for one in held.values()):
            if name not in (*READ, "state_dict", "model"):
                raise BadInput(f"{place} has tensors under '{name}', which is no network: keep those that are meant.")
            own = f"{name}." if name in ENCODERS else ""
            found |= {f"{own}{inner}": one for inner, one in held.items() if isinstance(one, torch.Tensor)}
    if not found:
        raise BadInput(f"{place} holds no tensors by their names: name a checkpoint of an erased model.")
    return found


def scaled(place: Path) -> dict[str, float]:
    """What a LoRA of diffusers is multiplied with, by the network that its header has it for; "" is the denoiser.

    Raises:
        BadInput: it is one whose layers have scales of their own, or none that up @ down says.
    """
    from safetensors import safe_open

    if place.suffix != ".safetensors":
        return {}
    with safe_open(place, "pt") as opened:
        about = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
    found: dict[str, float] = {}
    for name, rank in about.items():
        network, dot, what = name.rpartition(".")
        if what in ("alpha_pattern", "rank_pattern", "use_rslora", "use_dora") and rank:
            raise BadInput(f"{place} is a LoRA with {what}, which is not read: merge it into the model and take that.")
        if what == "r":
            found[network if network in ENCODERS else ""] = float(about[f"{network}{dot}lora_alpha"]) / rank
    return found


def of_model(name: str, frozen: Mapping[str, Tensor]) -> str | None:
    """Which of a model's tensors is meant, or None."""
    bare = name if name.startswith("text_encoder") else f"text_encoder.{name}"
    prefix, _, inner = bare.partition(".")
    inner = inner.removeprefix("text_model.")
    return next((n for n in (name, bare, f"{prefix}.{inner}", f"{prefix}.text_model.{inner}") if n in frozen), None)


def stays(name: str, tensor: Tensor, model: Model) -> bool:
    """Is it a part of a network that no training changes, and as it is in this one?"""
    if name.endswith("position_ids") or name.endswith("logit_scale"):
        return True
    network: Any = getattr(model, "network", None)
    fixed = dict(network.named_buffers()) if network is not None else {}
    return name in fixed and torch.equal(fixed[name].cpu().to(tensor.dtype), tensor)


def first_names(tensors: Mapping[str, Tensor], model: Model, place: Path) -> dict[str, Tensor]:
    """The same with diffusers' names where those are of the first releases; their VAE and text encoder are left out,
    and that is said.

    Raises:
        BadInput: it is a part of such a U-Net, whose place cannot be told.
    """
    first = {name: tensor for name, tensor in tensors.items() if name.startswith(FIRST)}
    if not first:
        return dict(tensors)
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    network: Any = getattr(model, "network", None)
    try:
        made = convert_ldm_unet_checkpoint(dict(first), network.config)
    except (KeyError, AttributeError, TypeError):  # diffusers looks for what a whole one has
        made = {}
    if len(made) < len(first):
        raise BadInput(
            f"{place} has a part of a U-Net with the names of the first releases, or one of another architecture than "
            f"model={model.name}: take a whole one, or one in the diffusers layout."
        )
    log.info("%s: its U-Net is read; text encoder and VAE are those of model=%s.", place, model.name)
    return {**{n: t for n, t in tensors.items() if n not in first and not OTHER.match(n)}, **made}


def membrane(at: str, parts: Mapping[str, Tensor], own: Tensor, scale: float, place: Path) -> dict[str, Tensor]:
    """Low-rank factors of a matrix or kernel of the denoiser as our edits have them, alpha / rank in the first; of a
    text encoder's the matrix that comes of it.

    Raises:
        BadInput: a half is missing, or they are no factors of this matrix.
    """
    if {"down", "up"} - parts.keys():
        raise BadInput(f"{place} has half a low-rank pair for {at}: copy it anew.")
    down, up = parts["down"].flatten(1), parts["up"].flatten(1)
    if "alpha" in parts:
        scale = float(parts["alpha"].flatten()[0]) / len(down)
    if own.ndim < 2 or (len(up), down.shape[1], up.shape[1]) != (len(own), own[0].numel(), len(down)):
        raise BadInput(
            f"the low-rank pair for {at} in {place} does not fit the shape {tuple(own.shape)} that it has in this "
            "model: name the model= that it was made for."
        )
    if at.startswith("text_encoder"):
        return {at: own.detach().cpu() + scale * (up @ down).view_as(own)}
    return {f"lowrank.{at}.down": down.contiguous(), f"lowrank.{at}.up": (scale * up).contiguous()}
