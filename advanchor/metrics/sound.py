"""What makes a score a number: enough images before anything is drawn, and finite values after they were looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from advanchor.core import BadInput
from advanchor.lazy import torch
from advanchor.prompts import Prompt
from advanchor.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from advanchor.metrics.attacked import Attacked


def enough(metric: Metric | Attacked, prompts: Mapping[str, Sequence[Prompt]]) -> None:
    """Can this metric be computed from these prompts' images? Asked before anything is loaded.

    A metric says what it needs by the class variables `fewest`, images of each set, and `fewest_each`, images of each
    concept of a set; one that has neither needs one. One that looks at a part of the prompts alone says at which by
    its method `fair`.

    Args:
        prompts: {"erase": ..., "keep": ..., "near": ...}, as a concept has them; a concept need have no neighbours.

    Raises:
        BadInput: one of the sets that it looks at has too few, or one concept of it.
    """
    if hasattr(metric, "fair"):
        prompts = metric.fair(prompts)
    for which in (name for name in metric.sets if prompts.get(name)):
        counts = [("", len(prompts[which])), *Counter(p.label for p in prompts[which]).items()]
        for label, n in counts:
            fewest = getattr(metric, "fewest_each" if label else "fewest", 1)
            if n < fewest:
                each, of = ("each concept of ", f" of {label}") if label else ("", "")
                raise BadInput(
                    f"metric {metric.name} needs at least {fewest} images of {each}`{which}`, and there "
                    f"{'is' if n == 1 else 'are'} {n}{of}: raise sample.{which}, or leave the metric out."
                )


def finite(values: Tensor, metric: str, what: str) -> Tensor:
    """The values of any shape, float, if every one of them is a finite number.

    Args:
        metric, what: what they are for and what they are, in the sentence.

    Raises:
        BadInput: they are not.
    """
    if wrong := int((~torch.isfinite(values)).sum()):
        raise BadInput(
            f"metric {metric}: {wrong} of {values.numel()} {what} are not finite, so there is no score: "
            "look at the pictures, and repair the judge or leave the metric out."
        )
    return values
