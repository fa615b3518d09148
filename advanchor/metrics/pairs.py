"""How far each image moved: perceptual distance between the edited and the unedited model's image of the same prompt and seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F

from advanchor.core import Images, Judge, Scores, mean, option


@option
class PerceptualDistance:
    """`lpips_<judge>/erase` (higher is better), `lpips_<judge>/keep`: the distance of LPIPS (Zhang et al. 2018, arXiv 1801.03924, eq. 1) with all weights 1 on the judge's own
    feature maps: unit vectors over the channels at every place, squared difference, mean over places, sum over stages. Not comparable with the published AlexNet's LPIPS.
    """

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    name: str
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name in ("erase", "keep"):
            before, after = judge.stages(images[f"{name}@base"].load()), judge.stages(images[name].load())
            each = [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2)) for a, b in zip(before, after, strict=True)]
            score = mean(torch.stack(each).sum(0).tolist(), "higher" if name == "erase" else "lower")
            scores[f"lpips_{judge.name}/{name}"] = {**score, "extractor": judge.extractor}
        return scores
