"""How often the intervals of tables cover the truth, and how often a mark is false: experiments whose truth is known.

    python scripts/coverage.py                       # about 9 minutes on one core
    python scripts/coverage.py --experiments 200

Drawn are trainings (seeds), prompts, the way in which a training meets a prompt, and images that show the concept or do
not; all seeds meet the same prompts. 20 images of each prompt, one where there are 200. A share's deviation between
trainings is at most the share itself and what is left to 1. Prompts are alike (most within 0.2 of a share of 0.5), or
skewed: most are always found or never. Coverage with one seed is of that training's own share. Rows of which none is
better share 0.7 of the prompts' variance. With more than two of them all are alike, or all but two are far behind: the
higher rate counts.
"""

import argparse
from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from tqdm import tqdm

from advanchor.intervals import Array, Table, ahead, bounds, spread

SEEDS, PROMPTS, DEVIATIONS, SHARES = (
    (1, 2, 3, 5, 10),
    (5, 8, 10, 20, 200),
    (0, 0.03, 0.07, 0.13),
    (0.02, 0.05, 0.5, 0.97),
)
SKEWS, MEETING = {"alike": 0.3, "skewed": 3.0}, 0.1  # variances, where a normal distribution's quantiles are shares
CONCEPTS, ROWS = (1, 3, 8), (2, 4, 8)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(61)


def trainings(share: float, deviation: float, rest: float) -> tuple[float, float]:
    """The variance between trainings, and the middle, that give shares of this mean and deviation; `rest` is the
    variance within a training.
    """

    def middle(variance: float) -> float:
        return float(ndtri(share) * np.sqrt(1 + variance + rest))

    def off(variance: float) -> float:
        shares = ndtr((middle(variance) + np.sqrt(variance) * NODES) / np.sqrt(1 + rest))
        return float(np.sqrt((WEIGHTS * (shares - share) ** 2).sum() / WEIGHTS.sum())) - wanted

    wanted = min(deviation, share, 1 - share)
    variance = float(brentq(off, 1e-9, 200)) if wanted else 0.0
    return variance, middle(variance)


def found(
    rng: np.random.Generator,
    *,
    experiments: int,
    rows: int,
    concepts: int,
    seeds: int,
    prompts: int,
    deviation: float,
    share: float,
    skew: str,
) -> tuple[list[list[Table]], Array]:
    """A table for each row and concept with an axis for the experiments in front, and the share that one of several
    seeds would have in the long run, or that the one training has, of each experiment and row (experiments, rows).
    """
    variance, middle = trainings(share, deviation, SKEWS[skew] + MEETING)
    each, images = (experiments, rows, concepts), 1 if prompts == 200 else 20
    training = middle + np.sqrt(variance) * rng.normal(size=(*each, seeds, 1))
    same = np.sqrt(0.7 * SKEWS[skew]) * rng.normal(size=(experiments, 1, concepts, 1, prompts))
    own = np.sqrt(0.3 * SKEWS[skew]) * rng.normal(size=(*each, 1, prompts))
    right = ndtr(training + same + own + np.sqrt(MEETING) * rng.normal(size=(*each, seeds, prompts)))
    means, counts = rng.binomial(images, right) / images, np.full(prompts, float(images))
    truth = np.full((experiments, rows), share)
    if seeds == 1:
        truth = ndtr(training / np.sqrt(1 + SKEWS[skew] + MEETING)).mean((2, 3, 4))
    return [[Table(means[:, row, k], counts) for k in range(concepts)] for row in range(rows)], truth


def coverage(rng: np.random.Generator, **world: float | str) -> float:
    """The share of experiments whose interval covers the truth."""
    (tables,), truth = found(rng, rows=1, **world)  # type: ignore[arg-type]
    low, high = bounds(spread(tables), share=True)  # type: ignore[misc]
    return float(((low <= truth[:, 0] + 1e-9) & (truth[:, 0] <= high + 1e-9)).mean())


def false_marks(rng: np.random.Generator, behind: int = 0, **world: float | str) -> float:
    """The share of experiments in which one of several rows is marked best, though none is better than the next; so
    many rows are far behind the others.
    """
    rows, _ = found(rng, **world)  # type: ignore[arg-type]
    means = np.stack([[one.means for one in row] for row in rows], 1)  # (concepts, rows, experiments, seeds, prompts)
    means[:, len(rows) - behind :] -= 1
    order = np.argsort(-means.mean((0, 3, 4)), 0)
    ranked = np.take_along_axis(means, order[None, :, :, None, None], 1)
    images = rows[0][0].images
    first, *others = ([Table(one, images) for one in ranked[:, row]] for row in range(len(rows)))
    return float(ahead(first, others).mean())


def table(experiments: int) -> str:
    """Markdown: coverage (mean, lowest) by prompts, and the highest rate of false marks by rows, over all shares, skews
    and numbers of concepts.
    """
    rng = np.random.default_rng(0)
    heads = ["seeds", "deviation", *(f"{p} prompts" for p in PROMPTS), *(f"marks, {r} rows" for r in ROWS)]
    lines = [heads, ["---"] * len(heads)]
    for seeds, deviation in tqdm(list(product(SEEDS, DEVIATIONS)), leave=False):
        if seeds == 1 and deviation:
            continue  # one training is one, however far others are
        line = [str(seeds), str(deviation) if seeds > 1 else "—"]
        given = {"seeds": seeds, "deviation": deviation, "experiments": experiments}
        worlds = [dict(zip(("share", "skew"), one, strict=True)) for one in product(SHARES, SKEWS)]
        for prompts in PROMPTS:
            many = CONCEPTS if prompts < 200 else CONCEPTS[:2]
            got = [coverage(rng, prompts=prompts, concepts=k, **given, **world) for k, world in product(many, worlds)]
            line.append(f"{np.mean(got):.3f} / {min(got):.3f}")
        for rows in ROWS:
            rates = [
                false_marks(rng, behind, rows=rows, prompts=prompts, concepts=k, **given, **world)
                for behind in {0, rows - 2}
                for prompts, k, world in product((5, 10, 200), CONCEPTS[:2], worlds)
                if seeds > 1 and rows * seeds * prompts * k <= 6000
            ]
            line.append(f"{np.mean(rates):.3f} / {max(rates):.3f}" if rates else "none")
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=1000)
    print(table(parser.parse_args(args).experiments))


if __name__ == "__main__":
    main()
