"""No erasure: the unedited model, measured like any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advanchor.core import Log, option
from advanchor.protocols import Edit, Model, Target


@option("method")
class Nothing:
    """Changes no weight."""

    name: str
    version: int = 1

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        return {}
