"""Searched tokens, given by what the text encoder reads for them: put into sentences, and descended on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from tqdm import tqdm

from advanchor.attacks.shots import Asked, Victim, chance
from advanchor.concept import Concept
from advanchor.core import BadInput, Positive, Rate
from advanchor.lazy import F, torch
from advanchor.naming import whole
from advanchor.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor

Generators = Sequence["torch.Generator"]
Count = Annotated[int, Field(ge=1, le=75)]


def before(victim: Victim, texts: Sequence[str], tokens: Tensor) -> Tensor:
    """Embeddings (b, L, d) of the sentences with tokens (b, k, d) before them."""
    k = tokens.shape[1]
    words = " ".join([filler(victim)] * k)
    return placed(victim, [f"{words} {text}".strip() for text in texts], [list(range(1, 1 + k))] * len(texts), tokens)


def within(victim: Victim, texts: Sequence[str], token: Tensor) -> Tensor:
    """Embeddings (b, L, d) of the sentences with a token (d,) in the place of the concept's phrase, or name where the
    phrase is not in them; before those that do not name it.
    """
    cut = [parted(victim.concept, text) for text in texts]
    word = filler(victim)
    spans = [[len(victim.model.ids(f" {word} ".join(parts[:i]))) + 1 for i in range(1, len(parts))] for parts in cut]
    filled = [f" {word} ".join(parts) for parts in cut]
    return placed(victim, filled, spans, token.expand(sum(map(len, spans)), -1))


def parted(concept: Concept, text: str) -> list[str]:
    """What stands around the concept in a sentence: one part more than it is named."""
    for words in (concept.phrase, concept.name):
        if whole(words).search(text):
            return [part.strip() for part in whole(words).split(text)]
    return ["", text]


def filler(victim: Victim) -> str:
    """A word of one token, which holds the place of another."""
    return victim.model.words(victim.model.ids("a")[:1])


def placed(victim: Victim, texts: Sequence[str], spans: Sequence[Sequence[int]], tokens: Tensor) -> Tensor:
    """Sentences with tokens (their rows one after the other) where the filler stands.

    Raises:
        BadInput: they do not fit.
    """
    for text, last in {(text, max(span)) for text, span in zip(texts, spans, strict=True)}:
        if last >= victim.model.end(text):
            raise BadInput(f"'{text}' is longer than the text encoder reads: lower the attack's `tokens`.")
    own = victim.vocabulary()[victim.model.ids("a")[0]]
    return victim.encode([" ".join(text.split()) for text in texts], (tokens - own).reshape(-1, len(own)), spans)


@dataclass(frozen=True, kw_only=True)
class Descent(Asked):
    """A search of tokens by gradients.

    Attributes:
        tokens: k.
        timesteps: how many, spread evenly from T / (2 timesteps) on (10, 30, ..., 990 of 1000 in UnlearnDiffAtk's).
        steps: updates at each of them.
        lr, decay: Adam's.
    """

    tokens: Count
    timesteps: Positive
    steps: Positive
    lr: Rate
    decay: Annotated[float, Field(ge=0)]


def descended(
    attack: Descent,
    victim: Victim,
    prompts: Sequence[Prompt],
    leaf: Tensor,
    under: Callable[[Generators], Tensor],
    settle: Callable[[], object] = lambda: None,
) -> Iterator[int]:
    """Adam on `leaf`, by the attacked network's denoising loss on what the unedited model drew for the prompts, without
    guidance: UnlearnDiffAtk's (eq. 6). Yields each timestep when its updates are done.

    Args:
        under: the images' generators -> the embeddings (b, L, d) of the next update.
        settle: called after each update.
    """
    model, z = victim.model, victim.originals(prompts)
    generators = [chance(attack, p) for p in prompts]
    optimiser = torch.optim.Adam([leaf], lr=attack.lr, weight_decay=attack.decay)
    places = [round((2 * i + 1) * model.timesteps / (2 * attack.timesteps)) for i in range(attack.timesteps)]
    with tqdm(total=len(places) * attack.steps, desc=f"attack {attack.name}", unit="step", leave=False) as bar:
        for place in places:
            t = torch.full((len(prompts),), min(place, model.timesteps - 1), device=model.device)
            for _ in range(attack.steps):
                noise = torch.stack([torch.randn(z.shape[1:], generator=g) for g in generators]).to(z)
                predicted = victim.predict(model.noised(z, t, noise), t, under(generators))
                optimiser.zero_grad()
                (F.mse_loss(predicted, model.target(z, t, noise)) * len(prompts)).backward()
                optimiser.step()
                with torch.no_grad():
                    settle()
                bar.update()
            yield place
