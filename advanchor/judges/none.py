"""No judge: a run draws its pictures and computes no score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from advanchor.core import option
from advanchor.prompts import Prompt


@option("judge")
class NoJudge:
    """Measures nothing: the run draws its pictures and says that no score was computed."""

    name: str
    version: int = 1
    extractor: str = "none"
    perceptual: ClassVar = "none"
    embedder: ClassVar = "none"
    judges: ClassVar = ("none",)
    rejects: ClassVar = False

    def to(self, device: str) -> Self:
        """Itself."""
        return self

    def files(self) -> list[Path]:
        """None."""
        return []

    def check(self, prompts: Sequence[Prompt], pixels: int) -> None:
        """Any prompt and any size will do."""
