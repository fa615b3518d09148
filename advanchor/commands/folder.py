"""A new folder for others to read: complete or not there, and nothing is written over."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from advanchor.core import BadInput


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """A folder that is at `to` at the end of the block; if that fails it is gone, with the folders above it that
    were made for it. Until then it lies elsewhere under the same name, which stands in a signature.

    Raises:
        BadInput: `to` is there already, or cannot be written.
    """
    if to.exists():
        raise BadInput(f"{to} is there already, and nothing is written over: name another folder.")
    new = [place for place in to.parents if not place.exists()]  # the nearest first
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        above = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    except OSError as error:
        raise BadInput(f"{to} cannot be written ({error.strerror}): name another folder.") from None
    try:
        part = above / to.name
        part.mkdir()
        yield part
        part.rename(to)
    finally:
        shutil.rmtree(above, ignore_errors=True)
        if not to.exists():
            for place in new:
                with suppress(OSError):  # another process has put something there
                    place.rmdir()
