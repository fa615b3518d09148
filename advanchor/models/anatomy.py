"""What of a loaded pipeline is what, family by family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from advanchor.models.flow import Euler
from advanchor.models.inputs import Inputs, flux, plain, sd3, unpacked, xl
from advanchor.models.joint import Joint
from advanchor.models.sentences import Sentences
from advanchor.models.spaces import Diffusion, Flow
from advanchor.models.two_encoders import TwoEncoders

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Anatomy:
    """A pipeline's parts, for `LatentDiffusion`.

    Attributes:
        network: the denoiser. `inputs`: what it is called with; `latents`: what it puts out, as latents like x.
        channels, side: of the latents. `solver`: the scheduler that the pipeline has now.
    """

    network: Any
    sentences: Sentences | TwoEncoders | Joint
    inputs: Inputs
    space: Diffusion | Flow
    channels: int
    side: int
    solver: Callable[[], Any]
    latents: Callable[[Tensor, Tensor], Tensor] = lambda out, x: out


def of(pipe: Any, device: torch.device, distilled: float | None) -> Anatomy:
    """The anatomy of a pipeline of diffusers.

    Args:
        distilled: the scale of guidance that a guidance-distilled transformer is told.
    """
    if not hasattr(pipe, "transformer"):
        return unet(pipe, device)
    network, schedule = pipe.transformer, pipe.scheduler.config
    packs = type(pipe).__name__ == "FluxPipeline"
    names = [n for n in ("text_encoder", "text_encoder_2", "text_encoder_3") if getattr(pipe, n, None) is not None]
    sentences = Joint(
        {f"{name}.": getattr(pipe, name.replace("text_encoder", "tokenizer")) for name in names},
        {f"{name}.": getattr(pipe, name) for name in names},
        device,
        width=network.config.joint_attention_dim,
        read=512 if packs and network.config.guidance_embeds else 256,  # of FLUX.1 dev; schnell was distilled with 256
        flux=packs,
    )
    side: int = pipe.default_sample_size if packs else network.config.sample_size
    return Anatomy(
        network,
        sentences,
        flux(sentences.pooled, distilled) if packs else sd3(sentences.pooled),
        Flow(schedule.num_train_timesteps),
        network.config.in_channels // 4 if packs else network.config.in_channels,
        side,
        lambda: Euler.like(pipe.scheduler, (side // (2 if packs else network.config.patch_size)) ** 2, packs),
        unpacked if packs else lambda out, x: out,
    )


def unet(pipe: Any, device: torch.device) -> Anatomy:
    """That of a Stable Diffusion 1.x, 2.x or XL."""
    config, schedule = pipe.unet.config, pipe.scheduler
    side: int = config.sample_size if isinstance(config.sample_size, int) else config.sample_size[0]
    sentences: Sentences | TwoEncoders
    inputs: Inputs
    if hasattr(pipe, "text_encoder_2"):
        encoders = {"text_encoder.": pipe.text_encoder, "text_encoder_2.": pipe.text_encoder_2}
        blank = bool(pipe.config.force_zeros_for_empty_prompt)
        sentences = TwoEncoders((pipe.tokenizer, pipe.tokenizer_2), encoders, device, blank)
        inputs = xl(side * pipe.vae_scale_factor, sentences.pooled)
    else:
        sentences, inputs = Sentences(pipe.tokenizer, pipe.text_encoder, device), plain
    space = Diffusion(schedule.alphas_cumprod.to(device), schedule.config.prediction_type)
    return Anatomy(pipe.unet, sentences, inputs, space, config.in_channels, side, lambda: pipe.scheduler)
