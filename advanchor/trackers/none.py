"""Progress is shown nowhere; result.json is the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advanchor.core import Scores, option


@option("tracker")
class NoTracker:
    """Shows nothing."""

    name: str

    def start(self, run: str, config: dict[str, Any], out: Path) -> None:
        """Nothing to open."""

    def log(self, step: int, **scalars: float) -> None:
        """Nothing to write."""

    def finish(self, scores: Scores, grid: Path | None, failed: bool) -> str:
        return "none"
