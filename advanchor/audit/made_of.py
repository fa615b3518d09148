"""What a run was made of: the files of the model that was edited, and of the judge that looked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from advanchor.build import build
from advanchor.hub import place
from advanchor.identity import contents, file_digest, key
from advanchor.protocols import Judge


def original(cfg: DictConfig) -> dict[str, Any]:
    """Which weights were edited: the digest by which a run knows them, that of their folder, and each file's."""
    at = cfg.model.get("path")
    said = {"name": str(cfg.model.name), "key": key(cfg.model), "contents": "", "files": {}}
    if at is None:  # made of a seed
        return said
    folder = place(str(at))
    above = folder if folder.is_dir() else folder.parent
    each = {file.relative_to(above).as_posix(): file_digest(file.resolve()) for file in weights_of(folder)}
    return {**said, "contents": contents(str(at)), "files": each}


def detectors(cfg: DictConfig) -> dict[str, Any]:
    """Who judged: the judge's name, its detectors, and the files that it is made of."""
    judge = cast(Judge, build(cfg.judge, "judge"))
    return {
        "name": judge.name,
        "key": key(cfg.judge),
        "detectors": list(judge.judges),
        "files": {f"{file.parent.name}/{file.name}": file_digest(file) for file in judge.files()},
    }


def weights_of(folder: Path) -> list[Path]:
    """The files with weights in a model's folder, or the file that it is."""
    return sorted(folder.rglob("*.safetensors")) if folder.is_dir() else [folder]
