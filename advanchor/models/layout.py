"""A folder in the diffusers layout: is it a whole model of a family that is known? Told from its configs and from the
headers of its weights; nothing is loaded.

model_index.json           which class each part has, and the whole, which is the family
unet, vae, text_encoder/   config.json and one safetensors file; *.fp16.safetensors if there is no other
tokenizer/                 tokenizer_config.json, and tokenizer.json or vocab.json with merges.txt
scheduler/                 scheduler_config.json
text_encoder_2/, tokenizer_2/  of Stable Diffusion XL

Pickles (.bin) are not read, not even with restricted unpickling: the format that holds nothing but tensors is there for
every published model, and its header says what is in it without loading.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advanchor import hub
from advanchor.core import BadInput, Need
from advanchor.models import noise_schedule


@dataclass(frozen=True)
class Family:
    """What a pipeline of a family is made of.

    Attributes:
        what: its name, for people.
        encoders: class of each text encoder; each has a tokenizer of the same ending.
        added: the U-Net's kind of further input, if it has one.
    """

    what: str
    encoders: dict[str, str]
    added: str | None = None

    @property
    def networks(self) -> dict[str, str]:
        return {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", **self.encoders}

    @property
    def tokenizers(self) -> list[str]:
        return [name.replace("text_encoder", "tokenizer") for name in self.encoders]


FAMILIES = {
    "StableDiffusionPipeline": Family("Stable Diffusion 1.x or 2.x", {"text_encoder": "CLIPTextModel"}),
    "StableDiffusionXLPipeline": Family(
        "Stable Diffusion XL",
        {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"},
        added="text_time",
    ),
}
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
TOKENIZER = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
# Further inputs of a U-Net; only Stable Diffusion XL has the first.
FOREIGN = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")


def files(root: Path) -> list[Path]:
    """Every file of a checked folder that is loaded, sorted."""
    found = [root / "model_index.json", root / "scheduler/scheduler_config.json"]
    for tokenizer in family(root).tokenizers:
        found += [f for name in TOKENIZER if (f := root / tokenizer / name).is_file()]
    for part in family(root).networks:
        found += [root / part / "config.json", weights(root / part)]
    return sorted(found)


def check(root: Path) -> None:
    """Raise BadInput, one sentence with the remedy, if something is missing, damaged, or not of a known family."""
    whole_of = family(root)
    index = read(root / "model_index.json")
    classes = {part: (cls,) for part, cls in whole_of.networks.items()} | dict.fromkeys(whole_of.tokenizers, TOKENIZERS)
    for part, known in classes.items():
        if (found := named(index, part)) not in known:
            raise BadInput(
                f"{part} of {root} is a {found} where {whole_of.what} has a {known[0]} (model_index.json): "
                "set model.path to a folder of it."
            )
    scheduler(root)
    configs = {part: read(root / part / "config.json") for part in whole_of.networks}
    unet, vae, texts = configs["unet"], configs["vae"], [configs[part] for part in whole_of.encoders]
    side(unet, root)
    if unet.get("in_channels") == 9:
        raise BadInput(
            f"{root} is an inpainting model (its U-Net takes 9 channels): "
            "use the text-to-image folder of the same version."
        )
    expected = {FOREIGN[0]: whole_of.added}
    if other := [name for name in FOREIGN if unet.get(name) != expected.get(name)]:
        raise BadInput(
            f"the U-Net of {root} has {other[0]} {json.dumps(unet.get(other[0]))} where {whole_of.what} has "
            f"{json.dumps(expected.get(other[0]))}: set model.path to a folder of it."
        )
    # the defaults are those of diffusers
    into, out, latent = unet.get("in_channels", 4), unet.get("out_channels", 4), vae.get("latent_channels", 4)
    if not into == out == latent:
        raise BadInput(
            f"the U-Net of {root} has {into} channels in and {out} out, its VAE {latent}: copy both folders anew, "
            "from one model."
        )
    pairs = [(unet.get("cross_attention_dim", 1280), sum(text.get("hidden_size", 512) for text in texts))]
    if whole_of.added:  # six sizes, and the sentence
        sizes = 6 * (unet.get("addition_time_embed_dim") or 0)
        projected = texts[-1].get("projection_dim", 512)
        pairs.append(((unet.get("projection_class_embeddings_input_dim") or 0) - sizes, projected))
    for listens, width in pairs:
        if listens != width:
            raise BadInput(
                f"the U-Net of {root} takes embeddings of width {listens}, and what reads its text makes {width}: "
                "copy all folders anew, from one model."
            )
    for part in whole_of.networks:
        whole(weights(root / part))
    for tokenizer in whole_of.tokenizers:
        vocabulary(root / tokenizer)


def family(root: Path) -> Family:
    """The family of a folder.

    Raises:
        BadInput: it has none that is known.
    """
    if not (root / "model_index.json").is_file():
        raise BadInput(
            f"{root} is not a diffusers pipeline (no model_index.json in it): "
            "set model.path to a local folder that is one, or to a repository of the hub."
        )
    if (name := read(root / "model_index.json").get("_class_name")) not in FAMILIES:
        known = ", ".join(f"{pipeline} ({one.what})" for pipeline, one in FAMILIES.items())
        raise BadInput(f"{root} is a {name}, and supported are {known}: set model.path to a folder of one of these.")
    return FAMILIES[name]


def predicted(root: Path) -> str:
    """What the network of a folder predicts."""
    return str(read(root / "scheduler/scheduler_config.json").get("prediction_type", "epsilon"))


def offered(encoders: int, predicts: str) -> set[Need]:
    """What a model with so many text encoders offers."""
    single: set[Need] = {"a single text encoder"} if encoders == 1 else set()
    return single | ({"a prediction of noise"} if predicts == "epsilon" else set())


def read(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        BadInput: there is none, or it is damaged.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{file} is missing: copy it from where the model came from.") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} cannot be read ({error}): copy it anew from where the model came from.") from None
    if not isinstance(value, dict):
        raise BadInput(f"{file} is not a JSON object: copy it anew from where the model came from.")
    return value


def named(index: dict[str, Any], part: str) -> Any:
    """The class of a part in model_index.json, of whichever library."""
    entry = index.get(part)
    if isinstance(entry, list) and len(entry) == 2 and entry[0] in ("diffusers", "transformers"):
        return entry[1]
    return entry


def side(unet: dict[str, Any], root: Path) -> int:
    """Width of the latents: 8, or [8, 8]."""
    size = unet.get("sample_size")
    one = size[0] if isinstance(size, list) and len(size) == 2 and size[0] == size[1] else size
    if type(one) is not int or one < 1:
        raise BadInput(
            f"{root / 'unet/config.json'} has sample_size {json.dumps(size)}, and images here are square: "
            "set it to the latents' width, 64 for Stable Diffusion 1.x, 96 for 2.1."
        )
    return one


def weights(part: Path) -> Path:
    """The safetensors file of a network; the half-precision one if it is alone.

    Raises:
        BadInput: there is none.
    """
    whole, half = hub.weights_of(part.name)
    for name in (whole, half):
        if (part / name).is_file():
            return part / name
    if any(part.glob("*.index*.json")):
        raise BadInput(
            f"the weights in {part} are cut into several files: save the pipeline once more with diffusers, "
            "save_pretrained('<folder>', max_shard_size='100GB')."
        )
    if pickles := sorted([*part.glob("*.bin"), *part.glob("*.pt"), *part.glob("*.ckpt")]):
        raise BadInput(
            f"{pickles[0]} is a pickle, which can hold more than tensors and is not read: "
            f"take {whole} from where the model came from; or, if you trust the file, "
            "load the pipeline with diffusers and write it anew by save_pretrained('<folder>'), "
            "which makes safetensors."
        )
    raise BadInput(f"{part / whole} is missing: copy it from where the model came from.")


def whole(file: Path) -> set[str]:
    """The names of the tensors in a safetensors file, from its header.

    The format: 8 bytes, the header's length n; n bytes of JSON, name -> dtype, shape, data_offsets; the data.

    Raises:
        BadInput: it is not as long as its header says, or holds what are no floating-point weights.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as f:
            first = f.read(8)
            if first == b"version ":
                raise BadInput(
                    f"{file} is a Git LFS pointer, not the weights: run `git lfs pull` in the model's folder."
                )
            length = int.from_bytes(first, "little")
            tensors = json.loads(f.read(length)) if 8 + length <= size else None
        if not isinstance(tensors, dict):
            raise ValueError("its header is cut off")
        tensors.pop("__metadata__", None)
        if (end := 8 + length + max((one["data_offsets"][1] for one in tensors.values()), default=0)) != size:
            raise ValueError(f"it has {size} bytes where its header says {end}")
        other = {one["dtype"] for one in tensors.values()} - {"F16", "BF16", "F32", "F64", "I64"}
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise BadInput(f"{file} is damaged ({error}): copy it anew from where the model came from.") from None
    if other:
        raise BadInput(f"{file} holds weights of type {min(other)}: use a folder whose weights are not quantised.")
    return set(tensors)


def vocabulary(tokenizer: Path) -> None:
    """Raise BadInput if the tokenizer's files are not all there and readable."""
    read(tokenizer / "tokenizer_config.json")
    if not (tokenizer / "tokenizer.json").is_file():
        if not (tokenizer / "vocab.json").is_file() or not (tokenizer / "merges.txt").is_file():
            raise BadInput(
                f"{tokenizer} has neither tokenizer.json nor vocab.json with merges.txt: "
                "copy them from where the model came from."
            )
        if "#version" not in (merges := text_of(tokenizer / "merges.txt"))[:20] or len(merges.splitlines()) < 2:
            raise BadInput(f"{tokenizer / 'merges.txt'} is damaged: copy it anew from where the model came from.")
    for name in TOKENIZER:
        if name.endswith(".json") and (tokenizer / name).is_file():
            read(tokenizer / name)


def text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} cannot be read ({error}): copy it anew from where the model came from.") from None


def scheduler(root: Path) -> str:
    """The class of a folder's scheduler.

    Raises:
        BadInput: it will not do (noise_schedule.py).
    """
    name = named(read(root / "model_index.json"), "scheduler")
    noise_schedule.check(name, read(root / "scheduler/scheduler_config.json"), root)
    return str(name)
