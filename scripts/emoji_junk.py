"""Pictures of nothing, for the reject classes of the emoji detectors: smears, noise, blends, failed drawings.

    python scripts/emoji_junk.py     # a sheet of every kind, data/emoji/junk.png; needs the bank of train_emoji.py

Every recipe takes a workshop and a number and returns images (n, 3, 32, 32) in [0, 1]; all randomness comes from the
workshop's generators, so a seed says what is made. No recipe looks at an edited model, so what an edit does to
pictures is new to the detectors. TRAINED says which kinds which detector learns from; KEPT_BACK are seen by neither
and only measured.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Recipe = Callable[["Workshop", int], Tensor]


class Workshop:
    """What the recipes work with.

    Args:
        images: the bank of renderings (styles, objects, variants, 3, 32, 32), bytes.
        pairs: (n, 2) style and object, those that may be used.
    """

    def __init__(self, images: Tensor, pairs: np.ndarray, seed: int) -> None:
        self.images, self.pairs, self.rng = images, pairs, np.random.default_rng(seed)
        self.g = torch.Generator().manual_seed(seed)
        self._model = None

    @property
    def model(self) -> Any:
        """The bundled model, opened when a recipe first needs it."""
        if self._model is None:
            from advanchor.build import build
            from advanchor.compose import compose

            self._model = build(compose([]).model, "model").open("cpu")
            # Recipes damage the U-Net's weights for a moment; this is what they are set back to.
            self.intact = {k: v.clone() for k, v in self._model.pipe.unet.state_dict().items()}
        return self._model

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.g)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.g)

    def emoji(self, n: int, among: int = 1) -> Tensor:
        """(n, among, 3, 32, 32): renderings, those of one row of different objects."""
        rows = []
        for _ in range(n):
            order, row = self.rng.permutation(len(self.pairs)), {}
            for s, o in self.pairs[order]:
                row.setdefault(o, s)
                if len(row) == among:
                    break
            rows.append(
                torch.stack([self.images[s, o, self.rng.integers(self.images.shape[2])] for o, s in row.items()])
            )
        return torch.stack(rows).float() / 255

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents of deviation 1, (n, 4, 8, 8)."""
        vae = self.model.pipe.vae
        parts = [vae.encode(x * 2 - 1).latent_dist.mean for x in images.split(128)]
        return torch.cat(parts) * vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        vae = self.model.pipe.vae
        parts = [vae.decode(z / vae.config.scaling_factor).sample for z in latents.split(128)]
        return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)

    def sentences(self, n: int) -> list[str]:
        names = self.names()
        pairs = self.pairs[self.rng.integers(len(self.pairs), size=n)]
        return [f"a {names[0][s]} emoji of a {names[1][o]}" for s, o in pairs]

    @staticmethod
    def names() -> tuple[list[str], list[str]]:
        import yaml

        taxonomy = yaml.safe_load((Path(__file__).parents[1] / "advanchor/assets/taxonomy.yaml").read_text())
        return list(taxonomy["styles"]), list(taxonomy["objects"])

    @torch.no_grad()
    def sample(self, cond: Tensor, guidance: float, steps: int) -> Tensor:
        """What the U-Net, as it stands, draws under embeddings (n, L, d) by DDIM: images."""
        model, pipe = self.model, self.model.pipe
        pipe.scheduler.set_timesteps(steps)
        x, empty = self.normal(len(cond), 4, 8, 8), model.encode([""]).expand_as(cond)
        for t in pipe.scheduler.timesteps:
            eps = pipe.unet(x, t, cond).sample
            if guidance != 1:
                free = pipe.unet(x, t, empty).sample
                eps = free + guidance * (eps - free)
            x = pipe.scheduler.step(eps, t, x).prev_sample.clamp(-20, 20)
        return self.decode(torch.nan_to_num(x))


def gaussian(images: Tensor, sigma: Tensor) -> Tensor:
    """Each image (n, c, h, w) blurred by its own sigma (n,) in pixels, edges repeated."""
    out, c = [], images.shape[1]
    for x, s in zip(images, sigma.tolist(), strict=True):
        reach = min(15, int(3 * s) + 1)
        line = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * s * s))
        line = (line / line.sum()).view(1, 1, 1, -1).expand(c, 1, 1, -1)
        x = F.conv2d(F.pad(x[None], (reach, reach, 0, 0), mode="replicate"), line, groups=c)
        out.append(F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), line.transpose(2, 3), groups=c)[0])
    return torch.stack(out)


def on_white(images: Tensor, strength: Tensor) -> Tensor:
    """Paler: 0 leaves white, 1 the image; strength (n,)."""
    return 1 - (1 - images) * strength.view(-1, 1, 1, 1)


# --- recipes -----------------------------------------------------------------------------------------------------


def blank(w: Workshop, n: int) -> Tensor:
    """One colour, often white, sometimes with a slow gradient."""
    colour = torch.where(w.uniform(0, 1, n, 1, 1, 1) < 0.4, torch.ones(1), w.uniform(0, 1, n, 3, 1, 1))
    slope = F.interpolate(w.normal(n, 3, 2, 2) * w.uniform(0, 0.15, n, 1, 1, 1), size=32, mode="bilinear")
    return (colour + slope + 0.02 * w.normal(n, 3, 32, 32) * w.uniform(0, 1, n, 1, 1, 1)).clamp(0, 1)


def blobs(w: Workshop, n: int) -> Tensor:
    """One to three soft spots of colour on white or on a pale colour."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    page = torch.where(w.uniform(0, 1, n, 1, 1, 1) < 0.7, torch.ones(1), w.uniform(0.5, 1, n, 3, 1, 1))
    page = page.expand(n, 3, 32, 32)
    for k in range(3):
        cx, cy = w.uniform(-0.4, 0.4, 2, n, 1, 1)
        rx, ry = w.uniform(0.2, 0.9, 2, n, 1, 1)
        power = w.uniform(1, 1.7, n, 1, 1)
        spot = torch.exp(-((((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) ** power))[:, None]
        there = (w.uniform(0, 1, n, 1, 1, 1) < (1, 0.5, 0.3)[k]).float() * w.uniform(0.1, 1, n, 1, 1, 1)
        page = torch.lerp(page, w.uniform(0, 1, n, 3, 1, 1).expand(n, 3, 32, 32), spot * there)
    return page


def faint(w: Workshop, n: int) -> Tensor:
    """A blurred emoji, so pale that little is left on the white."""
    return on_white(gaussian(w.emoji(n)[:, 0], w.uniform(2.5, 5, n)), w.uniform(0.04, 0.4, n))


def lowpass(w: Workshop, n: int) -> Tensor:
    """A strongly blurred emoji at full contrast."""
    return gaussian(w.emoji(n)[:, 0], w.uniform(4, 8, n))


def averages(w: Workshop, n: int) -> Tensor:
    """The mean of 8 to 24 emoji, at its own or at a stretched contrast."""
    means = torch.cat([w.emoji(1, int(k))[0].mean(0, keepdim=True) for k in w.rng.integers(8, 25, size=n)])
    return on_white(means, w.uniform(0.4, 1.5, n)).clamp(0, 1)


def noise(w: Workshop, n: int) -> Tensor:
    """White to pink to brown noise about a random colour."""
    fy, fx = torch.fft.fftfreq(32)[:, None], torch.fft.rfftfreq(32)[None]
    fall = (fy**2 + fx**2).sqrt().clamp(min=1 / 32)[None, None] ** -w.uniform(0, 2.2, n, 1, 1, 1)
    x = torch.fft.irfft2(torch.fft.rfft2(w.normal(n, 3, 32, 32)) * fall, s=(32, 32))
    x = torch.lerp(x, x.mean(1, keepdim=True).expand_as(x), w.uniform(0, 1, n, 1, 1, 1))
    x = x / x.std((1, 2, 3), keepdim=True)
    return (w.uniform(0.2, 1, n, 3, 1, 1) + x * w.uniform(0.05, 0.4, n, 1, 1, 1)).clamp(0, 1)


def decoded_noise(w: Workshop, n: int) -> Tensor:
    """What the VAE makes of random latents, rough or smooth."""
    rough, smooth = w.normal(n, 4, 8, 8), F.interpolate(w.normal(n, 4, 3, 3), size=8, mode="bilinear") * 1.6
    return w.decode(torch.lerp(rough, smooth, w.uniform(0, 1, n, 1, 1, 1)) * w.uniform(0.4, 1.4, n, 1, 1, 1))


def mixed(w: Workshop, shown: Tensor, parts: Tensor) -> Tensor:
    """The mean over `parts` (n, k, ...) of the pictures `shown` (n, k, 3, 32, 32), of two to all of each row. The paler
    one weighs more, since a dark one would cover it and be seen alone.
    """
    n, k = shown.shape[:2]
    count = torch.from_numpy(w.rng.integers(2, k + 1, size=n)).view(n, 1)
    weight = (torch.arange(k) < count) / (1 - shown).square().mean((2, 3, 4)).sqrt()
    weight = weight / weight.sum(1, keepdim=True)
    return (parts * weight.view(n, k, 1, 1, 1)).sum(1)


def blends(w: Workshop, n: int) -> Tensor:
    """Two to four emoji through each other."""
    x = w.emoji(n, 4)
    return mixed(w, x, x)


def halves(w: Workshop, n: int) -> Tensor:
    """Half of one emoji glued to half of another, or a quarter each of four."""
    x = w.emoji(n, 4)
    out = torch.empty(n, 3, 32, 32)
    for i, how in enumerate(w.rng.integers(3, size=n)):
        out[i] = x[i, 0]
        if how in (0, 2):
            out[i, :, :, 16:] = x[i, 1, :, :, 16:]
        if how == 1:
            out[i, :, 16:] = x[i, 1, :, 16:]
        if how == 2:
            out[i, :, 16:, :16], out[i, :, 16:, 16:] = x[i, 2, :, 16:, :16], x[i, 3, :, 16:, 16:]
    return out


def latent_blends(w: Workshop, n: int) -> Tensor:
    """The VAE's picture of the mean of two to six emoji's latents."""
    x = w.emoji(n, 6)
    return w.decode(mixed(w, x, w.encode(x.flatten(0, 1)).unflatten(0, (n, 6))))


def hues(w: Workshop, n: int) -> Tensor:
    """(n, 3, 1, 1): colours as paint has them, pale to full, light to dark."""
    pure = w.uniform(0, 1, n, 3, 1, 1)
    low, high = pure.amin(1, keepdim=True), pure.amax(1, keepdim=True)
    pale = torch.lerp(torch.ones(1), (pure - low) / (high - low), w.uniform(0.1, 1, n, 1, 1, 1))
    return pale * w.uniform(0.5, 1, n, 1, 1, 1).sqrt()


def stains(w: Workshop, n: int) -> Tensor:
    """The ragged outline of two or three emoji in one colour, as uneven as a wet brush leaves it."""
    x = w.emoji(n, 3)
    ink = (1 - x).amax(2)
    ink = torch.where(w.uniform(0, 1, n, 1, 1) < 0.5, ink[:, :2].mean(1), ink.mean(1))
    ink = gaussian(ink[:, None], w.uniform(0.8, 4, n))
    ragged = F.interpolate(w.normal(n, 1, 10, 10), size=32, mode="bicubic") * w.uniform(0, 0.35, n, 1, 1, 1)
    # The steeper, the crisper the edge: spots of many sharpnesses.
    ink = ((ink / ink.amax((1, 2, 3), keepdim=True) + ragged - 0.3) * w.uniform(1, 5, n, 1, 1, 1)).clamp(0, 1)
    places = int(w.rng.integers(3, 8))
    uneven = torch.sigmoid(2 * F.interpolate(w.normal(n, 1, places, places), size=32, mode="bicubic"))
    colour = torch.lerp(hues(w, n), hues(w, n), uneven * w.uniform(0, 0.6, n, 1, 1, 1))
    left = gaussian(x[:, :2].mean((1, 2))[:, None], w.uniform(0.8, 2, n))
    colour = colour * torch.lerp(torch.ones(1), left, w.uniform(0, 0.3, n, 1, 1, 1))
    z = w.encode(on_white(torch.lerp(torch.ones(1), colour, ink), w.uniform(0.2, 1, n)))
    return w.decode(z + w.normal(*z.shape) * w.uniform(0, 0.6, n, 1, 1, 1))


def melted(w: Workshop, n: int) -> Tensor:
    """An emoji whose latent lost all that is fine, and took on a tint."""
    z = w.encode(w.emoji(n)[:, 0])
    coarse = [F.interpolate(F.adaptive_avg_pool2d(z, k), size=8, mode="bilinear") for k in (2, 3, 4)]
    z = torch.stack([coarse[k][i] for i, k in enumerate(w.rng.integers(3, size=n))])
    tint = w.normal(n, 4, 1, 1) * w.uniform(0, 0.6, n, 1, 1, 1)
    z = z * w.uniform(0.5, 1.4, n, 1, 1, 1) + tint
    return w.decode(z + w.normal(*z.shape) * w.uniform(0, 0.5, n, 1, 1, 1))


@torch.no_grad()
def unfinished(w: Workshop, n: int) -> Tensor:
    """A drawing that was stopped: the noisy latent of the middle, or the blurred guess of the beginning."""
    model = w.model
    alphas = model.pipe.scheduler.alphas_cumprod
    z, noisy = w.encode(w.emoji(n)[:, 0]), w.normal(n, 4, 8, 8)
    early = torch.arange(n) % 2 == 0
    t = torch.where(early, w.uniform(940, 999, n), w.uniform(450, 900, n)).long()
    a = alphas[t].view(-1, 1, 1, 1)
    x = a.sqrt() * z + (1 - a).sqrt() * noisy
    # Under one sentence the first guess is already its object: under the mean of several it is none.
    cond = torch.stack([model.encode(w.sentences(int(k))).mean(0) for k in w.rng.integers(5, 13, size=n)])
    guess = (x - (1 - a).sqrt() * model.pipe.unet(x, t, cond).sample) / a.sqrt()
    return w.decode(torch.where(early.view(-1, 1, 1, 1), guess, x))


def broken(w: Workshop, n: int, low: float = 0.45, high: float = 1.05, each: int = 8) -> Tensor:
    """What the U-Net draws after its weights were shaken: all of them, or one kind of layer harder."""
    unet, parts = w.model.pipe.unet, []
    while sum(map(len, parts)) < n:
        kind = str(w.rng.choice(["", "attn2", "resnets", "attentions", "up_blocks", "down_blocks"]))
        strength = float(w.uniform(low, high, 1)) * {"": 1, "attn2": 4}.get(kind, 1.6)
        for name, weight in unet.state_dict().items():
            if kind in name and weight.dim() > 1:
                weight.add_(w.normal(*weight.shape) * weight.std() * strength)
        cond = w.model.encode(w.sentences(each))
        parts.append(w.sample(cond, float(w.rng.choice([1.0, 2.0, 4.0])), 8))
        unet.load_state_dict(w.intact)
    return torch.cat(parts)[:n]


def tiles(w: Workshop, n: int) -> Tensor:
    """An emoji cut into 8 px tiles and shuffled."""
    x = F.unfold(w.emoji(n)[:, 0], 8, stride=8)
    x = torch.stack([one[:, torch.randperm(16, generator=w.g)] for one in x])
    return F.fold(x, 32, 8, stride=8)


def phases(w: Workshop, n: int) -> Tensor:
    """An emoji's spectrum with the phases of noise."""
    spectrum = torch.fft.rfft2(w.emoji(n)[:, 0])
    turn = torch.fft.rfft2(w.normal(n, 1, 32, 32))
    turn = turn / turn.abs().clamp(min=1e-6)
    turn[..., 0, 0] = 1
    return torch.fft.irfft2(spectrum * turn, s=(32, 32)).clamp(0, 1)


def mosaics(w: Workshop, n: int) -> Tensor:
    """Squares of 4 px, each of one of four emoji."""
    x = w.emoji(n, 4)
    which = torch.randint(4, (n, 1, 1, 8, 8), generator=w.g).repeat_interleave(4, 3).repeat_interleave(4, 4)
    return x.gather(1, which.expand(n, 1, 3, 32, 32))[:, 0]


RECIPES: dict[str, Recipe] = {
    f.__name__: f
    for f in (
        *(blank, blobs, faint, lowpass, averages, noise, decoded_noise, blends, halves),
        *(latent_blends, stains, melted, unfinished, broken, tiles, phases, mosaics),
    )
}
BOTH = (
    *("blank", "blobs", "faint", "lowpass", "averages", "noise"),
    *("halves", "tiles", "stains", "melted", "unfinished", "broken"),
)
TRAINED = {"resnet": (*BOTH, "decoded_noise", "latent_blends"), "vit": (*BOTH, "blends")}
KEPT_BACK = ("phases", "mosaics")


def make(images: Tensor, pairs: np.ndarray, kind: str, n: int, seed: int) -> Tensor:
    """(n, 3, 32, 32) bytes of one kind; another seed gives others."""
    w = Workshop(images, pairs, seed * 1000 + list(RECIPES).index(kind))
    return (RECIPES[kind](w, n) * 255).round().byte()


def main() -> None:
    from PIL import Image
    from train_emoji import ROOT, bank, seen_pairs

    images = bank(ROOT / "data/emoji/work", ROOT / "data/emoji", 0)
    rows = [make(images, seen_pairs(), kind, 24, 1) for kind in RECIPES]
    page = torch.cat([torch.cat([*row], 2) for row in rows], 1).permute(1, 2, 0).numpy()
    Image.fromarray(page).resize((page.shape[1] * 2, page.shape[0] * 2), 0).save(ROOT / "data/emoji/junk.png")
    print("\n".join(f"row {i}: {kind}" for i, kind in enumerate(RECIPES)))


if __name__ == "__main__":
    sys.exit(main())
