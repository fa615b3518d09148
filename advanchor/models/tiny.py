"""Tiny models with random weights and the emoji tokenizer, one of each family: they draw noise and cost nothing."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from advanchor import hub
from advanchor.core import Need, option
from advanchor.machine import NOTHING_SPARED, Lean
from advanchor.models.architectures import SCHEDULE
from advanchor.models.layout import FAMILIES, tokenizer_of
from advanchor.models.loading import assembled, quiet
from advanchor.models.spaces import Predicts
from advanchor.models.stable_diffusion import Dtype

if TYPE_CHECKING:
    from advanchor.models.latent_diffusion import LatentDiffusion

PIPELINES = {
    "sd": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "sd35": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "schnell": "FluxPipeline",
}
Kind = Literal["sd", "sdxl", "sd3", "sd35", "flux", "schnell"]
PROJECTED, WIDE = 16, 56  # of a sentence's embedding; of T5, and of SDXL's two encoders together


@option("model")
class Random:
    """A tiny model with random weights. For tests.

    Attributes:
        family: the architecture: of Stable Diffusion 1.x and 2.x, XL, 3, 3.5 medium, FLUX.1 dev or schnell.
        predicts: what a U-Net's output is taken for, epsilon unless said; velocity is that of the others.
        dtype: as that of `StableDiffusion`.
    """

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    family: Kind = "sd"
    predicts: Predicts | None = None
    dtype: Dtype = "float32"
    version: int = 1

    def __post_init__(self) -> None:
        if self.predicts is not None and (self.predicts == "velocity") != self.flows:
            raise ValueError(f"family={self.family} does not predict {self.predicts}: set predicts=null")

    @property
    def space(self) -> Predicts:
        """What it predicts."""
        return self.predicts or ("velocity" if self.flows else "epsilon")

    @property
    def flows(self) -> bool:
        return self.family not in ("sd", "sdxl")

    @property
    def offers(self) -> set[Need]:
        """See core.py."""
        return FAMILIES[PIPELINES[self.family]].offers(self.space)

    def check(self) -> None:
        """Nothing can be missing."""

    def files(self) -> list[Path]:
        """The tokenizer's; the weights come from the seed."""
        return sorted((hub.ASSETS / "emoji/tokenizer").iterdir())

    def open(self, device: str, lean: Lean = NOTHING_SPARED) -> LatentDiffusion:
        from advanchor.models.latent_diffusion import LatentDiffusion

        model = LatentDiffusion(self.name, self.pipe(), device, "none", 3.5 if self.family == "flux" else None, lean)
        model.made_by = __name__
        return model

    def pipe(self) -> Any:
        """The pipeline of diffusers."""
        import advanchor.torchvision_ops  # noqa: F401, I001  (before diffusers)
        import diffusers
        import torch

        family = FAMILIES[PIPELINES[self.family]]
        parts: dict[str, Any] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            parts["vae"] = diffusers.AutoencoderKL(**vae(16 if self.flows else 4))
            for name, cls in family.encoders.items():
                parts |= encoder(name, cls, 32 if name == "text_encoder" else 24)
            kind, cls = family.denoiser
            parts[kind] = getattr(diffusers, cls)(**networks(self.family))
        if self.flows:
            parts["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler(
                shift=3.0, use_dynamic_shifting=self.family == "flux"
            )
        else:
            parts["scheduler"] = diffusers.DDIMScheduler(**SCHEDULE, prediction_type=self.space)
        with quiet():
            for part in (family.denoiser[0], *family.encoders):
                parts[part].to(getattr(torch, self.dtype))
        pipe = assembled(PIPELINES[self.family], parts)
        if PIPELINES[self.family] == "FluxPipeline":
            pipe.default_sample_size = 8  # its transformer would take any
        return pipe


def vae(channels: int) -> dict[str, Any]:
    return {
        "sample_size": 32,
        "block_out_channels": (8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "mid_block_add_attention": False,
        "layers_per_block": 1,
        "latent_channels": channels,
        "norm_num_groups": 4,
        **({"shift_factor": 0.06} if channels == 16 else {}),
    }


def networks(family: Kind) -> dict[str, Any]:
    """Settings of the denoiser."""
    if family in ("sd", "sdxl"):
        return unet(family)
    return sd3(family) if family in ("sd3", "sd35") else flux(family)


def unet(family: Kind) -> dict[str, Any]:
    further: dict[str, Any] = {}
    if family == "sdxl":
        further = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": PROJECTED + 6 * 8,
            "cross_attention_dim": WIDE,
            "transformer_layers_per_block": (1, 2),
        }
    return {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "cross_attention_dim": 32,
        **further,
    }


def sd3(family: Kind) -> dict[str, Any]:
    further = {"dual_attention_layers": (0,), "qk_norm": "rms_norm"} if family == "sd35" else {}
    return {
        "sample_size": 8,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDE,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 2 * PROJECTED,
        "pos_embed_max_size": 8,
        **further,
    }


def flux(family: Kind) -> dict[str, Any]:
    return {
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDE,
        "pooled_projection_dim": 32,
        "guidance_embeds": family == "flux",
        "axes_dims_rope": (2, 2, 4),
    }


def encoder(name: str, cls: str, width: int) -> dict[str, Any]:
    """A text encoder of this class and its tokenizer, by the names that they have in a folder."""
    import transformers

    if cls == "T5EncoderModel":
        words = tokenizer()
        config = transformers.T5Config(
            vocab_size=len(words),
            d_model=WIDE,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            pad_token_id=0,
            eos_token_id=1,
        )
        return {name: transformers.T5EncoderModel(config), tokenizer_of(name): words}
    clip = transformers.CLIPTokenizer.from_pretrained(hub.ASSETS / "emoji/tokenizer")
    settings = transformers.CLIPTextConfig(
        vocab_size=len(clip),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=clip.model_max_length,
        projection_dim=PROJECTED,
        **{f"{k}_token_id": getattr(clip, f"{k}_token_id") for k in ("bos", "eos", "pad")},
    )
    return {name: getattr(transformers, cls)(settings), tokenizer_of(name): clip}


def tokenizer() -> Any:
    """A tokenizer of T5's kind that knows letters, a few words and parts of words."""
    from transformers import T5Tokenizer

    marks = ["<pad>", "</s>", "<unk>", "▁"]
    letters = [*ascii_lowercase, *digits, *"'(),.-"]
    known = ["▁a", "▁an", "▁of", "▁in", "▁emoji", "▁picture", "▁style", "▁fox", "▁car", "▁bug", "▁butter", "fly"]
    scores = {**dict.fromkeys(marks, 0.0), **dict.fromkeys(letters, -8.0), **dict.fromkeys(known, -2.0), "▁": -4.0}
    return T5Tokenizer(vocab=list(scores.items()), extra_ids=0, model_max_length=32)
