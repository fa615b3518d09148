"""AdvAnchor's released evaluation (Zhao et al. 2024, arXiv 2501.00054): every concept by itself against the unedited
model's images of the same seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import ClassVar, Literal

from advanchor.core import Scores, mean, option, share
from advanchor.images import Images
from advanchor.metrics.distance import fid
from advanchor.metrics.sound import finite
from advanchor.protocols import Judge

Direction = Literal["higher", "lower"]


@option("metric")
class Released:
    """For the erased and for the kept concepts `released_accuracy/<set>` (share of images that are classified as what
    the prompt names), `released_fid/<set>` and `released_<distance>/<set>` (the judge's perceptual distance of
    same-seed pairs), sets `erase` and `keep`, and for each single concept `<set>:<name>`. FID is computed for each
    concept and then averaged, so `n` is that of one concept.

    The released code measures nine concepts of one kind; here it is what the concept keeps, of its own kind and of the
    other.
    """

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    fewest_each: ClassVar = 2  # FID has a covariance
    name: str
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for which in ("erase", "keep"):
            shown, before = images[which], images[f"{which}@base"]
            right = shown.right(judge)
            features = f"features of `{which}`"
            was, now = (finite(one.seen("features", judge.features), self.name, features) for one in (before, shown))
            distances = judge.distance(before.pictures, shown.pictures)
            moved = finite(distances, self.name, f"distances of `{which}`").tolist()
            accuracy: Direction = "lower" if which == "erase" else "higher"
            distance: Direction = "higher" if which == "erase" else "lower"
            fids: dict[str, float] = {}
            places: dict[str, list[int]] = {}
            for i, prompt in enumerate(shown.prompts):
                places.setdefault(f":{prompt.label}", []).append(i)
            places[""] = list(range(len(right)))
            for part, chosen in places.items():
                scores[f"released_accuracy/{which}{part}"] = share([right[i] for i in chosen], accuracy)
                scores[f"released_{judge.perceptual}/{which}{part}"] = {
                    **mean([moved[i] for i in chosen], distance),
                    "extractor": judge.perceptual,
                }
                if part:
                    fids[part] = fid(was[chosen], now[chosen])
                value = fids[part] if part else statistics.mean(fids.values())
                n = len(chosen) if part else len(right) // len(fids)
                scores[f"released_fid/{which}{part}"] = {
                    "value": value,
                    "n": n,
                    "better": distance,
                    "extractor": judge.extractor,
                }
        return scores
