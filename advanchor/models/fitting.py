"""Do the networks of a folder fit each other? Told from their configs; the defaults are those of diffusers and
transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advanchor.core import BadInput

PROJECTED = "CLIPTextModelWithProjection"  # of Stable Diffusion 3, not of FLUX
# Further inputs of a U-Net; only Stable Diffusion XL has the first.
FOREIGN = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")


def check(
    configs: Mapping[str, dict[str, Any]], encoders: Sequence[str], what: str, added: str | None, root: Path
) -> None:
    """Raise BadInput, one sentence with the remedy, if they do not.

    Args:
        configs: of each network, by its folder's name: the denoiser, vae, and then the text encoders.
        encoders: classes of the text encoders.
        what: the family, for people.
        added: the U-Net's kind of further input, if its family has one.
        root: the folder, for the words of the error.
    """
    texts = [config for part, config in configs.items() if part.startswith("text_encoder")]
    if "unet" in configs:
        takes = unet(configs["unet"], texts, what, added, root)
        into, out = (configs["unet"].get(name, 4) for name in ("in_channels", "out_channels"))
    else:
        takes = transformer(configs["transformer"], texts, encoders, root)
        into, out = channels(configs["transformer"], PROJECTED not in encoders, root)
    network, latent = "U-Net" if "unet" in configs else "transformer", configs["vae"].get("latent_channels", 4)
    if not into == out == latent:
        raise BadInput(
            f"the {network} of {root} has {into} channels in and {out} out, its VAE {latent}: copy both folders anew, "
            "from one model."
        )
    for listens, width in takes:
        if listens != width:
            raise BadInput(
                f"the {network} of {root} takes embeddings of width {listens}, and what reads its text makes {width}: "
                "copy all folders anew, from one model."
            )


def unet(
    config: dict[str, Any], texts: Sequence[dict[str, Any]], what: str, added: str | None, root: Path
) -> list[tuple[int, int]]:
    """Pairs of widths that must be equal."""
    side(config, root / "unet/config.json")
    if config.get("in_channels") == 9:
        raise BadInput(
            f"{root} is an inpainting model (its U-Net takes 9 channels): "
            "use the text-to-image folder of the same version."
        )
    expected = {FOREIGN[0]: added}
    if other := [name for name in FOREIGN if config.get(name) != expected.get(name)]:
        raise BadInput(
            f"the U-Net of {root} has {other[0]} {json.dumps(config.get(other[0]))} where {what} has "
            f"{json.dumps(expected.get(other[0]))}: set model.path to a folder of it."
        )
    pairs = [(config.get("cross_attention_dim", 1280), sum(text.get("hidden_size", 512) for text in texts))]
    if added:  # six sizes, and the sentence
        sizes = 6 * (config.get("addition_time_embed_dim") or 0)
        projected = texts[-1].get("projection_dim", 512)
        pairs.append(((config.get("projection_class_embeddings_input_dim") or 0) - sizes, projected))
    return pairs


def transformer(
    config: dict[str, Any], texts: Sequence[dict[str, Any]], encoders: Sequence[str], root: Path
) -> list[tuple[int, int]]:
    """Pairs of widths that must be equal."""
    each = list(zip(texts, encoders, strict=True))
    t5 = [whole(text, "d_model", 512, root) for text, cls in each if cls.startswith("T5")]
    clip = [text for text, cls in each if not cls.startswith("T5")]
    tokens = whole(config, "joint_attention_dim", 4096, root)
    wide = sum(whole(text, "hidden_size", 512, root) for text in clip)
    if PROJECTED not in encoders:  # FLUX, whose encoder projects nothing
        return [(tokens, t5[0]), (whole(config, "pooled_projection_dim", 768, root), wide)]
    whole(config, "sample_size", 128, root)
    projected = sum(whole(text, "projection_dim", 512, root) for text in clip)
    told = whole(config, "pooled_projection_dim", 2048, root)
    return [*((tokens, width) for width in t5), (tokens, max(tokens, wide)), (told, projected)]


def channels(config: dict[str, Any], packs: bool, root: Path) -> tuple[int, int]:
    """Of a transformer's latents, in and out; FLUX packs four pixels into one token."""
    into = whole(config, "in_channels", 64 if packs else 16, root)
    out = into if config.get("out_channels") is None else whole(config, "out_channels", into, root)
    return (into // 4, out // 4) if packs else (into, out)


def whole(config: dict[str, Any], name: str, default: int, root: Path) -> int:
    """A setting that must be a number of things.

    Raises:
        BadInput: it is not.
    """
    value = config.get(name, default)
    if type(value) is not int or value < 1:
        raise BadInput(
            f"a config.json of {root} has {name} {json.dumps(value)}, which must be a whole number: copy it anew from "
            "where the model came from."
        )
    return value


def side(config: dict[str, Any], file: Path) -> int:
    """Width of the latents: 8, or [8, 8]."""
    size = config.get("sample_size")
    one = size[0] if isinstance(size, list) and len(size) == 2 and size[0] == size[1] else size
    if type(one) is not int or one < 1:
        raise BadInput(
            f"{file} has sample_size {json.dumps(size)}, and images here are square: set it to the latents' width, "
            "64 for Stable Diffusion 1.x, 96 for 2.1, 128 for XL."
        )
    return one
