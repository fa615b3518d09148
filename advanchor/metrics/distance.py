"""Distances between the edited and the unedited model's images of the same prompts and seeds: FID and KID on the judge's features.

torchmetrics computes both; the judge's features go through an identity where it would run Inception.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

import advanchor.torchvision_ops  # noqa: F401  (before torchmetrics)

from torchmetrics.image.fid import FrechetInceptionDistance  # isort: skip
from torchmetrics.image.kid import KernelInceptionDistance  # isort: skip

from advanchor.core import Images, Judge, Positive, Score, Scores, option


class Ready(nn.Module):
    """Features that are already computed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def pairs(judge: Judge, images: Mapping[str, Images]) -> dict[str, tuple[Tensor, Tensor]]:
    """{"erase", "keep"}: features (n, d) of the unedited and the edited model's images."""
    return {name: (judge.features(images[f"{name}@base"].load()), judge.features(images[name].load())) for name in ("erase", "keep")}


@option
class Fid:
    """`fid/erase`, `fid/keep` (Heusel et al. 2017, arXiv 1706.08500). With n below the feature dimension the covariance is singular; n is in the score."""

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    name: str
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name, (before, after) in pairs(judge, images).items():
            metric = FrechetInceptionDistance(feature=Ready(before.shape[1]))
            metric.set_dtype(torch.float64)
            metric.update(before, real=True)
            metric.update(after, real=False)
            scores[f"fid/{name}"] = _score(float(metric.compute()), name, len(after), judge)
        return scores


@option
class Kid:
    """`kid/erase`, `kid/keep`, times 1000 (Binkowski et al. 2018, arXiv 1801.01401): unbiased, so usable at small n.

    Attributes:
        subsets, subset_size: torchmetrics' resampling; a size above n becomes n.
    """

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    name: str
    subsets: Positive = 100
    subset_size: Positive = 100
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name, (before, after) in pairs(judge, images).items():
            with warnings.catch_warnings(action="ignore"):  # "will save all extracted features": 64 numbers an image
                metric = KernelInceptionDistance(feature=Ready(before.shape[1]), subsets=self.subsets, subset_size=min(self.subset_size, len(before)))
            metric.update(before, real=True)
            metric.update(after, real=False)
            with torch.random.fork_rng(devices=[]):  # its subsets come from the global generator
                torch.manual_seed(0)
                value = float(metric.compute()[0])
            scores[f"kid/{name}"] = _score(1000 * value, name, len(after), judge)
        return scores


def _score(value: float, name: str, n: int, judge: Judge) -> Score:
    """Erasing should move the erased concept's images and leave the kept ones where they were."""
    return {"value": value, "n": n, "better": "higher" if name == "erase" else "lower", "extractor": judge.extractor}
