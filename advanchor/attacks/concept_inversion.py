"""Concept Inversion: one learned word in the place of the concept's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field
from tqdm import tqdm

from advanchor.attacks.relearn import own_sentences
from advanchor.attacks.shots import Asked, Shots, Victim, chance
from advanchor.attacks.tokens import within
from advanchor.core import Need, Positive, Rate, option
from advanchor.lazy import F, torch
from advanchor.prompts import Prompt


@option("attack")
class ConceptInversion(Asked):
    """Concept Inversion (Pham et al. 2024, arXiv 2308.01508): Textual Inversion (Gal et al. 2022, arXiv 2208.01618) on
    the attacked network. One vector at the input of the text encoder, in the place of the concept's phrase, descends
    the denoising loss on `pictures` of the unedited model; the images are then asked for with it. Where a sentence does
    not name the concept it stands before it. One vector for all images.

    As the release: AdamW with weight decay 0.01, one vector that begins as the word "art", 25 pictures. Otherwise: the
    sentences of training are the concept's own templates, and of Safe Latent Diffusion and negative prompts the network
    alone is inverted, not the rule (the release inverts SLD under its guidance); the rule is there when drawn. A vector
    can also teach what a model never knew, so `never` belongs to it.

    Attributes:
        steps, lr, learn: updates, learning rate (0.005 times 16 in the release), pictures for each (4 four times).
        word: whose last token the vector begins as.
    """

    access: ClassVar[str] = "white box"
    needs: ClassVar[tuple[Need, ...]] = ("a single text encoder",)
    pictures: Positive
    steps: Positive
    lr: Rate
    learn: Positive
    word: Annotated[str, Field(min_length=1)]

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        model, found = victim.model, Shots()
        texts = own_sentences(victim.concept, self.pictures)
        z = victim.pictures(texts, self.seed)
        vector = victim.vocabulary()[model.ids(self.word)[-1]].clone().requires_grad_(True)
        optimiser = torch.optim.AdamW([vector], lr=self.lr, weight_decay=0.01)
        generator = chance(self, Prompt(victim.concept.phrase, 0))
        for _ in tqdm(range(self.steps), desc=f"attack {self.name}", unit="step", leave=False):
            chosen = torch.randint(len(texts), (self.learn,), generator=generator).tolist()
            t = torch.randint(model.timesteps, (self.learn,), generator=generator).to(model.device)
            noise = torch.randn(z[chosen].shape, generator=generator).to(z)
            cond = within(victim, [texts[i] for i in chosen], vector)
            optimiser.zero_grad()
            predicted = victim.predict(model.noised(z[chosen], t, noise), t, cond)
            F.mse_loss(predicted, model.target(z[chosen], t, noise)).backward()
            optimiser.step()
        with torch.no_grad():
            conds = within(victim, [p.text for p in prompts], vector)
        for p, cond in zip(prompts, conds, strict=True):
            found.add(p, "inverted", cond)
        return found
