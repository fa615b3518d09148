"""How far each image moved: perceptual distance between the edited and the unedited model's image of the same prompt
and seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advanchor.core import Scores, mean, option
from advanchor.images import Images
from advanchor.metrics.sound import finite
from advanchor.protocols import Judge


@option("metric")
class PerceptualDistance:
    """`<distance>/erase` (higher is better), `<distance>/keep`: the judge's perceptual distance, under its own name:
    `lpips_emoji` is LPIPS' form on the emoji judge's feature network.
    """

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    name: str
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name in ("erase", "keep"):
            each = finite(
                judge.distance(images[f"{name}@base"].pictures, images[name].pictures),
                self.name,
                f"distances of `{name}`",
            )
            scores[f"{judge.perceptual}/{name}"] = {
                **mean(each.tolist(), "higher" if name == "erase" else "lower"),
                "extractor": judge.perceptual,
            }
        return scores
