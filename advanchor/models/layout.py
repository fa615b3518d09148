"""A folder in the diffusers layout: is it a whole model of a family that is known? Told from its configs and from the
headers of its weights; nothing is loaded.

model_index.json           which class each part has, and the whole, which is the family
unet or transformer, vae, text_encoder/   config.json and the weights as safetensors, in one file or several with an
                           index; *.fp16.safetensors if there are no others
tokenizer/                 tokenizer_config.json, and tokenizer.json or vocab.json with merges.txt
scheduler/                 scheduler_config.json
text_encoder_2/, tokenizer_2/, text_encoder_3/, tokenizer_3/  of the families that have them

Pickles (.bin) are not read, not even with restricted unpickling: the format that holds nothing but tensors is there for
every published model, and its header says what is in it without loading.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advanchor import hub
from advanchor.core import BadInput, Need
from advanchor.models import fitting, noise_schedule

CLIP, PROJECTED, T5 = "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"


@dataclass(frozen=True)
class Family:
    """What a pipeline of a family is made of.

    Attributes:
        what: its name, for people.
        encoders: class of each text encoder; each has a tokenizer of the same ending.
        denoiser: folder and class.
        spare: encoders that a folder may lack.
        reads: the streams of tokens that its denoiser is given; t5 only where there is such an encoder.
        sentence: it is given an embedding of the whole sentence, too.
        added: the U-Net's kind of further input, if it has one.
    """

    what: str
    encoders: dict[str, str]
    denoiser: tuple[str, str] = ("unet", "UNet2DConditionModel")
    spare: tuple[str, ...] = ()
    reads: tuple[str, ...] = ("clip",)
    sentence: bool = True
    added: str | None = None

    @property
    def networks(self) -> dict[str, str]:
        return {**dict([self.denoiser]), "vae": "AutoencoderKL", **self.encoders}

    @property
    def tokenizers(self) -> dict[str, tuple[str, ...]]:
        """Classes that will do."""
        return {tokenizer_of(name): TOKENIZERS[cls] for name, cls in self.encoders.items()}

    def offers(self, predicts: str) -> set[Need]:
        """See core.py."""
        unet = self.denoiser[0] == "unet"
        has: dict[Need, bool] = {
            "a single text encoder": len(self.encoders) == 1,
            "a prediction of noise": predicts == "epsilon",
            "cross-attention layers": unet,
            "a diffusion's noise schedule": unet,
            "an embedding of the whole sentence": self.sentence,
            "CLIP's tokens": "clip" in self.reads,
            "T5's tokens": "t5" in self.reads and T5 in self.encoders.values(),
        }
        return {need for need, there in has.items() if there}


FAMILIES = {
    "StableDiffusionPipeline": Family("Stable Diffusion 1.x or 2.x", {"text_encoder": CLIP}, sentence=False),
    "StableDiffusionXLPipeline": Family(
        "Stable Diffusion XL", {"text_encoder": CLIP, "text_encoder_2": PROJECTED}, added="text_time"
    ),
    "StableDiffusion3Pipeline": Family(
        "Stable Diffusion 3",
        {"text_encoder": PROJECTED, "text_encoder_2": PROJECTED, "text_encoder_3": T5},
        ("transformer", "SD3Transformer2DModel"),
        spare=("text_encoder_2", "text_encoder_3"),
        reads=("clip", "t5"),
    ),
    "FluxPipeline": Family(
        "FLUX",
        {"text_encoder": CLIP, "text_encoder_2": T5},
        ("transformer", "FluxTransformer2DModel"),
        reads=("t5",),
    ),
}
OF_CLIP, OF_T5 = ("CLIPTokenizer", "CLIPTokenizerFast"), ("T5TokenizerFast", "T5Tokenizer")
TOKENIZERS = {CLIP: OF_CLIP, PROJECTED: OF_CLIP, T5: OF_T5}
TOKENIZER = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)


def tokenizer_of(encoder: str) -> str:
    """The name of a text encoder's tokenizer."""
    return encoder.replace("text_encoder", "tokenizer")


def files(root: Path) -> list[Path]:
    """Every file of a checked folder that is loaded, sorted."""
    found = [root / "model_index.json", root / "scheduler/scheduler_config.json"]
    for tokenizer in family(root).tokenizers:
        found += [f for name in TOKENIZER if (f := root / tokenizer / name).is_file()]
    for part in family(root).networks:
        found += [root / part / "config.json", *weights(root / part)]
    return sorted(found)


def check(root: Path) -> None:
    """Raise BadInput, one sentence with the remedy, if something is missing, damaged, or not of a known family."""
    settled(root)
    for part in family(root).networks:
        for file in weights(root / part):
            if file.suffix == ".safetensors":
                whole(file)


def settled(root: Path) -> None:
    """The same of all but the weights."""
    whole_of = family(root)
    index = read(root / "model_index.json")
    classes = {part: (cls,) for part, cls in whole_of.networks.items()} | whole_of.tokenizers
    for part, known in classes.items():
        if (found := named(index, part)) not in known:
            raise BadInput(
                f"{part} of {root} is a {found} where {whole_of.what} has a {known[0]} (model_index.json): "
                "set model.path to a folder of it."
            )
    scheduler(root)
    configs = {part: read(root / part / "config.json") for part in whole_of.networks}
    fitting.check(configs, list(whole_of.encoders.values()), whole_of.what, whole_of.added, root)
    for tokenizer, kinds in whole_of.tokenizers.items():
        if kinds == OF_T5 and not (root / tokenizer / "tokenizer.json").is_file():
            raise BadInput(f"{root / tokenizer}/tokenizer.json is missing: copy it from where the model came from.")
        vocabulary(root / tokenizer)


def family(root: Path) -> Family:
    """The family of a folder, with the encoders that are in it.

    Raises:
        BadInput: it has none that is known.
    """
    if not (root / "model_index.json").is_file():
        raise BadInput(
            f"{root} is not a diffusers pipeline (no model_index.json in it): "
            "set model.path to a local folder that is one, or to a repository of the hub."
        )
    index = read(root / "model_index.json")
    if (name := index.get("_class_name")) not in FAMILIES:
        known = ", ".join(f"{pipeline} ({one.what})" for pipeline, one in FAMILIES.items())
        raise BadInput(f"{root} is a {name}, and supported are {known}: set model.path to a folder of one of these.")
    made = FAMILIES[name]
    left = [part for part in made.spare if index.get(part) in (None, [None, None])]
    return replace(made, encoders={part: cls for part, cls in made.encoders.items() if part not in left})


def predicted(root: Path) -> str:
    """What the network of a folder predicts."""
    if family(root).denoiser[0] == "transformer":
        return "velocity"
    return str(read(root / "scheduler/scheduler_config.json").get("prediction_type", "epsilon"))


def distilled(root: Path) -> bool:
    """Whether guidance was distilled into the network of a folder, which is then told a scale of it."""
    kind, _ = family(root).denoiser
    return bool(read(root / kind / "config.json").get("guidance_embeds", False))


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


def weights(part: Path) -> list[Path]:
    """The safetensors files of a network, or its index and the files that it names; those in half precision if there
    are no others.

    Raises:
        BadInput: there are none, or one that the index names is missing.
    """
    names = {file.name for file in part.iterdir()} if part.is_dir() else set()
    if found := hub.weights_of(part.name, names):
        if found[0].endswith(".json"):
            shards = read(part / found[0]).get("weight_map")
            if not isinstance(shards, dict):
                raise BadInput(f"{part / found[0]} is no index: copy it anew from where the model came from.")
            if missing := sorted({str(name) for name in shards.values()} - set(found)):
                raise BadInput(f"{part / missing[0]} is missing: copy it from where the model came from.")
        return [part / name for name in found]
    stem = "model" if part.name.startswith("text_encoder") else "diffusion_pytorch_model"
    if pickles := sorted([*part.glob("*.bin"), *part.glob("*.pt"), *part.glob("*.ckpt")]):
        raise BadInput(
            f"{pickles[0]} is a pickle, which can hold more than tensors and is not read: "
            f"take {stem}.safetensors from where the model came from; or, if you trust the file, "
            "load the pipeline with diffusers and write it anew by save_pretrained('<folder>'), "
            "which makes safetensors."
        )
    raise BadInput(f"{part}/{stem}.safetensors is missing: copy it from where the model came from.")


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
    suits = noise_schedule.check if family(root).denoiser[0] == "unet" else noise_schedule.flow
    suits(name, read(root / "scheduler/scheduler_config.json"), root)
    return str(name)
