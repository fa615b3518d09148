"""Files that are what they were when they were written, folders that are complete or not there, and locks."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from advanchor.core import BadInput

if TYPE_CHECKING:
    from torch import Tensor

SUMS = "SHA256SUMS"  # in every folder of the store and of results: what its files were when they were written
NAME = "name"  # in every folder of the store: which artifact it is


def write_json(path: Path, content: Any) -> None:
    """Write a file that `read_json` can check; it has its name only when it is complete.

    Raises:
        BadInput: a number in it is not finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        part_of(path).write_text(json.dumps(content, indent=2, allow_nan=False))
    except ValueError:
        raise BadInput(
            f"a number for {path.name} is not finite: such a result is not kept; "
            "lower the learning rates or the guidance."
        ) from None
    finish(path)


def read_json(path: Path, folder: Path | None = None) -> Any:
    """What `write_json` wrote.

    Raises:
        BadInput: something else has changed the file since; see `verified`.
    """
    return json.loads(verified(path, folder=folder))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that `read_tensors` can check; it has its name only when it is complete.

    Raises:
        BadInput: a number in it is not finite.
    """
    from safetensors.torch import save_file

    if wrong := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise BadInput(
            f"{wrong[0]} of {path.name} is not finite, and is not kept: lower the learning rates (method.lr, "
            "anchor.lr) or the guidance."
        )
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part_of(path))
    finish(path)


def read_tensors(path: Path, folder: Path | None = None) -> dict[str, Tensor]:
    """What `write_tensors` wrote, on the CPU.

    Raises:
        BadInput: something else has changed the file since; see `verified`.
    """
    from safetensors.torch import load

    return load(verified(path, folder=folder))


def slug(words: str) -> str:
    """A user's words as a file name: their letters and digits, at most sixty, and a digest of all they are; no two
    texts share one, and none leaves its folder.
    """
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in words)
    return f"{plain[:60]}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"


def finish(*files: Path) -> None:
    """Give written files their names, in one folder: `x.part` becomes `x`, and its digest stands in the folder's
    SHA256SUMS (the format of sha256sum) before it does.

    A name therefore means that the file is complete and can be told from a damaged one, whatever was killed when. A
    file that is written again and again has several digests there; that of any complete version is right.
    """
    sums = [f"{hashlib.sha256(part_of(file).read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    with (files[0].parent / SUMS).open("a+") as lines:
        lines.seek(max(0, lines.tell() - 1))
        torn = lines.read(1) not in ("", "\n")  # a crash cut the last line off: the next one is a line of its own
        lines.write("\n" * torn + "".join(sums))
    for file in files:
        os.replace(part_of(file), file)


def part_of(file: Path) -> Path:
    """Where a file is written before it has its name."""
    return file.with_name(f"{file.name}.part")


def digests(folder: Path) -> dict[str, set[str]]:
    """What SHA256SUMS says of a folder's files. A line that a crash cut off counts for nothing."""
    found: dict[str, set[str]] = {}
    if (folder / SUMS).exists():
        for line in (folder / SUMS).read_text(errors="replace").splitlines():
            digest, _, name = line.partition("  ")
            found.setdefault(name, set()).add(digest)
    return found


def verified(file: Path, known: Mapping[str, set[str]] | None = None, folder: Path | None = None) -> bytes:
    """The bytes of a file that `finish` named.

    Args:
        known: the `digests` of its folder, if they are at hand.
        folder: what is to be deleted if it is damaged, its own folder unless given.

    Raises:
        BadInput: they are not those that were written, or nobody wrote down what they were.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest() not in (digests(file.parent) if known is None else known).get(file.name, ()):
        raise BadInput(f"{file} is damaged: delete the folder {folder or file.parent} and run the same command again.")
    return content


def cached(root: Path, name: str, build: Callable[[Path], None]) -> Path:
    """Return `root/name`, building it at most once.

    A directory gets its final name only when it is complete. A killed build leaves `.name.part`, which the
    next call hands to `build` again, so a builder that skips the files it finds there resumes by itself.

    Raises:
        BadInput: the directory is another artifact's, moved here.
    """
    done, part = root / name, root / f".{name}.part"
    if not done.exists():  # complete things never change: no lock is needed to read them
        with lock(root / f".{name}.lock"):
            if not done.exists():
                part.mkdir(exist_ok=True)
                build(part)
                named(part, name)
                os.replace(part, done)
    named(done, name)
    return done


def named(folder: Path, name: str) -> None:
    """Let a folder say which artifact it is, or hold it to what it says: whole files of another one are no use here.

    Raises:
        BadInput: it says another name.
    """
    file = folder / NAME
    if not file.exists():
        part_of(file).write_text(name)
        finish(file)
    elif verified(file) != name.encode():
        raise BadInput(
            f"{folder} holds what belongs to another name: delete the folder and run the same command again."
        )


@contextmanager
def lock(path: Path, block: bool = True) -> Iterator[bool]:
    """Hold a lock the kernel drops when the process dies; yields False if `block` is off and it is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as f:
        yield _take(f, fcntl.LOCK_EX, block)


def held(path: Path) -> bool:
    """Does a living process hold this lock?"""
    if not path.exists():
        return False
    with path.open() as f:
        return not _take(f, fcntl.LOCK_SH, block=False)


def _take(file: IO[str], kind: int, block: bool) -> bool:
    for _ in range(5):
        try:
            fcntl.flock(file, kind | (0 if block else fcntl.LOCK_NB))
            return True
        except BlockingIOError:  # somebody works under it, or looks for an instant whether anybody does
            time.sleep(0.02)
    return False
