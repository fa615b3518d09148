"""Attacks carried out: their shots found, drawn, and kept for whoever asks again, beside what they are to be held
against.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from advanchor import stamps
from advanchor.attacks.shots import Attack, Shot, Shots, Victim
from advanchor.concept import Concept, Concepts
from advanchor.core import BadInput
from advanchor.identity import contents, key, plain
from advanchor.images import Images, draw
from advanchor.lazy import torch
from advanchor.metrics.attacked import seed_of
from advanchor.prompts import Prompt, Sample
from advanchor.protocols import Edit, Model
from advanchor.references import about
from advanchor.store import cached, finish, part_of, read_json, read_tensors, write_json, write_tensors

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from PIL.Image import Image


@dataclass(frozen=True)
class Assault:
    """One attack on one network.

    Attributes:
        config: the attack's settings.
        edit: what was done to the model, and `name`, a digest of it.
        folder: the store.
        seen: what the judge sees in a set of images is kept beside them.
        weights: a digest of the model and how it is loaded. An empty edit is the same for every model.
    """

    attack: Attack
    config: DictConfig
    model: Model
    edit: Edit
    name: str
    concept: Concept | Concepts
    sample: Sample
    folder: Path
    batch: int
    seen: Callable[[Images], Images]
    weights: str

    def images(self, which: str) -> Images:
        """Every shot, drawn by the attacked network; with "@chance" the random draws that it is held against, with
        "@never" the same attack on a model that never learned the concept.

        Raises:
            BadInput: `never` is no such folder.
        """
        if which == "@chance":
            return self.random()
        if which == "@never":
            reference = never(str(self.attack.never))
            return replace(self, edit=reference, name=contents(str(self.attack.never))).images("")
        place, prompts = self.folder / "samples" / f"attack-{self.place()}", list[Prompt]()
        for shots in self.shots():
            prompts += shots.shots
            for dose, noisy in dict.fromkeys((shot.dose, shots.noisy.get(shot.file)) for shot in shots.shots):
                some = [s for s in shots.shots if (s.dose, shots.noisy.get(s.file)) == (dose, noisy)]
                edit = self.edit if dose is None else shots.edits.get(dose, self.edit)
                with self.model.edited(edit):
                    draw(self.painter(shots), some, place, batch=self.batch, label=f"attack {self.attack.name}")
        return self.seen(Images(place, prompts))

    def random(self) -> Images:
        """As many draws of each attacked image's own sentence as there are shots at it (at its last dose), with other
        seeds.
        """
        drawn = key(self.weights, self.name, self.sample.looks, self.model.made_by)
        place = self.folder / "samples" / f"chance-{drawn}"
        prompts = chances([shots.shots for shots in self.shots()])
        with self.model.edited(self.edit):
            paint = partial(self.model.draw, **self.sample.looks)
            return self.seen(draw(paint, prompts, place, batch=self.batch, label="chance"))

    def prompts(self) -> list[Prompt]:
        """The images that are attacked: of each erased concept the first of some sentences, evenly over all. An attack
        may choose from them, or bring its own (`attacked`).

        Raises:
            BadInput: it leaves none.
        """
        found: list[Prompt] = []
        choose = getattr(self.attack, "attacked", lambda concept, prompts: prompts)
        for part in self.concept.parts:
            each: dict[str, list[Prompt]] = {}
            for p in choose(part, part.prompts(self.sample)["erase"]):
                each.setdefault(p.text, []).append(p)
            texts = list(each)
            n = min(self.attack.prompts or len(texts), len(texts))
            found += [p for i in range(n) for p in each[texts[i * len(texts) // n]][: self.attack.images]]
        if not found:
            which = f"attack.{self.attack.name} has nothing for any image that this run draws of {self.concept.name}"
            raise BadInput(f"{which}: its file must name their sentences and seeds in its columns `of` and `seed`.")
        return found

    @property
    def made_by(self) -> str:
        return stamps.attacking(self.attack, self.model.made_by)

    @property
    def settings(self) -> dict[str, Any]:
        """All that what is found depends on: what it is held against is not among it."""
        return {name: value for name, value in plain(self.config).items() if name != "never"}

    def place(self) -> str:
        asked = [[p.text, p.seed] for p in self.prompts()]
        return key(self.weights, self.settings, self.name, asked, self.sample.looks, self.made_by)

    @property
    def target(self) -> str:
        """A digest of what the attacker looks at: who sees the text encoder alone finds the same shots at every edit
        that leaves it as it was.
        """
        if self.attack.access != "text encoder":
            return self.name
        own = {name: t.detach().cpu() for name, t in sorted(self.edit.items()) if name.startswith("text_encoder")}
        said = [[name, hashlib.sha256(t.float().numpy().tobytes()).hexdigest()] for name, t in own.items()]
        return key("text encoder", said)

    def shots(self) -> list[Shots]:
        """What the attack leaves, batch by batch."""
        found, edit = [], {name: tensor.to(self.model.device) for name, tensor in self.edit.items()}
        for part, some, name in self.batches():
            victim = Victim(self.model, edit, part, self.sample)

            def make(folder: Path, victim: Victim = victim, some: Sequence[Prompt] = some) -> None:
                write(self.attack.shots(victim, some), folder)

            found.append(read(cached(self.folder / "attacks", name, make)))
        return found

    def batches(self) -> Iterator[tuple[Concept, list[Prompt], str]]:
        """The images that are attacked together, of one concept, and what the folder of their shots is called."""
        seen, attacked = key(self.weights, self.settings, self.target, self.sample.looks, self.made_by), self.prompts()
        for part in self.concept.parts:
            own = [p for p in attacked if p.label == part.name]
            size = self.attack.batch or max(1, len(own))
            for i in range(0, len(own), size):
                some = own[i : i + size]
                yield part, some, f"{seen}-{key([[p.text, p.seed] for p in some])}"

    def left(self) -> list[list[Shot]]:
        """The shots of each batch that is in the store; nothing is searched, and no model is needed.

        Raises:
            BadInput: a file is damaged.
        """
        places = [self.folder / "attacks" / name for _, _, name in self.batches()]
        return [[Shot(**one) for one in read_json(at / "shots.json")["shots"]] for at in places if at.exists()]

    def painter(self, shots: Shots) -> Callable[[Sequence[Prompt]], list[Image]]:
        """Draws shots of one kind: all of them have an embedding of their own, or none; and so with starts and the
        others, and they have one way of drawing.
        """

        def paint(group: Sequence[Prompt]) -> list[Image]:
            some = cast(Sequence[Shot], group)
            own = [self.said(shot) for shot in some]
            cond = [shots.conds.get(shot.file) for shot in some]
            starts = [shots.starts.get(shot.file) for shot in some]
            under = None if None in (conds := cond) else torch.stack([c for c in conds if c is not None])
            begun = [s for s in starts if s is not None]
            if under is None and any(shot.says for shot in some):
                under = self.model.encode([shot.says or shot.text for shot in some])
            more: dict[str, Any] = {}
            if begun:
                more = {"start": torch.stack([x for x, _ in begun]), "at": begun[0][1]}
            if noisy := shots.noisy.get(some[0].file):
                more["noisy"] = noisy
            if some[0].file in shots.around:
                more["around"] = torch.stack([shots.around[shot.file] for shot in some])
            return self.model.draw(own, cond=under, **more, **self.sample.looks)

        return paint

    def said(self, shot: Shot) -> Prompt:
        """What noise and generators of a shot come from: its text and seed."""
        return Prompt(shot.text, shot.seed, shot.head, shot.label)


def chances(each: Sequence[Sequence[Shot]]) -> list[Prompt]:
    """The random draws that the shots of each batch are held against: as many of each attacked image's own sentence as
    there are shots at it, at its last dose.
    """
    count: dict[tuple[str, int], int] = {}
    prompts = []
    for shots in each:
        last = max((s.dose for s in shots if s.dose is not None), default=None)
        for shot in (s for s in shots if s.dose == last):
            n = count[shot.text, shot.seed] = count.get((shot.text, shot.seed), -1) + 1
            prompts.append(Prompt(shot.text, seed_of(shot.seed, n), shot.head, shot.label))
    return prompts


def never(folder: str) -> Edit:
    """The U-Net of a model that never learned a concept, as an edit of ours.

    Raises:
        BadInput: the folder has none, or does not say what it never learned.
    """
    from safetensors.torch import load_file

    about(folder)
    return load_file(Path(folder).expanduser() / "unet.safetensors")


def write(shots: Shots, folder: Path) -> None:
    """Into a folder: shots.json for people and programs, what they are drawn from, and prompts.csv, the sentences of
    those that have one of their own, for attack=prompts to try on another network.
    """
    names = [f.name for f in fields(Shot) if f.name not in ("kept", "instead")]
    tensors = {f"cond/{file}": cond for file, cond in shots.conds.items()}
    tensors |= {f"start/{file}": x for file, (x, _) in shots.starts.items()}
    tensors |= {f"around/{file}": x for file, x in shots.around.items()}
    if tensors:
        write_tensors(folder / "shots.safetensors", tensors)
    for dose, edit in shots.edits.items():  # a file of its own for each, since they may share tensors
        write_tensors(folder / f"edit_{dose:g}.safetensors", edit)
    write_json(
        folder / "shots.json",
        {
            "shots": [{name: getattr(shot, name) for name in names} for shot in shots.shots],
            "at": {file: at for file, (_, at) in shots.starts.items()},
            "noisy": shots.noisy,
        },
    )
    if said := dict.fromkeys((shot.says, shot.seed, shot.text) for shot in shots.shots if shot.says):
        part = part_of(folder / "prompts.csv")
        with part.open("w", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerows([("prompt", "seed", "of"), *said])
        finish(folder / "prompts.csv")


def read(folder: Path) -> Shots:
    """What `write` wrote.

    Raises:
        BadInput: a file is damaged.
    """
    about = read_json(folder / "shots.json")
    found = Shots([Shot(**one) for one in about["shots"]])
    found.noisy = {file: (eta, spread) for file, (eta, spread) in about["noisy"].items()}
    tensors = read_tensors(folder / "shots.safetensors") if (folder / "shots.safetensors").exists() else {}
    for name, tensor in tensors.items():
        kind, _, file = name.partition("/")
        if kind == "cond":
            found.conds[file] = tensor
        elif kind == "around":
            found.around[file] = tensor
        else:
            found.starts[file] = (tensor, about["at"][file])
    for dose in dict.fromkeys(shot.dose for shot in found.shots if shot.dose is not None):
        found.edits[dose] = read_tensors(folder / f"edit_{dose:g}.safetensors")
    return found
