"""What an attack is given, and what it leaves: pictures to draw of the attacked network, and from what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from pydantic import Field

from advanchor.concept import Concept
from advanchor.core import Positive
from advanchor.lazy import torch
from advanchor.prompts import Prompt, Sample
from advanchor.protocols import Edit, Model
from advanchor.store import slug

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Shot(Prompt):
    """A picture that an attack has drawn. Text and seed are those of the image that it attacks, so it starts from the
    same noise, unless the attack says otherwise (`Shots.starts`).

    Attributes:
        tag: tells the shots at one image apart, and names their files.
        dose: how much was done to the weights, of an attack that does it little by little.
        says: the sentence that it is drawn under, where that is another than `text`.
    """

    tag: str = ""
    dose: float | None = None
    says: str = ""

    @property
    def file(self) -> str:
        return f"{slug(self.text)}_{self.seed:03d}_{slug(self.tag)}.png"


@dataclass
class Shots:
    """Shots, and by their file what they are drawn from.

    Attributes:
        conds: the embedding (L, d) in the place of the sentence's own.
        starts: the latents (4, h, w) to begin with, and the step of sampling at which.
        noisy: how DDIM draws instead of the run's own way: its eta, and what the noise of its steps is multiplied with.
        around: (5, h, w), latents that are painted into, and where they stay, 1 or 0.
        edits: dose -> the whole edit that is drawn instead of the attacked one.
    """

    shots: list[Shot] = field(default_factory=list)
    conds: dict[str, Tensor] = field(default_factory=dict)
    starts: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    noisy: dict[str, tuple[float, float]] = field(default_factory=dict)
    around: dict[str, Tensor] = field(default_factory=dict)
    edits: dict[float, Edit] = field(default_factory=dict)

    def add(self, prompt: Prompt, tag: str, cond: Tensor | None = None, says: str = "", **more: Any) -> Shot:
        """One more shot at an image."""
        shot = Shot(prompt.text, prompt.seed, prompt.head, prompt.label, tag=tag, says=says, **more)
        if cond is not None:
            self.conds[shot.file] = cond.detach().cpu()
        self.shots.append(shot)
        return shot


@dataclass(frozen=True)
class Victim:
    """The network under attack: the edited one, with its text encoder, added networks and guidance.

    Attributes:
        model: the unedited one, with which an attack may draw what it aims at.
        edit: what was done to it.
    """

    model: Model
    edit: Edit
    concept: Concept
    sample: Sample

    def encode(self, texts: Sequence[str], delta: Tensor | None = None, spans: Sequence[Sequence[int]] = ()) -> Tensor:
        return self.model.encode(texts, delta, spans, self.edit)

    def predict(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """(b, 4, h, w), differentiable in cond (b, L, d)."""
        return self.model.predict(x, t, cond, self.edit)

    def vocabulary(self) -> Tensor:
        """(V, d)."""
        return self.model.vocabulary(self.edit)

    def originals(self, prompts: Sequence[Prompt]) -> Tensor:
        """What the unedited model draws for the same images, as latents (b, 4, h, w)."""
        texts, seeds = [p.text for p in prompts], [p.seed for p in prompts]
        return self.model.latents(texts, seeds, steps=self.sample.steps, guidance=self.sample.guidance)

    def pictures(self, texts: Sequence[str], seed: int) -> Tensor:
        """What the unedited model draws for sentences, on seeds of no measured image, to be learned from: latents (n,
        4, h, w).
        """
        seeds = [2_000_000 + 1000 * seed + i for i in range(len(texts))]
        return self.model.latents(texts, seeds, steps=self.sample.steps, guidance=self.sample.guidance)

    def edited(self) -> AbstractContextManager[None]:
        """Inside, the model draws as the attacked network."""
        return self.model.edited(self.edit)


class Attack(Protocol):
    """A try to bring an erased concept back: the concept's images in, shots at them out.

    Whatever is random in it comes from a prompt's text and seed, the attack's own seed and nothing else, so that a
    rerun, in whatever batches, is the same attack. Attributes that it has as settings: `prompts`, how many of the
    erased concept's sentences are attacked (null: all), `images`, how many images of each, `batch`, how many images are
    attacked at once, and kept when they are done (null: all), `never`, a folder with the weights of a model that never
    learned the concept, to be attacked alike. One that cannot attack every image, or brings its own, has `attacked`:
    concept and its erased images in, those that are attacked out.
    """

    access: ClassVar[str]  # what the attacker needs: prompts, text encoder, white box, latents, weights
    name: str
    prompts: int | None
    images: int
    batch: int | None
    seed: int
    never: str | None

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots: ...


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every attack is asked for (see `Attack`)."""

    name: str
    prompts: Positive | None = None
    images: Positive = 1
    batch: Positive | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    never: str | None = None
    version: int = 1


def chance(attack: Any, prompt: Prompt, restart: int = 0) -> torch.Generator:
    """The generator of one image's (or restart's) random numbers."""
    from advanchor.models.sampling import image_seed

    purpose = f" {attack.name} {attack.seed} {restart}"
    return torch.Generator().manual_seed(image_seed(prompt.text, prompt.seed, purpose))


def network(victim: Victim) -> dict[str, Tensor]:
    """Every weight of the attacked network, as an edit: the U-Net's, low-rank factors multiplied out; those of added
    networks; and the text encoder's, if any of it was changed.
    """
    from advanchor.models.edits import parameters

    model, edit = victim.model, victim.edit
    unet = model.weights("full")
    own = {name: tensor for name, tensor in edit.items() if name.startswith(("eraser.", "text_encoder"))}
    text = model.weights("text_encoder") if any(name.startswith("text_encoder") for name in own) else {}
    return {**unet, **parameters(edit, unet), **text, **own}


def at_doses(prompts: Sequence[Prompt], edits: Mapping[float, Edit]) -> Shots:
    """A shot at each image under each of these edits."""
    found = Shots(edits=dict(edits))
    for dose in edits:
        for p in prompts:
            found.add(p, f"{dose:g}", dose=float(dose))
    return found
