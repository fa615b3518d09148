"""Progress as JSON lines in the run's folder. A file that cannot be written is said once and costs no run."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path
from typing import Any

from advanchor.core import Scores, option

log = logging.getLogger(__name__)


@option("tracker")
class JsonLines:
    """One line per event in <run folder>/<file>. What is not finite is null there.

    Attributes:
        file: a plain name that ends in .jsonl, so that no other file of the run has it.
    """

    name: str
    file: str = "progress.jsonl"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]{0,99}\.jsonl", self.file):
            rule = "must be a plain name that ends in .jsonl (letters, digits, '.', '-', '_')"
            raise ValueError(f"file {self.file!r} {rule}: it lies in the run's folder")

    def start(self, run: str, config: dict[str, Any], out: Path) -> None:
        object.__setattr__(self, "_path", out / self.file)
        self._write({"event": "start", "run": run, "config": config}, "w")

    def log(self, step: int, **scalars: float) -> None:
        self._write({"event": "step", "step": step, **scalars})

    def finish(self, scores: Scores, grid: Path | None, failed: bool) -> str:
        self._write({"event": "finish", "failed": failed, "scores": scores})
        return "not logged" if self._path is None else str(self._path)  # type: ignore[attr-defined]

    def _write(self, event: dict[str, Any], mode: str = "a") -> None:
        path = self._path  # type: ignore[attr-defined]
        if path is None:
            return
        try:
            with path.open(mode) as f:
                f.write(json.dumps(_finite(event), allow_nan=False) + "\n")
        except OSError as error:
            log.warning("%s cannot be written (%s): the run goes on without it.", path, error.strerror)
            object.__setattr__(self, "_path", None)


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
