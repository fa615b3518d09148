"""Are there pictures at all? Share of images that are nothing: a smear, noise, a blend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advanchor.core import NOTHING, Scores, option, share
from advanchor.images import Images
from advanchor.metrics.detectors import verdicts
from advanchor.protocols import Judge


def broken(judge: Judge, shown: Images) -> dict[str, list[bool]]:
    """Which images each detector takes for no picture of anything; {} if the judge's have no class for that."""
    if not judge.rejects:
        return {}
    each = verdicts(judge, lambda by: [label == NOTHING for label in shown.found(judge, ["object"], by)["object"]])
    return {said: rejected for said, rejected in each.items() if said != "agree"}


@option("metric")
class Broken:
    """`broken/erase`, `broken/keep`, each also `@base`, and `broken/erase2` and so on by the judge's second detector:
    the share of images that are no picture of anything, by the class that the detectors have for such. Lower is better.

    A judge that rejects nothing gives no score; the closing table says so.
    """

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    name: str
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for which in self.sets:
            name, at, base = which.partition("@")
            for said, rejected in broken(judge, images[which]).items():
                scores[f"broken/{name}{said}{at}{base}"] = share(rejected, "lower")
        return scores
