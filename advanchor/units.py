"""What a score is the mean of, what of it is drawn again for an interval, and with that the interval of a run's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from advanchor.core import Score
from advanchor.prompts import Prompt

if TYPE_CHECKING:  # numpy takes a while to import, and what reads no finished run needs none
    from advanchor.intervals import Table

FEWEST = 5  # prompts; fewer of them say too little about others, and single images stand for them
SPREAD = (
    f"[low, high] is 95 % over the prompts of one training (over its images where there are fewer than {FEWEST} "
    "prompts); how far other seeds' trainings differ is unknown."
)
INSIDE = ("values", "share", "texts", "code", "low", "high")  # what a result does not take from a metric's file


def prompts_of(prompts: Mapping[str, Sequence[Prompt]], name: str) -> list[Prompt]:
    """The prompts whose images a score is the mean of, in order; none for what is no such mean, or has its `texts`."""
    family, _, rest = name.partition("@")[0].partition("/")
    which, _, label = rest.partition(":")
    kept = re.fullmatch(r"hit2?_(in|cross|near)", which)
    side = {"erasure": "erase", "keep": "near" if kept and kept[1] == "near" else "keep"}.get(family, which.rstrip("2"))
    return [p for p in prompts.get(side, []) if label in ("", p.label) and (not kept or p.kept == kept[1])]


def table(values: Sequence[Sequence[float]], texts: Sequence[str]) -> Table:
    """Single images' values of each seed (S x n) and their prompts (n) -> one concept's table, by prompts, or by images
    where there are fewer than FEWEST prompts.
    """
    import numpy as np

    from advanchor.intervals import Table

    images, names = np.asarray(values, np.float64), {text: i for i, text in enumerate(dict.fromkeys(texts))}
    if len(names) < FEWEST:
        return Table(images, np.ones(len(texts)))
    place = np.array([names[text] for text in texts])
    counts = np.bincount(place).astype(np.float64)
    return Table(np.stack([np.bincount(place, one) for one in images]) / counts, counts)


def with_interval(prompts: Mapping[str, Sequence[Prompt]], name: str, score: Score) -> Score:
    """The score as a result has it: without what is behind it, with its 95 % interval if it is a mean of images."""
    from advanchor.intervals import bounds, spread

    told = cast(Score, {key: value for key, value in score.items() if key not in INSIDE})
    values, texts = score.get("values", []), score.get("texts", [p.text for p in prompts_of(prompts, name)])
    if not values or len(values) != len(texts):
        return told
    if reach := bounds(spread([table([values], texts)]), score.get("share", False)):
        told["low"], told["high"] = map(float, reach)
    return told
