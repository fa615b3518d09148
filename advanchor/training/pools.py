"""What the frozen model drew for the erasing to look at, and seeded steps on it: images noised again, or its own denoising trajectories."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from tqdm import tqdm

from advanchor.concept import Concept, fill
from advanchor.lazy import torch
from advanchor.protocols import Model, Step, Target
from advanchor.provenance import code
from advanchor.store import cached, key, read_tensors, slug, write_tensors

if TYPE_CHECKING:
    from torch import Tensor


def random(seed: int, stream: int, use: int, i: int) -> torch.Generator:
    """A generator of its own for every step, so that a resumed training sees what an undisturbed one would have seen."""
    return torch.Generator().manual_seed(((seed * 4 + stream) * 2 + use) * 10_000_000 + i)


def seeds(seed: int, count: int) -> list[int]:
    """Of a pool's images: from a million up, so that none is one that is later measured."""
    return [1_000_000 * (seed + 1) + i for i in range(count)]


def shuffled(n: int, i: int, batch: int, generator: Callable[[int], torch.Generator]) -> list[int]:
    """The i-th batch of indices below n: every index once in each pass, a fresh order each pass."""
    passes = sorted({(i * batch + j) // n for j in range(batch)})
    order = [int(k) for p in passes for k in torch.randperm(n, generator=generator(p))]
    first = (i * batch) % n
    return order[first : first + batch]


def once(
    model: Model, folder: Path, name: str, made_of: Sequence[object], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Tensors that the frozen model draws once: for all runs if it has a shelf, otherwise for this folder. `made_of` is all that decides them, beside the code
    that draws.

    Raises:
        BadInput: they are damaged, or not finite.
    """
    drawn_by = code("advanchor.training.pools", type(model).__module__)
    place = cached(
        model.shelf or folder,
        f"{name}-{key(*made_of, drawn_by)}",
        lambda part: write_tensors(part / "latents.safetensors", make()),
    )
    return {k: v.to(model.device) for k, v in read_tensors(place / "latents.safetensors").items()}


@dataclass(frozen=True)
class Pool:
    """Images as latents (n, 4, h, w), each with its sentence, and seeded steps on them, noised again; t has the probabilities `times` (T,), uniform if None."""

    model: Model
    concept: Concept
    latents: Tensor
    templates: tuple[str, ...]
    seed: int
    times: Tensor | None = None

    @classmethod
    def drawn(
        cls, model: Model, concept: Concept, count: int, seed: int, folder: Path,
        *, steps: int, guidance: float, phrase: str | None = None, under: Target | None = None, sentences: Sequence[str] = (), name: str = "pool",
    ) -> Pool:  # fmt: skip
        """Let the frozen model draw `count` images, sentences in turn.

        Args:
            phrase: what fills the concept's templates; the concept's own phrase unless given.
            under: an anchor whose embeddings replace those of the sentences.
            sentences: whole sentences instead of the concept's templates.
            folder: where they are kept over a kill if the model has no shelf.
            name: of the file, after the concept's.
        """
        among = tuple(sentences) or concept.templates
        templates = tuple(among[i % len(among)] for i in range(count))
        texts = [fill(t, "", phrase or concept.phrase) for t in templates]
        conditions = under.condition(among).cpu() if under else None

        def make() -> dict[str, Tensor]:
            parts = []
            for i in tqdm(range(0, count, model.batch), desc=name, unit="batch", leave=False):
                cond = under.condition(templates[i : i + model.batch]) if under else None
                parts.append(
                    model.latents(
                        texts[i : i + model.batch],
                        seeds(seed, count)[i : i + model.batch],
                        steps=steps,
                        guidance=guidance,
                        cond=cond,
                    )
                )
            return {"latents": torch.cat(parts)}

        digest = hashlib.sha256(conditions.float().numpy().tobytes()).hexdigest() if conditions is not None else None
        saved = once(
            model, folder, f"{slug(concept.name)}-{name}", ["images", texts, seed, steps, guidance, digest], make
        )
        return cls(model, concept, saved["latents"], templates, seed)

    def step(self, i: int, stream: int, batch: int) -> Step:
        """Step i of a stream: images in a fresh random order each pass, t on 0..T-1. Depends on (seed, stream, i) alone."""
        chosen = shuffled(len(self.latents), i, batch, lambda p: random(self.seed, stream, 0, p))
        g = random(self.seed, stream, 1, i)
        if self.times is None:
            t = torch.randint(self.model.timesteps, (batch,), generator=g).to(self.model.device)
        else:
            t = torch.multinomial(self.times, batch, replacement=True, generator=g).to(self.model.device)
        noise = torch.randn(self.latents[chosen].shape, generator=g).to(self.model.device)
        return Step(
            self.model,
            self.concept,
            self.model.noised(self.latents[chosen], t, noise),
            t,
            [self.templates[k] for k in chosen],
            noise,
        )


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
    def drawn(
        cls,
        model: Model,
        concept: Concept,
        count: int,
        seed: int,
        folder: Path,
        *,
        steps: int,
        guidance: float,
        phrase: str,
    ) -> Trajectories:
        """`count` runs for the sentences filled with `phrase`, templates in turn; kept as `Pool.drawn` keeps its images."""
        templates = tuple(concept.templates[i % len(concept.templates)] for i in range(count))
        texts = [fill(t, "", phrase) for t in templates]

        def make() -> dict[str, Tensor]:
            parts: list[Tensor] = []
            for i in tqdm(range(0, count, model.batch), desc="trajectories", unit="batch", leave=False):
                latents, timesteps = model.trajectory(
                    texts[i : i + model.batch], seeds(seed, count)[i : i + model.batch], steps=steps, guidance=guidance
                )
                parts.append(latents)
            return {"latents": torch.cat(parts), "timesteps": timesteps}

        saved = once(
            model, folder, f"{slug(concept.name)}-trajectories", ["trajectories", texts, seed, steps, guidance], make
        )
        return cls(model, concept, saved["latents"], saved["timesteps"], templates, seed)

    def step(self, i: int, stream: int, batch: int) -> Step:
        """Step i of a stream: runs in a fresh random order each pass, a uniform place in each. Depends on (seed, stream, i) alone."""
        chosen = shuffled(len(self.latents), i, batch, lambda p: random(self.seed, stream, 0, p))
        places = torch.randint(len(self.timesteps), (batch,), generator=random(self.seed, stream, 1, i))
        return Step(
            self.model,
            self.concept,
            self.latents[chosen, places],
            self.timesteps[places],
            [self.templates[k] for k in chosen],
        )


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


class Source(Protocol):
    """Seeded steps: step i of a stream depends on (seed, stream, i) alone."""

    def step(self, i: int, stream: int, batch: int) -> Step: ...


@dataclass(frozen=True)
class Turns:
    """Several sources in turn, one for each concept: step i is step i // n of source i mod n."""

    sources: Sequence[Source]

    def step(self, i: int, stream: int, batch: int) -> Step:
        return self.sources[i % len(self.sources)].step(i // len(self.sources), stream, batch)


Latents = Literal["denoise", "pool", "images"]


def looked_at(
    latents: Latents,
    model: Model,
    targets: Sequence[Target],
    seed: int,
    folder: Path,
    *,
    pool: int,
    steps: int,
    guidance: float,
    phrase: str | None = None,
) -> Turns:
    """Where a method looks at each concept, in turn.

    Args:
        latents: denoise (the frozen model denoises to a random step for each update, as ESD publishes it), pool (`pool` whole runs, drawn once, looked at in
            random places), or images (`pool` finished images, noised again).
        phrase: what is drawn; the concept's own phrase unless given.
    """
    sources: list[Source] = []
    for concept in (target.concept for target in targets):
        drawn = phrase or concept.phrase
        if latents == "denoise":
            sources.append(Denoising(model, concept, seed, steps, guidance, drawn))
        else:
            kind = Pool if latents == "images" else Trajectories
            sources.append(kind.drawn(model, concept, pool, seed, folder, steps=steps, guidance=guidance, phrase=drawn))
    return Turns(sources)
