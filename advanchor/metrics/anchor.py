"""What is left of the concept in its anchor: the second of the two numbers that the analysis of anchors is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advanchor.core import Scores, option, share
from advanchor.images import Images
from advanchor.protocols import Judge


@option("metric")
class AnchorHit:
    """`anchor/hit`: share of the images that the *unedited* model draws under the anchor in which the detector finds
    the concept.

    One image per template and seed; an anchor that scores high cannot erase. Lower is better.
    """

    sets: ClassVar = ("anchor",)
    name: str
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        shown = images["anchor"]
        return {"anchor/hit": {**share(shown.right(judge), "lower"), "texts": [p.text for p in shown.prompts]}}
