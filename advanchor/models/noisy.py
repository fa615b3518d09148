"""DDIM with more noise in its steps than its own."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor


class Noisy(DDIMScheduler):  # type: ignore[misc]
    """DDIM (Song et al. 2021, arXiv 2010.02502, eqs. 12 and 16) for any eta: 0 is DDIM, 1 is as random as DDPM. Above 1
    a step can ask for more noise than there is room for; what points to x_t, the root of 1 - alpha - sigma^2, is 0 then
    where it would not be a number.

    Attributes:
        eta: of sigma. `spread`: the noise of a step, sigma z, times this.
        draws: names the random numbers of the steps, for each image others under each pair of values.
    """

    eta, spread = 0.0, 1.0

    @classmethod
    def like(cls, own: Any, eta: float, spread: float) -> Noisy:
        """That of a model with scheduler `own`."""
        made: Noisy = cls.from_config(own.config)
        made.eta, made.spread = eta, spread
        return made

    @property
    def draws(self) -> str:
        return f"scheduler {self.eta:g} {self.spread:g}"

    def step(self, predicted: Tensor, t: Any, x: Tensor, generator: Any = None, return_dict: bool = False) -> Any:
        """(x of the next step,); `generator` is a list, one for each image."""
        later = int(t) - self.config.num_train_timesteps // self.num_inference_steps
        a = self.alphas_cumprod[int(t)]
        left = self.alphas_cumprod[later] if later >= 0 else self.final_alpha_cumprod
        sigma = self.eta * ((1 - left) / (1 - a) * (1 - a / left)).sqrt()
        z = torch.stack([torch.randn(x.shape[1:], generator=one) for one in generator]).to(x)
        if self.config.prediction_type == "v_prediction":
            predicted = a.sqrt() * predicted + (1 - a).sqrt() * x
        x0 = (x - (1 - a).sqrt() * predicted) / a.sqrt()
        return (left.sqrt() * x0 + (1 - left - sigma**2).clamp(min=0).sqrt() * predicted + self.spread * sigma * z,)
