"""What identifies a run, a stage or a file: digests of configs and of what the files that they name hold."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from advanchor import hub
from advanchor.store import part_of

# What identifies a run. Metrics, judge, tracker, paths and machine settings do not: they can change what is measured
# or shown, never which weights are made or which images are looked at.
IDENTITY = ("model", "concept", "anchor", "method", "sample", "seed")
# Settings of a component that name a file or folder, or several: what is in it identifies, not where it is.
FILES = ("path", "styles", "prompts_csv", "never", "file", "references", "floor", "edit")
# Settings that came later, with what everything did before there were any: they rename nothing that is computed.
LATER = {"dtype": "float32"}
STAGES = ("erase", "anchor")  # the first is what every run was before there were others, and is in no name
LARGE = 2**26  # bytes; hashing so many takes long enough to remember the digest
_digests: dict[str, str] = {}


def plain(part: Any) -> Any:
    """The JSON form of a config, number, string or container of them, without `_target_`: names identify options, and
    moving a class renames nothing.

    A whole number is itself however it is written, 4 or 4.0.
    """
    if OmegaConf.is_config(part):
        part = OmegaConf.to_container(part, resolve=True, throw_on_missing=True)
    if isinstance(part, dict):
        return {str(k): plain(v) for k, v in part.items() if k != "_target_"}
    if isinstance(part, list | tuple):
        return [plain(v) for v in part]
    return int(part) if isinstance(part, float) and part.is_integer() else part


def key(*parts: Any, memory: Path | None = None) -> str:
    """Short digest of configs, numbers and other keys; the order of dict keys does not matter. A component's setting
    that names a file stands for what is in it.

    Args:
        memory: a file in which the digests of large files are remembered.
    """
    return hashlib.sha256(json.dumps([_named(part, memory) for part in parts], sort_keys=True).encode()).hexdigest()[
        :12
    ]


def _named(part: Any, memory: Path | None) -> Any:
    made = part.get("_target_") if isinstance(part, dict | DictConfig) else None
    part = plain(part)
    if not isinstance(part, dict):
        return part
    if made is not None:  # two classes with the same settings are two; where a class lives does not matter
        part["class"] = str(made).rpartition(".")[2]
    part = {k: _contents(v, memory) if k in FILES else v for k, v in part.items() if k not in LATER or LATER[k] != v}
    if isinstance(part.get("several"), dict):  # a set of concepts
        part["several"] = {name: _named(one, memory) for name, one in part["several"].items()}
    return part


def _contents(place: Any, memory: Path | None) -> Any:
    """`contents` of each place that is named; what names none stays as it is."""
    if isinstance(place, list):
        return [_contents(one, memory) for one in place]
    return contents(place, memory) if isinstance(place, str) else place


def contents(place: str, memory: Path | None = None) -> str:
    """Digest of a file, or of a folder's files and their names; of a diffusers folder those that are loaded. The same
    weights are the same model wherever they lie.

    A model is found as hub.py says; what is not there has the digest "missing", and is refused by those who need it.
    """
    folder = hub.place(place)
    try:
        if not folder.is_dir():
            return file_digest(folder.resolve(strict=True), memory)
        # Links are followed: a part of a model may lie elsewhere.
        every = (Path(above) / name for above, _, names in os.walk(folder, followlinks=True) for name in names)
        files = [f for f in every if f.is_file() and "/." not in f"/{f.relative_to(folder).as_posix()}"]
        if (folder / "model_index.json").exists():
            files = [f for f in files if f.relative_to(folder).parts[0] in (*hub.PARTS, "model_index.json")]
        lines = sorted(f"{f.relative_to(folder)} {file_digest(f.resolve(), memory)}" for f in files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    except OSError:
        return "missing"


def file_digest(file: Path, memory: Path | None = None) -> str:
    """sha256 of a file, computed once for its path, size and time: in this process, and for large ones in all that
    share `memory`.
    """
    about = file.stat()
    name = f"{file} {about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
    if name not in _digests:
        remembered = {}
        if memory is not None and about.st_size > LARGE and memory.exists():
            try:
                remembered = {str(known): str(digest) for known, digest in json.loads(memory.read_text()).items()}
            except (ValueError, AttributeError):  # damaged: it is only a shortcut
                pass
        if name in remembered:
            _digests[name] = remembered[name]
            return remembered[name]
        with file.open("rb") as content:
            _digests[name] = hashlib.file_digest(content, "sha256").hexdigest()
        if memory is not None and about.st_size > LARGE:
            try:
                memory.parent.mkdir(parents=True, exist_ok=True)
                part_of(memory).write_text(json.dumps({**remembered, name: _digests[name]}))
                os.replace(part_of(memory), memory)
            except OSError:  # a store that can only be read
                pass
    return _digests[name]


def run_id(_root_: DictConfig) -> str:
    """Digest of everything that decides which images a run looks at."""
    stage = _root_.get("stage", STAGES[0])
    parts = [*(_root_[group] for group in IDENTITY), *([stage] if stage != STAGES[0] else [])]
    return key(*parts, memory=Path(_root_.root) / "store" / "weights.json")


def trained_as(cfg: DictConfig, memory: Path | None = None) -> str:
    """Digest of all that decides how a run trains, but for the number of steps."""
    method: Any = OmegaConf.to_container(cfg.method, resolve=True)
    kind = {name: value for name, value in method.items() if name != "steps"}
    return key(cfg.model, cfg.concept, cfg.anchor, kind, cfg.seed, memory=memory)


OmegaConf.register_new_resolver("run_id", run_id, replace=True)
