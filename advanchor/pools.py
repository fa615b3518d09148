"""What the frozen model drew for the erasing to look at, and seeded steps on it: images noised again, or its own denoising trajectories."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from advanchor.core import Concept, Model, Step, Target, fill


def random(seed: int, stream: int, use: int, i: int) -> torch.Generator:
    """A generator of its own for every step, so that a resumed training sees what an undisturbed one would have seen."""
    return torch.Generator().manual_seed(((seed * 4 + stream) * 2 + use) * 10_000_000 + i)


def shuffled(n: int, i: int, batch: int, generator: Callable[[int], torch.Generator]) -> list[int]:
    """The i-th batch of indices below n: every index once in each pass, a fresh order each pass."""
    passes = sorted({(i * batch + j) // n for j in range(batch)})
    order = [int(k) for p in passes for k in torch.randperm(n, generator=generator(p))]
    first = (i * batch) % n
    return order[first : first + batch]


@dataclass(frozen=True)
class Pool:
    """Images as latents (n, 4, h, w), each with its sentence, and seeded steps on them, noised again."""

    model: Model
    concept: Concept
    latents: Tensor
    templates: tuple[str, ...]
    seed: int

    @classmethod
    def drawn(
        cls, model: Model, concept: Concept, count: int, seed: int, folder: Path,
        *, steps: int, guidance: float, phrase: str | None = None, under: Target | None = None, sentences: Sequence[str] = (), name: str = "pool",
    ) -> Pool:  # fmt: skip
        """Let the frozen model draw `count` images, sentences in turn; kept in `folder` over a kill.

        Args:
            phrase: what fills the concept's templates; the concept's own phrase unless given.
            under: an anchor whose embeddings replace those of the sentences.
            sentences: whole sentences instead of the concept's templates.
            name: of the file; pools of one method must differ in it.
        """
        among = tuple(sentences) or concept.templates
        file, templates = folder / f"{name}.safetensors", tuple(among[i % len(among)] for i in range(count))
        if not file.exists():
            parts = []
            for i in tqdm(range(0, count, 32), desc=name, unit="batch", leave=False):
                group = templates[i : i + 32]
                texts = [fill(t, "", phrase or concept.phrase) for t in group]
                # Seeds from a million up: no image of the pool is one that is later measured.
                seeds = [1_000_000 * (seed + 1) + i + j for j in range(len(group))]
                parts.append(model.latents(texts, seeds, steps=steps, guidance=guidance, cond=under.condition(group) if under else None))
            save_file({"latents": torch.cat(parts).cpu()}, file.with_suffix(".part"))
            os.replace(file.with_suffix(".part"), file)
        return cls(model, concept, load_file(file)["latents"].to(model.device), templates, seed)

    def step(self, i: int, stream: int, batch: int) -> Step:
        """Step i of a stream: images in a fresh random order each pass, t uniform on 0..T-1. Depends on (seed, stream, i) alone."""
        chosen = shuffled(len(self.latents), i, batch, lambda p: random(self.seed, stream, 0, p))
        g = random(self.seed, stream, 1, i)
        t = torch.randint(self.model.timesteps, (batch,), generator=g).to(self.model.device)
        noise = torch.randn(self.latents[chosen].shape, generator=g).to(self.model.device)
        return Step(self.model, self.concept, self.model.noised(self.latents[chosen], t, noise), t, [self.templates[k] for k in chosen], noise)


@dataclass(frozen=True)
class Trajectories:
    """Denoising runs of the frozen model, whole (n, steps, 4, h, w), each with its sentence: x_t as sampling meets it, not as noising makes it.

    ESD (Gandikota et al. 2023) denoises anew for every update; runs that are drawn once and looked at in many places cost a fraction of that.
    """

    model: Model
    concept: Concept
    latents: Tensor
    timesteps: Tensor
    templates: tuple[str, ...]
    seed: int

    @classmethod
    def drawn(cls, model: Model, concept: Concept, count: int, seed: int, folder: Path, *, steps: int, guidance: float, phrase: str) -> Trajectories:
        """`count` runs for the sentences filled with `phrase`, templates in turn; kept in `folder` over a kill."""
        file, templates = folder / "trajectories.safetensors", tuple(concept.templates[i % len(concept.templates)] for i in range(count))
        if not file.exists():
            parts: list[Tensor] = []
            for i in tqdm(range(0, count, 32), desc="trajectories", unit="batch", leave=False):
                texts = [fill(t, "", phrase) for t in templates[i : i + 32]]
                latents, timesteps = model.trajectory(texts, [1_000_000 * (seed + 1) + i + j for j in range(len(texts))], steps=steps, guidance=guidance)
                parts.append(latents)
            save_file({"latents": torch.cat(parts).cpu().contiguous(), "timesteps": timesteps.cpu()}, file.with_suffix(".part"))
            os.replace(file.with_suffix(".part"), file)
        saved = load_file(file)
        return cls(model, concept, saved["latents"].to(model.device), saved["timesteps"].to(model.device), templates, seed)

    def step(self, i: int, stream: int, batch: int) -> Step:
        """Step i of a stream: runs in a fresh random order each pass, a uniform place in each. Depends on (seed, stream, i) alone."""
        chosen = shuffled(len(self.latents), i, batch, lambda p: random(self.seed, stream, 0, p))
        places = torch.randint(len(self.timesteps), (batch,), generator=random(self.seed, stream, 1, i))
        return Step(self.model, self.concept, self.latents[chosen, places], self.timesteps[places], [self.templates[k] for k in chosen])


@dataclass(frozen=True)
class Denoising:
    """ESD's own way: for each update the frozen model denoises fresh noise up to a random step, for one sentence after the other."""

    model: Model
    concept: Concept
    seed: int
    steps: int
    guidance: float
    phrase: str

    def step(self, i: int, stream: int, batch: int) -> Step:
        """Step i of a stream; the batch shares its place in the run. Depends on (seed, stream, i) alone."""
        until = int(torch.randint(self.steps, (1,), generator=random(self.seed, stream, 1, i)))
        templates = [self.concept.templates[(i * batch + j) % len(self.concept.templates)] for j in range(batch)]
        seeds = [1_000_000 * (self.seed + 1) + (i * batch + j) * 4 + stream for j in range(batch)]
        texts = [fill(t, "", self.phrase) for t in templates]
        latents, timesteps = self.model.trajectory(texts, seeds, steps=self.steps, guidance=self.guidance, until=until)
        return Step(self.model, self.concept, latents[:, until], timesteps[until].expand(batch), templates)
