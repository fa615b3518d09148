"""What the frozen model drew for the erasing to look at, and seeded steps on it: images noised again, or its own
denoising trajectories.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from tqdm import tqdm

from advanchor.concept import Concept
from advanchor.lazy import torch
from advanchor.naming import fill
from advanchor.protocols import Model, Step, Target
from advanchor.store import slug
from advanchor.training.draws import once, random, seeds, shuffled

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pool:
    """Images as latents (n, 4, h, w), each with its sentence, and seeded steps on them, noised again; t has the
    probabilities `times` (T,), uniform if None.
    """

    model: Model
    concept: Concept
    latents: Tensor
    templates: tuple[str, ...]
    seed: int
    times: Tensor | None = None

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
        phrase: str | None = None,
        under: Target | None = None,
        sentences: Sequence[str] = (),
        name: str = "pool",
    ) -> Pool:
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
                some = slice(i, i + model.batch)
                cond = under.condition(templates[some]) if under else None
                own = seeds(seed, count)[some]
                parts.append(model.latents(texts[some], own, steps=steps, guidance=guidance, cond=cond))
            return {"latents": torch.cat(parts)}

        digest = hashlib.sha256(conditions.float().numpy().tobytes()).hexdigest() if conditions is not None else None
        made_of = ["images", texts, seed, steps, guidance, digest]
        saved = once(model, folder, f"{slug(concept.name)}-{name}", made_of, make)
        return cls(model, concept, saved["latents"], templates, seed)

    def step(self, i: int, stream: int, batch: int) -> Step:
        """Step i of a stream: images in a fresh random order each pass, t on 0..T-1. Depends on (seed, stream, i)
        alone.
        """
        chosen = shuffled(len(self.latents), i, batch, lambda p: random(self.seed, stream, 0, p))
        g = random(self.seed, stream, 1, i)
        if self.times is None:
            t = torch.randint(self.model.timesteps, (batch,), generator=g).to(self.model.device)
        else:
            t = torch.multinomial(self.times, batch, replacement=True, generator=g).to(self.model.device)
        noise = torch.randn(self.latents[chosen].shape, generator=g).to(self.model.device)
        x, templates = self.model.noised(self.latents[chosen], t, noise), [self.templates[k] for k in chosen]
        truth = self.model.target(self.latents[chosen], t, noise)
        return Step(self.model, self.concept, x, t, templates, truth)


@dataclass(frozen=True)
class Trajectories:
    """Denoising runs of the frozen model, whole (n, steps, 4, h, w), each with its sentence: x_t as sampling meets it,
    not as noising makes it.

    ESD (Gandikota et al. 2023) denoises anew for every update; runs that are drawn once and looked at in many places
    cost a fraction of that.
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
        """`count` runs for the sentences filled with `phrase`, templates in turn; kept as `Pool.drawn` keeps its
        images.
        """
        templates = tuple(concept.templates[i % len(concept.templates)] for i in range(count))
        texts = [fill(t, "", phrase) for t in templates]

        def make() -> dict[str, Tensor]:
            parts: list[Tensor] = []
            for i in tqdm(range(0, count, model.batch), desc="trajectories", unit="batch", leave=False):
                some = slice(i, i + model.batch)
                own = seeds(seed, count)[some]
                latents, timesteps = model.trajectory(texts[some], own, steps=steps, guidance=guidance)
                parts.append(latents)
            return {"latents": torch.cat(parts), "timesteps": timesteps}

        made_of = ["trajectories", texts, seed, steps, guidance]
        saved = once(model, folder, f"{slug(concept.name)}-trajectories", made_of, make)
        return cls(model, concept, saved["latents"], saved["timesteps"], templates, seed)

    def step(self, i: int, stream: int, batch: int) -> Step:
        """Step i of a stream: runs in a fresh random order each pass, a uniform place in each. Depends on (seed,
        stream, i) alone.
        """
        chosen = shuffled(len(self.latents), i, batch, lambda p: random(self.seed, stream, 0, p))
        places = torch.randint(len(self.timesteps), (batch,), generator=random(self.seed, stream, 1, i))
        x, t, templates = self.latents[chosen, places], self.timesteps[places], [self.templates[k] for k in chosen]
        return Step(self.model, self.concept, x, t, templates)


@dataclass(frozen=True)
class Denoising:
    """ESD's own way: for each update the frozen model denoises fresh noise up to a random step, for one sentence after
    the other.
    """

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
        latents: denoise (the frozen model denoises to a random step for each update, as ESD publishes it), pool (`pool`
            whole runs, drawn once, looked at in random places), or images (`pool` finished images, noised again).
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
