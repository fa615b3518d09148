"""How a rectified flow is sampled: Euler's steps as diffusers takes them, at the timesteps of the family's pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor


class Euler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """A flow's own scheduler with what the loop of sampling.py asks of one.

    Attributes:
        tokens: pixels of the latents that the transformer looks at, by which a dynamic schedule is shifted.
        from_one: the steps are spread from 1 to 1 / n, as FLUX's pipeline has it, not as the scheduler's own.
    """

    init_noise_sigma, tokens, from_one = 1.0, 0, False

    @classmethod
    def like(cls, own: Any, tokens: int, from_one: bool) -> Euler:
        """That of a model with scheduler `own`."""
        made: Euler = cls.from_config(own.config)
        made.tokens, made.from_one = tokens, from_one
        return made

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        """Timesteps and sigmas of so many steps. A dynamic schedule is shifted by a line in the number of tokens (Esser
        et al. 2024, arXiv 2403.03206, 5.3.2, as FLUX's and SD 3.5's configs have it).
        """
        how, named = self.config, {}
        if how.use_dynamic_shifting:
            slope = (how.max_shift - how.base_shift) / (how.max_image_seq_len - how.base_image_seq_len)
            named["mu"] = how.base_shift + slope * (self.tokens - how.base_image_seq_len)
        if self.from_one:
            named["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        super().set_timesteps(steps, device=device, **named)

    def scale_model_input(self, x: Tensor, t: Any) -> Tensor:
        """A flow's network is given x as it is."""
        return x

    def add_noise(self, z: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """z (b, c, h, w) noised for timesteps (1,)."""
        share = timesteps.to(z) / self.config.num_train_timesteps
        return torch.lerp(z, noise, share.view(-1, 1, 1, 1))
