"""What a training ends with, kept so that a longer one of the same kind goes on from there: several `method.steps` cost
the longest of them and not their sum.

An edit of k steps is what an edit of more steps passes through, bit for bit, where nothing in the training knows how
many steps there will be: step i depends on (seed, stream, i) alone, and what has been learned is in the checkpoint. A
method says so (`open_ended`), and an anchor by rehearsing for equally many steps, however long the training.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from advanchor.identity import key, trained_as
from advanchor.store import NAME, SUMS, cached, digests, finish, lock, named, part_of, read_json, verified

END = "end.json"  # in a training's folder: it can be gone on from, and this is what it has cost
# Of one edit or anchor alone, whatever else goes on from its folder.
NEVER = {"edit.safetensors", "edit.json", "anchor.safetensors", "anchor.json", "begun", "from.json", NAME, SUMS}


@dataclass(frozen=True)
class Trail:
    """The ends of the trainings of one kind, store/trails/<kind>-<steps>: folders of what a method resumes from.

    Attributes:
        kind: digest of all that decides a training but its length.
        steps: of the training at hand.
        longest: its end is kept while there is no edit of so many steps; 0 keeps none.
        last: the folder of the edit of `longest` steps.
    """

    root: Path
    kind: str
    steps: int
    longest: int
    last: Path

    @classmethod
    def of(cls, cfg: DictConfig, edits: Path, *made_by: str) -> Trail:
        """Those of a config.

        Args:
            edits: the folder of edits.
            made_by: the code, device and library that train: what another made is not gone on from.
        """
        method: Any = OmegaConf.to_container(cfg.method, resolve=True)
        longest = int(cfg.get("longest") or 0)
        last = key(cfg.model, cfg.concept, cfg.anchor, {**method, "steps": longest}, cfg.seed)
        kind = key(trained_as(cfg), *made_by)
        return cls(edits.parent / "trails", kind, int(method.get("steps", 0)), longest, edits / last)

    def place(self, steps: int) -> Path:
        return self.root / f"{self.kind}-{steps}"

    def lengths(self) -> list[int]:
        """Of the trainings whose ends are here."""
        return [int(end.name.rpartition("-")[2]) for end in self.root.glob(f"{self.kind}-*")]

    def fetch(self, part: Path) -> dict[str, Any] | None:
        """Copy the longest end that is not longer than this training into its folder, which is empty.

        Returns:
            What its END says: `steps` that it has made, and the `seconds` that they took (null: not known).

        Raises:
            BadInput: it is damaged.
        """
        if not self.lengths():  # and no lock is needed to know
            return None
        with lock(self.root / f".{self.kind}.lock"):
            if not (fits := [n for n in self.lengths() if n <= self.steps]):
                return None
            end = self.place(max(fits))
            named(end, end.name)
            brought(end, part)
            about: dict[str, Any] = read_json(end / END, folder=end)
            return about

    def keep(self, part: Path) -> None:
        """Keep the end of this training, if it has one and a longer training is to come.

        Raises:
            BadInput: a file of it is damaged.
        """

        def copy(end: Path) -> None:
            for file in files(part):
                known, to = digests(file.parent), end / file.relative_to(part)
                to.parent.mkdir(exist_ok=True)
                part_of(to).write_bytes(verified(file, known, part) if file.name in known else file.read_bytes())
                finish(to)

        if self.steps < self.longest and (part / END).exists():
            with lock(self.root / f".{self.kind}.lock"):
                if not self.last.exists():
                    cached(self.root, self.place(self.steps).name, copy)
        (part / END).unlink(missing_ok=True)  # what it stands for is deleted next

    def drop(self) -> None:
        """Delete the ends of shorter trainings: whoever wants more steps has this one, or does not want any more."""
        if self.longest and any(n < self.steps for n in self.lengths()):
            with lock(self.root / f".{self.kind}.lock"):
                for end in (self.place(n) for n in self.lengths() if n < self.steps):
                    gone = end.with_name(f".{end.name}.gone")  # a name means complete, also while it is deleted
                    shutil.rmtree(gone, ignore_errors=True)
                    os.replace(end, gone)
                    shutil.rmtree(gone)


def brought(end: Path, part: Path) -> None:
    """Copy what a training goes on from into its folder.

    Raises:
        BadInput: a file is damaged.
    """
    for file in files(end):
        whole, to = verified(file, folder=end), part / file.relative_to(end)
        to.parent.mkdir(exist_ok=True, parents=True)
        if file.suffix == ".jsonl":  # it will grow
            to.write_bytes(whole)
        elif file.name != END:
            part_of(to).write_bytes(whole)
            finish(to)


def clear(folder: Path, lasting: Collection[str] = ()) -> None:
    """Delete all that is in a folder but the names that last."""
    for left in folder.iterdir():
        if left.name not in lasting:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def files(folder: Path) -> list[Path]:
    """What an end is made of."""
    every = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.name != SUMS and f.suffix != ".part"]
    return [f for f in every if not f.name.startswith(".") and not (f.parent == folder and f.name in NEVER)]
