"""Distances between the edited and the unedited model's images of the same prompts and seeds: FID, KID, CMMD, precision and recall.

torchmetrics computes FID and KID and has no class for the others; the judge's features go through an identity where it would run Inception.
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

from advanchor.core import Judge, Positive, Rate, Score, Scores, option, share
from advanchor.images import Images


class Ready(nn.Module):
    """Features that are already computed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(before: Tensor, after: Tensor) -> float:
    """The Frechet distance of features (n, d)."""
    metric = FrechetInceptionDistance(feature=Ready(before.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(before, real=True)
    metric.update(after, real=False)
    return float(metric.compute())


def pairs(judge: Judge, images: Mapping[str, Images]) -> dict[str, tuple[Tensor, Tensor]]:
    """{"erase", "keep"}: features (n, d) of the unedited and the edited model's images."""
    return {name: (images[f"{name}@base"].seen("features", judge.features), images[name].seen("features", judge.features)) for name in ("erase", "keep")}


@option("metric")
class Fid:
    """`fid/erase`, `fid/keep` (Heusel et al. 2017, arXiv 1706.08500). With n below the feature dimension the covariance is singular; n is in the score."""

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    fewest: ClassVar = 2
    name: str
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name, (before, after) in pairs(judge, images).items():
            scores[f"fid/{name}"] = _score(fid(before, after), name, len(after), judge)
        return scores


@option("metric")
class Kid:
    """`kid/erase`, `kid/keep`, times 1000 (Binkowski et al. 2018, arXiv 1801.01401): unbiased, so usable at small n.

    Attributes:
        subsets, subset_size: torchmetrics' resampling; a size above n becomes n.
    """

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    fewest: ClassVar = 2
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


@option("metric")
class Cmmd:
    """`cmmd/erase`, `cmmd/keep`: maximum mean discrepancy of CLIP embeddings of length 1 under a Gaussian kernel of width 10, times 1000 (Jayasumana et al. 2024,
    arXiv 2401.09603), by the judge's CLIP model, which the score names.
    """

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    name: str
    sigma: Rate = 10.0
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name in ("erase", "keep"):
            x, y = (images[n].seen("embed", judge.embed).double() for n in (f"{name}@base", name))
            xx, yy, xy = ((-torch.cdist(a, b).square() / (2 * self.sigma**2)).exp().mean() for a, b in ((x, x), (y, y), (x, y)))
            scores[f"cmmd/{name}"] = {**_score(1000 * float(xx + yy - 2 * xy), name, len(y), judge), "extractor": f"open_clip model of judge {judge.name}"}
        return scores


@option("metric")
class PrecisionRecall:
    """`precision/keep`, `recall/keep` and the same for `erase` (Kynkaanniemi et al. 2019, arXiv 1904.06991): the share of the edited model's images inside the manifold of the
    unedited model's, and the other way round; the manifold is the union of balls around the features that reach to the `neighbours`-th nearest other.
    """

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    name: str
    neighbours: Positive = 3
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name, (before, after) in pairs(judge, images).items():
            for kind, (real, other) in {"precision": (before, after), "recall": (after, before)}.items():
                radii = torch.cdist(real.double(), real.double()).sort(1).values[:, min(self.neighbours, len(real) - 1)]
                inside = (torch.cdist(other.double(), real.double()) <= radii).any(1)
                scores[f"{kind}/{name}"] = {**share(inside.tolist(), "lower" if name == "erase" else "higher"), "extractor": judge.extractor}
        return scores


def _score(value: float, name: str, n: int, judge: Judge) -> Score:
    """Erasing should move the erased concept's images and leave the kept ones where they were."""
    return {"value": value, "n": n, "better": "higher" if name == "erase" else "lower", "extractor": judge.extractor}
