"""A checkpoint that is one .safetensors file, in the layout of the first releases: tensors of all networks, and nothing
that says how they are put together. The sizes are those of the published architecture, told from the tensors' names;
the tokenizer is CLIP's, from open_clip's copy of its vocabulary.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from advanchor.core import BadInput
from advanchor.models import layout
from advanchor.models.architectures import ARCHITECTURES, SCHEDULE, Architecture
from advanchor.models.loading import assembled, fitted, quiet

# A name that only files of the architecture hold.
MARKS = {
    "Stable Diffusion XL": "conditioner.embedders.1.model.ln_final.weight",
    "Stable Diffusion 2.x": "cond_stage_model.model.ln_final.weight",
    "Stable Diffusion 1.x": "cond_stage_model.transformer.text_model.final_layer_norm.weight",
}


def architecture(file: Path) -> Architecture:
    """What a file is, from its header.

    Raises:
        BadInput: it is damaged, a pickle, or of none that is known.
    """
    if file.suffix != ".safetensors":
        raise BadInput(
            f"{file} is no .safetensors, and a pickle can hold more than tensors and is not read: take the "
            ".safetensors of the same model, or a folder in the diffusers layout."
        )
    names = layout.whole(file)
    for what, mark in MARKS.items():
        if mark in names:
            return ARCHITECTURES[what]
    raise BadInput(
        f"{file} is no checkpoint of {', '.join(sorted(MARKS))} with its text encoders and VAE: set model.path to a "
        "whole one, or to a folder in the diffusers layout."
    )


def predicted(file: Path, asked: str | None) -> str:
    """What the model of a file predicts, which the file does not say.

    Raises:
        BadInput: as `architecture`, or nobody says it, or what is said is of no such model.
    """
    made = architecture(file)
    if asked == "velocity":
        raise BadInput(
            f"{file} is one of {', '.join(sorted(MARKS))}, which predict no velocity: take the model= that it is; of "
            "Stable Diffusion 3 and FLUX set model.path to a folder in the diffusers layout."
        )
    if (known := asked or made.predicts) is None:
        raise BadInput(
            f"{file} does not say what it predicts: add model.predicts=v_prediction (2.1 of 768 px) or "
            "model.predicts=epsilon (base, 512 px)."
        )
    return known


def pipeline(file: Path, asked: str | None, dtype: str = "float32") -> Any:
    """The pipeline of a file that passed the checks above, with DDIM; `dtype` as in loading.py.

    Raises:
        BadInput: its tensors are not those of its architecture.
    """
    import advanchor.torchvision_ops  # noqa: F401, I001  (before diffusers)
    import diffusers
    import torch
    import transformers
    from diffusers.loaders import single_file_utils as names
    from safetensors.torch import load_file

    made = architecture(file)
    family = layout.FAMILIES[made.pipeline]
    tensors = {name: tensor.float() for name, tensor in load_file(file).items() if tensor.is_floating_point()}
    sizes = dict(made.unet)
    if made.predicts is None and predicted(file, asked) == "epsilon":
        sizes["sample_size"] = 64  # the base model of 2.x is the smaller one
    parts: dict[str, Any] = {}
    with quiet():
        unet = diffusers.UNet2DConditionModel(**sizes)
        parts["unet"] = fitted(unet, names.convert_ldm_unet_checkpoint(dict(tensors), unet.config), file)
        vae = diffusers.AutoencoderKL(**made.vae)
        parts["vae"] = fitted(vae, names.convert_ldm_vae_checkpoint(dict(tensors), vae.config), file)
        for (part, settings), pad in zip(made.encoders.items(), made.pads, strict=True):
            encoder = getattr(transformers, family.encoders[part])(transformers.CLIPTextConfig(**settings))
            prefix = {"text_encoder_2": "conditioner.embedders.1.model."}.get(part, "cond_stage_model.model.")
            if f"{prefix}ln_final.weight" in tensors and (part != "text_encoder" or made.predicts is None):
                own = names.convert_open_clip_checkpoint(encoder, tensors, prefix=prefix)
            else:
                own = names.convert_ldm_clip_checkpoint(tensors)
            wrapped = any(name.startswith("text_model.") for name in encoder.state_dict())
            own = own if wrapped else {name.removeprefix("text_model."): tensor for name, tensor in own.items()}
            parts[part] = fitted(encoder, own, file)
            parts[part.replace("text_encoder", "tokenizer")] = tokenizer(pad, settings["max_position_embeddings"])
        parts["scheduler"] = diffusers.DDIMScheduler(**SCHEDULE, prediction_type=predicted(file, asked))
        for part in ("unet", *made.encoders):
            parts[part].to(getattr(torch, dtype))
        return assembled(made.pipeline, parts)


def tokenizer(pad: str, length: int) -> Any:
    """CLIP's byte-pair tokenizer (Radford et al. 2021, arXiv 2103.00020): 49,152 merges and bytes, start and end."""
    from transformers import CLIPTokenizer

    found = find_spec("open_clip")
    assert found is not None
    assert found.origin is not None
    with gzip.open(Path(found.origin).parent / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as lines:
        merges = [tuple(line.split()) for line in lines.read().split("\n")[1 : 49152 - 256 - 2 + 1]]
    pieces = [*letters(), *(f"{letter}</w>" for letter in letters()), *map("".join, merges)]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=length)


def letters() -> Sequence[str]:
    """A printable character for each byte, in the order of GPT-2's vocabulary: first those that are printable."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    other = [byte for byte in range(256) if byte not in shown]
    return [*map(chr, shown), *(chr(256 + i) for i in range(len(other)))]
