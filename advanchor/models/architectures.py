"""The sizes of the published U-Net models, for files that hold tensors alone, and for networks of full size with random
weights. The numbers are those of the configs that were published beside the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CLIP_L: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
VAE: dict[str, Any] = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}


SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class Architecture:
    """Settings of each part.

    Attributes:
        pipeline: class of diffusers.
        encoders: settings of each text encoder (`layout.FAMILIES` has their classes).
        pads: what each tokenizer fills a sentence up with.
        predicts: what a checkpoint of it usually predicts; None if two kinds were published.
    """

    pipeline: str
    unet: dict[str, Any]
    vae: dict[str, Any]
    encoders: dict[str, dict[str, Any]]
    pads: tuple[str, ...]
    predicts: str | None = "epsilon"


END = "<|endoftext|>"
ARCHITECTURES = {
    "Stable Diffusion 1.x": Architecture("StableDiffusionPipeline", UNET, VAE, {"text_encoder": CLIP_L}, (END,)),
    "Stable Diffusion 2.x": Architecture(
        "StableDiffusionPipeline",
        {
            **UNET,
            "sample_size": 96,
            "attention_head_dim": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        {**VAE, "sample_size": 768},
        {
            "text_encoder": {
                **CLIP_L,
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 23,
                "num_attention_heads": 16,
                "hidden_act": "gelu",
                "projection_dim": 512,
            }
        },
        ("!",),
        predicts=None,
    ),
    "Stable Diffusion XL": Architecture(
        "StableDiffusionXLPipeline",
        {
            **UNET,
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        {**VAE, "sample_size": 1024, "scaling_factor": 0.13025},
        {
            "text_encoder": CLIP_L,
            "text_encoder_2": {
                **CLIP_L,
                "hidden_size": 1280,
                "intermediate_size": 5120,
                "num_hidden_layers": 32,
                "num_attention_heads": 20,
                "hidden_act": "gelu",
                "projection_dim": 1280,
            },
        },
        (END, "!"),
    ),
}
