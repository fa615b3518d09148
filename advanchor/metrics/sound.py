"""What makes a score a number: enough images before anything is drawn, and finite values after they were looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from advanchor.concept import Prompt
from advanchor.core import BadInput
from advanchor.lazy import torch
from advanchor.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor


def enough(metric: Metric, prompts: Mapping[str, Sequence[Prompt]]) -> None:
    """Can this metric be computed from these prompts' images? Asked before anything is loaded.

    A metric says what it needs by the class variables `fewest`, images of each set, and `fewest_each`, images of each
    concept of a set; one that has neither needs one.

    Args:
        prompts: {"erase": ..., "keep": ...}, as a concept has them.

    Raises:
        BadInput: one of the sets that it looks at has too few, or one concept of it.
    """
    for which in (name for name in metric.sets if name in prompts):
        for fewest, label, n in (
            (getattr(metric, "fewest", 1), "", len(prompts[which])),
            *(
                (getattr(metric, "fewest_each", 1), label, n)
                for label, n in Counter(p.label for p in prompts[which]).items()
            ),
        ):
            if n < fewest:
                raise BadInput(
                    f"metric {metric.name} needs at least {fewest} images of {f'each concept of `{which}`' if label else f'`{which}`'}, and there "
                    f"{'is' if n == 1 else 'are'} {n}{f' of {label}' if label else ''}: raise sample.{which}, or leave the metric out."
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
            f"metric {metric}: {wrong} of {values.numel()} {what} are not finite, so there is no score: look at the pictures, and repair the judge or leave the metric out."
        )
    return values
