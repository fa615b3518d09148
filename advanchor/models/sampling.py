"""How images are sampled: the loop of diffusers' pipelines, from noise that text and seed decide."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advanchor.core import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

# Pixels decoded together: the VAE's widest activation is 128 to 256 floats for each, about a gigabyte.
AT_ONCE = 4 * 512 * 512


def image_seed(text: str, seed: int, purpose: str = "") -> int:
    """A 63-bit seed from the prompt and its number, the same on every machine and in every process; of the start noise,
    or for another purpose.
    """
    return int.from_bytes(hashlib.sha256(f"{text}\n{seed}{purpose}".encode()).digest()[:8], "big") >> 1


def noise(texts: Sequence[str], seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """What each image starts from: (b, *shape), on the CPU."""
    own = [torch.Generator().manual_seed(image_seed(text, seed)) for text, seed in zip(texts, seeds, strict=True)]
    return torch.stack([torch.randn(tuple(shape), generator=one) for one in own])


def chosen(name: str, own: Any) -> Any:
    """The scheduler of a name (see `LatentDiffusion.draw`) for a model whose scheduler is `own`.

    Raises:
        BadInput: there is none of this name.
    """
    import diffusers

    if name != "own" and not hasattr(own, "alphas_cumprod"):
        raise BadInput(f"a flow has no scheduler '{name}', which is a diffusion's: set sample.scheduler=own.")
    makes: dict[str, Callable[[], Any]] = {
        "own": lambda: own,
        "ddim": lambda: diffusers.DDIMScheduler.from_config(own.config),
        "lms": lambda: diffusers.LMSDiscreteScheduler.from_config(own.config, timestep_spacing="linspace"),
    }
    if name not in makes:
        raise BadInput(f"there is no scheduler '{name}': use one of {', '.join(makes)}.")
    return makes[name]()


def taking(steps: int, scheduler: Any, timesteps: int, model: str, device: torch.device) -> Any:
    """A copy of the scheduler, since some change themselves, that takes so many steps.

    Args:
        timesteps: that the model was trained with.

    Raises:
        BadInput: it cannot.
    """
    if not 1 <= steps <= timesteps:
        raise BadInput(
            f"{steps} denoising steps will not do: from 1 to {timesteps}, the timesteps {model} was trained with."
        )
    scheduler = copy.deepcopy(scheduler)
    try:
        scheduler.set_timesteps(steps, device=device)
        last = timesteps - (hasattr(scheduler, "alphas_cumprod"))  # a flow begins at the end of its last
        possible = bool(scheduler.timesteps.max() <= last)  # an offset can lead beyond it
    except ValueError:  # of PNDM, whose first three are Runge-Kutta steps
        possible = False
    if not possible:
        raise BadInput(
            f"{type(scheduler).__name__} of {model} cannot take {steps} denoising steps: "
            f"take {'more' if steps < 5 else 'fewer'}."
        )
    return scheduler


def denoise(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    scheduler: Any,
    prompts: Sequence[tuple[str, int]],
    cond: Tensor,
    empty: Tensor,
    guidance: float,
    seen: list[Tensor] | None = None,
    until: int | None = None,
    at: int = 0,
    around: Tensor | None = None,
) -> Tensor:
    """The loop: latents (b, c, h, w) from start noise x (b, c, h, w).

    Args:
        predict: x, t, embeddings -> the model's prediction; of both halves at once where guidance is above 1.
        scheduler: as `taking` gives it. One that draws noise of its own gets a generator for each image.
        prompts: text and seed of each image.
        cond, empty: embeddings (b, L, d) of the prompts, and of what stands for no prompt.
        seen: what the denoiser is given at each step, (b, c, h, w), is appended to it.
        until: a step that is not taken, nor any after it.
        at: the first step that is taken; x is then what the denoiser is given there, of a scheduler that does not
            scale.
        around: latents to paint into (b, c, h, w), and where they stay, 1 or 0 (b, 1, h, w), in one tensor. There x is
            these latents after each step, noised for the next one with the start noise.
    """
    both = torch.cat([empty, cond]) if guidance > 1 else cond
    settings = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        draws = getattr(scheduler, "draws", "scheduler")
        numbers = [image_seed(text, seed, draws) for text, seed in prompts]
        settings["generator"] = [torch.Generator().manual_seed(number) for number in numbers]
    start, x = x, x if at else x * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        if i < at:
            continue
        given = scheduler.scale_model_input(torch.cat([x, x]) if guidance > 1 else x, t)
        if seen is not None:
            seen.append(given[: len(x)])
        if i == until:
            break
        predicted = predict(given, t, both)
        if guidance > 1:
            without, within = predicted.chunk(2)
            predicted = without + guidance * (within - without)
        x = scheduler.step(predicted, t, x, **settings, return_dict=False)[0]
        if around is not None:
            z, stays = around[:, :-1], around[:, -1:]
            following = scheduler.timesteps[i + 1 : i + 2]
            x = torch.where(stays > 0, scheduler.add_noise(z, start, following) if len(following) else z, x)
    return x


@torch.no_grad()
def decode(pipe: Any, z: Tensor) -> list[Image]:
    """Images of latents (b, c, h, w), a few at a time.

    Raises:
        BadInput: they are not finite.
    """
    images: list[Image] = []
    pixels = z[0, 0].numel() * pipe.vae_scale_factor**2
    for some in z.split(max(1, AT_ONCE // pixels)):
        scaled = some / pipe.vae.config.scaling_factor + (getattr(pipe.vae.config, "shift_factor", None) or 0)
        decoded = pipe.vae.decode(scaled, return_dict=False)[0]
        if not torch.isfinite(decoded).all():
            raise BadInput("the decoded images are not finite: lower the guidance, or method.lr if an edit is drawn.")
        images += pipe.image_processor.postprocess(decoded, output_type="pil")
    return images
