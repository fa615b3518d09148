"""What a denoiser predicts, and what that says of the noise. For latents z and noise e, with a = alphas_cumprod[t]:

    diffusion        z_t = sqrt(a) z + sqrt(1 - a) e
    epsilon          e
    v_prediction     v = sqrt(a) e - sqrt(1 - a) z               (Salimans and Ho 2022, arXiv 2202.00512)

and with s = t / T in 0..1 of a rectified flow (Liu et al. 2022, arXiv 2209.03003):

    flow             z_t = (1 - s) z + s e
    velocity         u = e - z

For one z_t and t they are affine in each other, e = sqrt(a) v + sqrt(1 - a) z_t and e = (1 - s) u + z_t, so a target
whose weights sum to one (that of ESD, of AC) and a difference of two predictions (AdvAnchor's direction) keep their
form in the space that the model predicts in; only how much each t weighs changes. A product of two predictions does
not, and is taken of noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Predicts = Literal["epsilon", "v_prediction", "velocity"]


class Diffusion:
    """Noised by alphas_cumprod (T,). z, x, noise, predicted: (b, c, h, w); t: (b,) in 0..T-1."""

    def __init__(self, alphas: Tensor, predicts: Predicts) -> None:
        self.alphas, self.predicts = alphas, predicts

    def roots(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a), sqrt(1 - a), each (b, 1, 1, 1)."""
        a = self.alphas[t].view(-1, 1, 1, 1)
        return a.sqrt(), (1 - a).sqrt()

    def noised(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        signal, rest = self.roots(t)
        return signal * z + rest * noise

    def target(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What a network that is right predicts at noised(z, t, noise)."""
        if self.predicts == "epsilon":
            return noise
        signal, rest = self.roots(t)
        return signal * noise - rest * z

    def as_noise(self, predicted: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise in x that a prediction at (x, t) says."""
        if self.predicts == "epsilon":
            return predicted
        signal, rest = self.roots(t)
        return signal * predicted + rest * x


class Flow:
    """A rectified flow on T timesteps, straight from z at t = 0 to noise at t = T. Shapes as in `Diffusion`; t in 0..T,
    of any type of number.
    """

    predicts: Predicts = "velocity"

    def __init__(self, timesteps: int) -> None:
        self.timesteps = timesteps

    def share(self, t: Tensor) -> Tensor:
        """s, (b, 1, 1, 1)."""
        return (t.float() / self.timesteps).view(-1, 1, 1, 1)

    def noised(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        s = self.share(t)
        return (1 - s) * z + s * noise

    def target(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What a network that is right predicts at noised(z, t, noise)."""
        return noise - z

    def as_noise(self, predicted: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise in x that a prediction at (x, t) says."""
        return x + (1 - self.share(t)) * predicted
