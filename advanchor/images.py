"""Sets of images: what was asked for, drawn once into a folder, checked whenever it is looked at."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar, cast, overload

from tqdm import tqdm

from advanchor.core import Head
from advanchor.prompts import Prompt
from advanchor.store import digests, finish, lock, named, part_of, verified

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


class Pictures(Sequence["Image"]):
    """Images of a folder, each checked and decoded when it is looked at; a set that fits in memory only once."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files, self.known = files, digests(files[0].parent) if files else {}
        self.decoded: dict[Path, Image] = {}
        self.room = 2**28  # bytes

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, place: int) -> Image: ...
    @overload
    def __getitem__(self, place: slice) -> list[Image]: ...
    def __getitem__(self, place: int | slice) -> Image | list[Image]:
        return (
            [self.open(file) for file in self.files[place]]
            if isinstance(place, slice)
            else self.open(self.files[place])
        )

    def open(self, file: Path) -> Image:
        """RGB.

        Raises:
            BadInput: the file is not what was drawn.
        """
        from PIL import Image

        if file in self.decoded:
            return self.decoded[file]
        image = Image.open(io.BytesIO(verified(file, self.known))).convert("RGB")
        self.room -= image.width * image.height * 3
        if self.room > 0:
            self.decoded[file] = image
        return image


class Finder(Protocol):
    """What sets of images ask of a judge (protocols.py has all of it)."""

    judges: ClassVar[tuple[str, ...]]

    def find(self, images: Sequence[Image], heads: Sequence[Head], by: str = "") -> dict[Head, list[str]]: ...


@dataclass(frozen=True)
class Images:
    """What was asked for, and the folder in which every one of those images is."""

    root: Path
    prompts: Sequence[Prompt]
    record: Path | None = None  # where what one judge saw in them is kept

    @cached_property
    def pictures(self) -> Pictures:
        return Pictures([self.root / p.file for p in self.prompts])

    def seen(self, what: str, look: Callable[[Sequence[Image]], T]) -> T:
        """`look` at the images, once for all metrics and all runs that show the same ones. `what` says all that the
        answer depends on beside them.

        Raises:
            BadInput: an image or a record of what was seen is damaged.
        """
        import torch

        if self.record is None:
            return look(self.pictures)
        shown = [f"{p.file} {sorted(self.pictures.known.get(p.file, ()))}" for p in self.prompts]
        file = (
            self.record
            / f"{what.partition(' ')[0]}-{hashlib.sha256(chr(10).join([what, *shown]).encode()).hexdigest()[:12]}.pt"
        )
        with lock(file.with_suffix(".lock")):
            if not file.exists():
                torch.save(look(self.pictures), part_of(file))
                finish(file)
        return cast(T, torch.load(io.BytesIO(verified(file)), weights_only=True))

    def found(self, judge: Finder, heads: Sequence[Head], by: str = "") -> dict[Head, list[str]]:
        """What a detector of the judge sees in each image by each of the heads; the first detector if `by` is empty."""
        one, wanted = by or judge.judges[0], sorted(set(heads))
        return self.seen(f"find-{one} {' '.join(wanted)}", lambda images: judge.find(images, wanted, one))

    def right(self, judge: Finder, by: str = "") -> list[bool]:
        """Does a detector of the judge see in each image what its prompt names?"""
        found = self.found(judge, [p.head for p in self.prompts], by)
        return [found[p.head][i] == p.label for i, p in enumerate(self.prompts)]


def draw(
    paint: Callable[[Sequence[Prompt]], list[Image]], prompts: Sequence[Prompt], folder: Path, *, batch: int, label: str
) -> Images:
    """Let `paint` draw what `folder` does not hold yet and return all of it. Several processes that draw into one
    folder share the work, batch by batch.

    Prompts are cut into batches at fixed places and a batch with a missing file is drawn whole, so that a resumed run
    computes the same batches as an undisturbed one. (Another batch size changes an image by rounding only.)
    """
    with lock(folder / ".lock"):
        named(folder, folder.name)
    batches = [prompts[i : i + batch] for i in range(0, len(prompts), batch)]
    gone = missing(prompts, folder)
    waiting = [group for group in batches if any(p.file in gone for p in group)]
    with tqdm(total=sum(map(len, waiting)), desc=f"draw {label}", unit="image", leave=False) as bar:
        while waiting:
            elsewhere = []
            for group in waiting:
                with lock(taken(group, folder), block=False) as mine:
                    if not mine:
                        elsewhere.append(group)
                        continue
                    if missing(group, folder):
                        keep(dict(zip((p.file for p in group), paint(group), strict=True)), group, folder)
                    bar.update(len(group))
            if len(elsewhere) == len(waiting):  # nothing to do but to wait for who draws them, or dies
                with lock(taken(elsewhere[0], folder)):
                    pass
            waiting = elsewhere
    return Images(folder, prompts)


def missing(prompts: Sequence[Prompt], folder: Path) -> set[str]:
    """The files of these prompts that the folder does not hold."""
    known = digests(folder)
    return {p.file for p in prompts if p.file not in known or not (folder / p.file).exists()}


def taken(group: Sequence[Prompt], folder: Path) -> Path:
    """The lock of who draws a batch. Two batches may have the same one: then one of them waits."""
    return folder / f".batch-{hashlib.sha256(group[0].file.encode()).hexdigest()[:2]}.lock"


def keep(images: Mapping[str, Image], group: Sequence[Prompt], folder: Path) -> None:
    """Write those of a batch that the folder does not hold; runs with other batches may draw the same ones."""
    with lock(folder / ".lock"):
        gone = missing(group, folder)
        if fresh := [folder / name for name in images if name in gone]:
            for file in fresh:
                images[file.name].save(part_of(file), format="PNG")
            finish(*fresh)
