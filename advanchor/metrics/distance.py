"""Distances between the edited and the unedited model's images of the same prompts and seeds: FID, KID, CMMD, precision
and recall. `@floor` is the same distance between the unedited model's images and its own of other seeds, same prompts
and same number: what is left where nothing was done, and one set's sampling alone differs.

torchmetrics computes FID; the judge's features go through an identity where it would run Inception. The others are
written out. All in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from advanchor.core import Positive, Rate, Score, Scores, option, share
from advanchor.images import Images
from advanchor.lazy import torch
from advanchor.metrics.sound import finite
from advanchor.protocols import Judge

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1024  # rows of a kernel matrix at a time
COMPARED = ("erase", "keep", "erase@floor", "keep@floor")  # each with the unedited model's images of the same prompts
SETS = (*COMPARED, "erase@base", "keep@base")


def fid(before: Tensor, after: Tensor) -> float:
    """The Frechet distance of features (n, d), at least 0: of the same ones it is 0, where rounding leaves about 1e-3
    on either side.

    Raises:
        BadInput: they are so large that it is not finite.
    """
    import advanchor.torchvision_ops  # noqa: F401, I001  (before torchmetrics)
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Ready(torch.nn.Module):
        """Features that are already computed."""

        num_features = before.shape[1]

        def forward(self, features: Tensor) -> Tensor:
            return features

    if torch.equal(before, after):
        return 0.0
    metric = FrechetInceptionDistance(feature=Ready())
    metric.set_dtype(torch.float64)
    metric.update(before, real=True)
    metric.update(after, real=False)
    return max(0.0, float(finite(metric.compute(), "fid", "distances")))


def kid(before: Tensor, after: Tensor) -> float:
    """Kernel distance of features (n, d), n at least 2, before and after of the same prompt and seed at the same place:
    the mean over all pairs i != j of

        k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j),  k(a, b) = (a b / d + 1)^3.

    This is the U-statistic of Gretton et al. (2012, JMLR 13, eq. 4) with the kernel of Binkowski et al. (2018), over
    all images. torchmetrics averages over random subsets, and its cross term has the pairs i = j as well, which is
    right for independent images. Ours share prompt and noise: k(x_i, y_i) is larger than between images of different
    prompts, and a method that changes nothing would come out far below 0. Here it is exactly 0; unbiased otherwise, so
    it can be negative.
    """
    x, y = before.double(), after.double()
    n = len(x)

    def total(a: Tensor, b: Tensor) -> float:
        sums = []
        for start in range(0, n, BLOCK):
            block = (a[start : start + BLOCK] @ b.T / a.shape[1] + 1) ** 3
            sums.append(float(block.sum() - block.diagonal(start).sum()))
        return math.fsum(sums)

    return (total(x, x) + total(y, y) - 2 * total(x, y)) / (n * (n - 1))


def cmmd(x: Tensor, y: Tensor, sigma: float) -> float:
    """Squared maximum mean discrepancy of embeddings (n, d) and (m, d) under a Gaussian kernel of width `sigma`, at
    least 0.
    """
    x, y = x.double(), y.double()
    xx, yy, xy = ((-torch.cdist(a, b).square() / (2 * sigma**2)).exp().mean() for a, b in ((x, x), (y, y), (x, y)))
    return max(0.0, float(xx + yy - 2 * xy))


def pairs(metric: str, judge: Judge, images: Mapping[str, Images]) -> dict[str, tuple[Tensor, Tensor]]:
    """{"erase", "keep"}: features (n, d) of the unedited and the edited model's images, in the order of the prompts;
    {"erase@floor", "keep@floor"}: of the unedited model's and of its own on other seeds, to which nothing was done.

    Raises:
        BadInput: one of them is not finite.
    """
    seen = {
        name: finite(images[name].seen("features", judge.features), metric, f"features of `{name}`") for name in SETS
    }
    return {name: (seen[f"{name.partition('@')[0]}@base"], seen[name]) for name in COMPARED}


@option("metric")
class Fid:
    """`fid/erase`, `fid/keep`, each also `@floor` (Heusel et al. 2017, arXiv 1706.08500). With n below the feature
    dimension the covariance is singular; n is in the score.
    """

    sets: ClassVar = SETS
    fewest: ClassVar = 2
    name: str
    version: int = 2

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name, (before, after) in pairs(self.name, judge, images).items():
            scores[f"fid/{name}"] = _score(fid(before, after), name, len(after), judge)
        return scores


@option("metric")
class Kid:
    """`kid/erase`, `kid/keep`, each also `@floor`, times 1000 (Binkowski et al. 2018, arXiv 1801.01401), between images
    of the same prompts and seeds: unbiased, so usable at small n.
    """

    sets: ClassVar = SETS
    fewest: ClassVar = 2
    name: str
    version: int = 3

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name, (before, after) in pairs(self.name, judge, images).items():
            scores[f"kid/{name}"] = _score(1000 * kid(before, after), name, len(after), judge)
        return scores


@option("metric")
class Cmmd:
    """`cmmd/erase`, `cmmd/keep`, each also `@floor`: maximum mean discrepancy of the judge's embeddings of length 1
    under a Gaussian kernel of width 10, times 1000 (Jayasumana et al. 2024, arXiv 2401.09603). Theirs are CLIP's, as
    judge=sd's are; the emoji judge's are those of its feature network, which never saw a label. The score names them.
    """

    sets: ClassVar = SETS
    name: str
    sigma: Rate = 10.0
    version: int = 3

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name in COMPARED:
            x, y = (
                finite(images[n].seen("embed", judge.embed), self.name, f"embeddings of `{n}`")
                for n in (f"{name.partition('@')[0]}@base", name)
            )
            scores[f"cmmd/{name}"] = {
                **_score(1000 * cmmd(x, y, self.sigma), name, len(y), judge),
                "extractor": judge.embedder,
            }
        return scores


@option("metric")
class PrecisionRecall:
    """`precision/keep`, `recall/keep` and the same for `erase`, each also `@floor` (Kynkaanniemi et al. 2019, arXiv
    1904.06991): the share of the edited model's images inside the manifold of the unedited model's, and the other way
    round; the manifold is the union of balls around the features that reach to the `neighbours`-th nearest other.
    """

    sets: ClassVar = SETS
    fewest: ClassVar = 2
    name: str
    neighbours: Positive = 3
    version: int = 2

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for name, (before, after) in pairs(self.name, judge, images).items():
            for kind, (real, other) in {"precision": (before, after), "recall": (after, before)}.items():
                radii = torch.cdist(real.double(), real.double()).sort(1).values[:, min(self.neighbours, len(real) - 1)]
                inside = (torch.cdist(other.double(), real.double()) <= radii).any(1)
                scores[f"{kind}/{name}"] = {
                    **share(inside.tolist(), "lower" if name.startswith("erase") else "higher"),
                    "extractor": judge.extractor,
                }
        return scores


def _score(value: float, name: str, n: int, judge: Judge) -> Score:
    """Erasing should move the erased concept's images and leave the kept ones where they were."""
    return {
        "value": value,
        "n": n,
        "better": "higher" if name.startswith("erase") else "lower",
        "extractor": judge.extractor,
    }
