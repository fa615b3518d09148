"""CLIP score: does the image match its prompt? 100 x cosine of open_clip's embeddings (Hessel et al. 2021, arXiv
2104.08718, with w = 100).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advanchor.core import Scores, mean, option
from advanchor.images import Images
from advanchor.metrics.sound import finite
from advanchor.protocols import Judge


@option("metric")
class Clip:
    """`clip/erase` (lower is better: the prompt names what should be gone), `clip/keep`, each also `@base`. Negative
    cosines count as they are.
    """

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    name: str
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name in self.sets:
            shown = images[name]
            values = 100 * finite(
                judge.similarity(shown.pictures, [p.text for p in shown.prompts]),
                self.name,
                f"similarities of `{name}`",
            )
            scores[f"clip/{name}"] = mean(values.tolist(), "lower" if name.startswith("erase") else "higher")
        return scores
