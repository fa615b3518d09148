"""Content-addressed artifacts: where a stage's output lives is a function of the config that made it."""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from advanchor.core import BadInput

# What identifies a run. Metrics, judge, tracker, paths and machine settings do not: they can change what is measured
# or shown, never which weights are made or which images are looked at.
IDENTITY = ("model", "concept", "anchor", "method", "sample", "seed")


def plain(part: Any) -> Any:
    """The JSON form of a config, number, string or container of them, without `_target_` and descriptions of places.

    Names identify options (moving a class renames nothing); `path` stays, since another folder is another model. A whole number is itself however it is written, 4 or 4.0.
    """
    if OmegaConf.is_config(part):
        part = OmegaConf.to_container(part, resolve=True, throw_on_missing=True)
    if isinstance(part, dict):
        return {str(k): plain(v) for k, v in part.items() if k != "_target_"}
    if isinstance(part, list | tuple):
        return [plain(v) for v in part]
    return int(part) if isinstance(part, float) and part.is_integer() else part


def key(*parts: Any) -> str:
    """Short digest of configs, numbers and other keys; the order of dict keys does not matter."""
    return hashlib.sha256(json.dumps(plain(list(parts)), sort_keys=True).encode()).hexdigest()[:12]


def run_id(_root_: DictConfig) -> str:
    """Digest of everything that decides which images a run looks at."""
    return key(*(_root_[group] for group in IDENTITY))


def write_json(path: Path, value: Any) -> None:
    """Write, then name: a file that exists is complete. The caller holds the lock of the folder."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(part, path)


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        BadInput: something else has damaged the file since.
    """
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise BadInput(f"{path} is damaged: delete it and run the same command again.") from None


def cached(root: Path, name: str, build: Callable[[Path], None]) -> Path:
    """Return `root/name`, building it at most once.

    A directory gets its final name only when it is complete. A killed build leaves `.name.part`, which the
    next call hands to `build` again, so a builder that skips the files it finds there resumes by itself.
    """
    done, part = root / name, root / f".{name}.part"
    if done.exists():  # complete things never change: no lock is needed to read them
        return done
    with lock(root / f".{name}.lock"):
        if not done.exists():
            part.mkdir(exist_ok=True)
            build(part)
            os.replace(part, done)
    return done


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


OmegaConf.register_new_resolver("run_id", run_id, replace=True)
