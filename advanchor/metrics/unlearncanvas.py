"""The three accuracies of UnlearnCanvas (Zhang et al. 2024, arXiv 2402.11846), by the judge's classifier on the edited model's images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advanchor.core import Judge, Scores, option, share
from advanchor.images import Images


@option("metric")
class UnlearnCanvas:
    """`unlearncanvas/ua`: unlearning accuracy, share of images of the erased concept that are classified as something else; `/ira`: in-domain retain accuracy, kept concepts
    of the same kind that are classified right; `/cra`: cross-domain retain accuracy, those of the other kind. Counted over all images, not per batch.
    """

    sets: ClassVar = ("erase", "keep")
    name: str
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        right = {name: images[name].right(judge) for name in self.sets}
        kept = [(p.kept, ok) for p, ok in zip(images["keep"].prompts, right["keep"], strict=True)]
        scores: Scores = {"unlearncanvas/ua": share([not ok for ok in right["erase"]], "higher")}
        for name, where in (("ira", "in"), ("cra", "cross")):
            if values := [ok for k, ok in kept if k == where]:
                scores[f"unlearncanvas/{name}"] = share(values, "higher")
        return scores
