"""Tiny models with random weights and the emoji tokenizer, one of each family: they draw noise and cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from advanchor import hub
from advanchor.core import Need, option
from advanchor.models.architectures import SCHEDULE
from advanchor.models.layout import offered
from advanchor.models.loading import assembled
from advanchor.models.spaces import Predicts

if TYPE_CHECKING:
    from advanchor.models.latent_diffusion import LatentDiffusion


@option("model")
class Random:
    """A tiny model with random weights. For tests.

    Attributes:
        family: the architecture, of Stable Diffusion 1.x and 2.x, or of XL.
        predicts: what its output is taken for.
    """

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    family: Literal["sd", "sdxl"] = "sd"
    predicts: Predicts = "epsilon"
    version: int = 1

    @property
    def offers(self) -> set[Need]:
        """See core.py."""
        return offered(1 if self.family == "sd" else 2, self.predicts)

    def check(self) -> None:
        """Nothing can be missing."""

    def files(self) -> list[Path]:
        """The tokenizer's; the weights come from the seed."""
        return sorted((hub.ASSETS / "emoji/tokenizer").iterdir())

    def open(self, device: str) -> LatentDiffusion:
        from advanchor.models.latent_diffusion import LatentDiffusion

        model = LatentDiffusion(self.name, self.pipe(), device, "none")
        model.made_by = __name__
        return model

    def pipe(self) -> Any:
        """The pipeline of diffusers."""
        import advanchor.torchvision_ops  # noqa: F401, I001  (before diffusers)
        import diffusers
        import torch
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(hub.ASSETS / "emoji/tokenizer")
        ids = {f"{k}_token_id": getattr(tokenizer, f"{k}_token_id") for k in ("bos", "eos", "pad")}

        def words(width: int) -> CLIPTextConfig:
            return CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=tokenizer.model_max_length,
                projection_dim=16,
                **ids,
            )

        scheduler = diffusers.DDIMScheduler(**SCHEDULE, prediction_type=self.predicts)
        further: dict[str, Any] = {}
        if self.family == "sdxl":
            further = {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 16 + 6 * 8,
                "cross_attention_dim": 32 + 24,
                "transformer_layers_per_block": (1, 2),
            }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            vae = diffusers.AutoencoderKL(
                sample_size=32,
                block_out_channels=(8, 16, 16),
                down_block_types=("DownEncoderBlock2D",) * 3,
                up_block_types=("UpDecoderBlock2D",) * 3,
                mid_block_add_attention=False,
                layers_per_block=1,
                latent_channels=4,
                norm_num_groups=4,
            )
            text_encoder = CLIPTextModel(words(32))
            unet = diffusers.UNet2DConditionModel(
                sample_size=8,
                in_channels=4,
                out_channels=4,
                block_out_channels=(16, 32),
                down_block_types=("CrossAttnDownBlock2D",) * 2,
                up_block_types=("CrossAttnUpBlock2D",) * 2,
                layers_per_block=1,
                norm_num_groups=4,
                attention_head_dim=2,
                **{"cross_attention_dim": 32, **further},
            )
            second = CLIPTextModelWithProjection(words(24)) if self.family == "sdxl" else None
        parts = {"vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "unet": unet, "scheduler": scheduler}
        return assembled(parts if second is None else {**parts, "text_encoder_2": second, "tokenizer_2": tokenizer})
