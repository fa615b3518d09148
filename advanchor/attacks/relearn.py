"""A few steps of ordinary training on images of the concept: how soon is it back?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from tqdm import tqdm

from advanchor.attacks.shots import Asked, Shots, Victim
from advanchor.concept import Concept
from advanchor.core import Positive, Rate, UNetScope, option
from advanchor.lazy import F, torch
from advanchor.models.edits import parameters
from advanchor.naming import fill
from advanchor.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class Training(Asked):
    """What a further training of the attacked network is.

    Attributes:
        doses: numbers of updates, ascending; 0 is the attacked network itself.
        pictures: to learn from; few, as an attacker has.
        scope: of the U-Net, what is trained; added networks and the text encoder stay as they are.
    """

    doses: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    pictures: Positive
    scope: UNetScope
    lr: Rate
    learn: Positive


@option("attack")
class Relearn(Training):
    """Fine-tuning of the attacked network, by the loss that diffusion models are trained with, on `pictures` that the
    unedited model draws of the concept in its own templates: what somebody with the weights and a few images would do.
    A shot at each image after each of `doses` steps; Adam without weight decay.
    """

    access: ClassVar[str] = "weights"

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        return trained(self, victim, prompts, own_sentences(victim.concept, self.pictures))


def own_sentences(concept: Concept, n: int) -> list[str]:
    """So many of the concept's templates in turn, filled with its phrase."""
    return [fill(concept.templates[i % len(concept.templates)], "", concept.phrase) for i in range(n)]


def trained(attack: Training, victim: Victim, prompts: Sequence[Prompt], texts: Sequence[str]) -> Shots:
    """Shots at each dose of a training on pictures of these sentences, as the unedited model draws them."""
    model, found = victim.model, Shots()
    z = victim.pictures(texts, attack.seed)
    frozen = model.weights("full")
    whole = {name: frozen[name] for name in model.weights(attack.scope)} | parameters(victim.edit, frozen)
    theta = {n: whole[n].detach().clone().requires_grad_(True) for n in model.weights(attack.scope)}
    others = {n: t for n, t in victim.edit.items() if n.startswith(("eraser.", "text_encoder", "guidance."))}
    rest = {n: t for n, t in whole.items() if n not in theta and n in parameters(victim.edit, frozen)}
    optimiser = torch.optim.Adam(theta.values(), lr=attack.lr)
    generator = torch.Generator().manual_seed(attack.seed)
    last = max(attack.doses)
    with tqdm(total=last, desc=f"attack {attack.name}", unit="step", leave=False) as bar:
        for i in range(last + 1):
            if i in attack.doses:
                found.edits[i] = {**others, **rest, **{n: t.detach().clone() for n, t in theta.items()}}
                for p in prompts:
                    found.add(p, f"{i}", dose=float(i))
            if i == last:
                break
            chosen = torch.randint(len(texts), (attack.learn,), generator=generator).tolist()
            t = torch.randint(model.timesteps, (attack.learn,), generator=generator).to(model.device)
            noise = torch.randn(z[chosen].shape, generator=generator).to(z)
            cond = victim.encode([texts[k] for k in chosen])
            predicted = model.predict(model.noised(z[chosen], t, noise), t, cond, {**others, **rest, **theta})
            optimiser.zero_grad()
            F.mse_loss(predicted, model.target(z[chosen], t, noise)).backward()
            optimiser.step()
            bar.update()
    return found
