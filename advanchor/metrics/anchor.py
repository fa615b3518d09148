"""What the anchor is, seen: what the unedited model draws under it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advanchor.core import Scores, option, share
from advanchor.images import Images
from advanchor.metrics.broken import broken
from advanchor.metrics.content import content, things
from advanchor.metrics.detectors import verdicts
from advanchor.protocols import Judge


@option("metric")
class AnchorHit:
    """Of the images that the *unedited* model draws under the anchor, one per template and seed:

    `anchor/hit`: share in which the detector finds the concept; an anchor that scores high cannot erase. Lower is
    better. `anchor/content`: share in which the other thing is found that the sentence names, as metric=content has it.
    `anchor/broken`: share that is no picture of anything, as metric=broken has it. By the judge's second detector they
    are called `anchor/hit2` and so on; `anchor/agree` is whether both find the concept, or neither.
    """

    sets: ClassVar = ("anchor",)
    name: str
    version: int = 2

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        shown, scores = images["anchor"], Scores()
        for said, right in verdicts(judge, lambda by: shown.right(judge, by)).items():
            name = said if said == "agree" else f"hit{said}"
            scores[f"anchor/{name}"] = share(right, "higher" if said == "agree" else "lower")
        for said, rejected in broken(judge, shown).items():
            scores[f"anchor/broken{said}"] = share(rejected, "lower")
        for score in scores.values():
            score["texts"] = [p.text for p in shown.prompts]
        for name, score in content(judge, shown, things(shown)).items():
            if name != "agree":
                scores[f"anchor/{name.replace('hit', 'content')}"] = score
        return scores
