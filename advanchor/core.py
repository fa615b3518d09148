"""What everything else stands on: an option of a config, a score, and a mistake that the user can mend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as _dataclass
from typing_extensions import TypedDict, dataclass_transform

C = TypeVar("C", bound=type)


class BadInput(Exception):
    """Something the user can mend. The message is one sentence that says how; it is shown without a traceback."""


def show(value: Any) -> str:
    """A value as it is written in a config."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


Kind = Literal["model", "judge", "concept", "sample", "lean", "anchor", "method", "metric", "attack", "tracker"]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def option(kind: Kind) -> Callable[[C], C]:
    """A frozen dataclass whose signature is the schema of a yaml file of its kind.

    Unknown keys, wrong types and numbers that are not finite are refused. Only classes that bear this mark are built
    from a config (build.py), each in the place of its kind.
    """

    def mark(cls: C) -> C:
        made = _dataclass(
            frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)
        )(cls)
        made.__option__ = kind  # type: ignore[attr-defined]
        return made  # type: ignore[return-value]

    return mark


Positive = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=1, le=999)]  # of a sampling run; 1000 would leave Stable Diffusion's schedule by one
Rate = Annotated[float, Field(gt=0, le=1e30)]  # Adam must find it in float32
Texts = Annotated[tuple[str, ...], Field(min_length=1)]
UNetScope = Literal["attn2", "attn2.kv", "noxattn", "full", "transformers"]  # edits.py says which weights
Scope = Literal["attn2", "attn2.kv", "noxattn", "full", "transformers", "text_encoder"]
Head = Literal["object", "style", "nudity"]
# What a part can need of a model beside the interface (its `needs`), and what a model says of itself (`offers`).
Need = Literal[
    "a single text encoder",
    "a prediction of noise",
    "cross-attention layers",
    "a diffusion's noise schedule",
    "an embedding of the whole sentence",
    "CLIP's tokens",
    "T5's tokens",
]
NOTHING = "nothing"  # what a detector with a reject class answers for a smear, noise or a blend


class Score(TypedDict, total=False):
    """A number that can stand alone: value, count, direction, and a 95 % interval where one makes sense.

    `values` are those of the single images, in the order of their prompts, where the score is their mean, and `share`
    says that each is 0 or 1; `texts` are their prompts' where they are not those of a whole set; `code` is what
    measured it (machine.py). All four stay in the run's metrics folder. A metric sets no interval: units.py
    does, from `values`.
    """

    value: float
    n: int
    low: float
    high: float
    better: Literal["higher", "lower"]
    extractor: str
    values: list[float]
    share: bool
    texts: list[str]
    code: str


Scores = dict[str, Score]
Log = Callable[..., None]  # log(step, loss=..., anchor_loss=...)


def share(found: Sequence[bool], better: Literal["higher", "lower"]) -> Score:
    """A proportion of images."""
    return {**mean([float(f) for f in found], better), "share": True}


def mean(values: Sequence[float], better: Literal["higher", "lower"]) -> Score:
    """A mean over images."""
    return {"value": math.fsum(values) / len(values), "n": len(values), "better": better, "values": list(values)}
