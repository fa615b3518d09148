"""A checked folder in the diffusers layout (layout.py) as a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from advanchor.core import BadInput
from advanchor.lazy import torch
from advanchor.models import layout


def pipeline(root: Path, dtype: str = "float32") -> Any:
    """The pipeline of a folder that passed `layout.check`.

    Args:
        dtype: of text encoders and denoiser; the VAE is small, stays in float32, and some overflow in float16.

    Raises:
        BadInput: the tensors are not those of the configs.
    """
    import advanchor.torchvision_ops  # noqa: F401, I001  (before diffusers)
    import diffusers
    import transformers

    family = layout.family(root)
    transformers.utils.logging.disable_progress_bar()  # loading takes a second; its bar would outlast ours
    parts: dict[str, Any] = {}
    with quiet():
        for encoder, (tokenizer, classes) in zip(family.encoders, family.tokenizers.items(), strict=True):
            cls = getattr(transformers, classes[0])
            read = partial(cls.from_pretrained, root / tokenizer, local_files_only=True)
            parts[tokenizer] = loaded(root / tokenizer, read)
            parts[encoder] = network(getattr(transformers, family.encoders[encoder]), root / encoder, dtype)
            if len(parts[tokenizer]) > parts[encoder].config.vocab_size:
                raise BadInput(
                    f"{root / tokenizer} has {len(parts[tokenizer])} tokens and the text encoder "
                    f"{parts[encoder].config.vocab_size}: copy both folders anew, from one model."
                )
        for part in ("vae", family.denoiser[0]):
            kept = "float32" if part == "vae" else dtype
            parts[part] = network(getattr(diffusers, family.networks[part]), root / part, kept)
        where, chosen = root / "scheduler", getattr(diffusers, layout.scheduler(root))
        parts["scheduler"] = loaded(where, lambda: chosen.from_pretrained(where, local_files_only=True))
        index = layout.read(root / "model_index.json")
        # the default is that of diffusers
        return assembled(index["_class_name"], parts, index.get("force_zeros_for_empty_prompt", True))


def assembled(pipeline: str, parts: Mapping[str, Any], blank: bool = True) -> Any:
    """The pipeline, by its class in diffusers, of these parts, by the names that they have in a folder.

    Args:
        blank: of Stable Diffusion XL: no prompt is all zeros when sampling.
    """
    import diffusers

    whole_of = layout.FAMILIES[pipeline]
    if whole_of.denoiser[0] == "transformer":
        lacking = {name: None for part in whole_of.spare for name in (part, layout.tokenizer_of(part))}
        return getattr(diffusers, pipeline)(**{**lacking, **parts})
    if pipeline == "StableDiffusionXLPipeline":
        return diffusers.StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=blank, add_watermarker=False)
    return diffusers.StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False
    )


def network(cls: Any, part: Path, dtype: str = "float32") -> Any:
    """A network in which every tensor comes from the file, and every tensor of the file has its place.

    Raises:
        BadInput: it is not so.
    """
    variant = {"variant": "fp16"} if ".fp16" in layout.weights(part)[-1].name else {}
    # low_cpu_mem_usage needs one more package
    settings = variant if cls.__module__.startswith("transformers") else {"low_cpu_mem_usage": False, **variant}
    net, found = loaded(
        part,
        lambda: cls.from_pretrained(
            part,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **settings,
        ),
    )
    missing, misfit = sorted(found["missing_keys"]), sorted(str(one[0]) for one in found["mismatched_keys"])
    same(missing, misfit, sorted(found["unexpected_keys"]), f"{layout.weights(part)[0]} and config.json", part)
    return net


def fitted(net: Any, tensors: Mapping[str, Any], file: Path) -> Any:
    """A network with the tensors of a file, every one of which has its place.

    Raises:
        BadInput: it is not so.
    """
    own = net.state_dict()
    misfit = sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape)
    what = f"{file} and the {type(net).__name__} of its architecture"
    same(sorted(own.keys() - tensors.keys()), misfit, sorted(tensors.keys() - own.keys()), what, file)
    net.load_state_dict(tensors, strict=False)
    return net


def same(missing: Sequence[str], misfit: Sequence[str], other: Sequence[str], files: str, place: Path) -> None:
    """Raise BadInput if weights and network are two."""
    # buffers that older versions saved, and that newer ones make
    foreign, missing = ([n for n in names if not n.endswith("position_ids")] for names in (other, missing))
    for what, names in (("lack", missing), ("have another shape for", misfit), ("hold", foreign)):
        if names:
            more = f" and {len(names) - 1} more" if names[1:] else ""
            raise BadInput(
                f"{files} are not of one network (the weights {what} {names[0]}{more}): copy {place} anew, all of it "
                "from one model."
            )


def loaded(part: Path, load: Callable[[], Any]) -> Any:
    """What a library makes of one part of a folder, or one sentence: the libraries raise whatever they meet."""
    try:
        return load()
    except Exception as error:
        raise BadInput(
            f"{part} cannot be loaded ({' '.join(str(error).split())[:200]}): "
            "copy it anew from where the model came from."
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, the libraries do not print what we say in our own words."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = [(library, library.get_verbosity()) for library in (diffusers_logging, transformers_logging)]
    try:
        for library, _ in before:
            library.set_verbosity_error()
        yield
    finally:
        for library, verbosity in before:
            library.set_verbosity(verbosity)
