"""No erasure: the unedited model, measured like any other."""

from __future__ import annotations

from pathlib import Path

from advanchor.core import Anchor, Concept, Edit, Log, Model, option


@option
class Nothing:
    """Changes no weight."""

    name: str
    version: int = 1

    def erase(self, model: Model, concept: Concept, anchor: Anchor, seed: int, folder: Path, log: Log) -> tuple[Edit, dict[str, float]]:
        return {}, {}
