"""The nouns of the project: what a concept, a prompt, a step and a score are, and what each kind of component must do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as _dataclass
from typing_extensions import TypedDict, dataclass_transform

if TYPE_CHECKING:  # torch takes seconds to import; --help and --cfg job do not need it
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from advanchor.concept import Concept, Prompt
    from advanchor.images import Images
    from advanchor.step import Step

C = TypeVar("C", bound=type)


class BadInput(Exception):
    """Something the user can mend. The message is one sentence that says how; it is shown without a traceback."""


Kind = Literal["model", "judge", "concept", "sample", "anchor", "method", "metric", "tracker"]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def option(kind: Kind) -> Callable[[C], C]:
    """A frozen dataclass whose signature is the schema of a yaml file of its kind: unknown keys, wrong types and numbers that are not finite are refused.

    Only classes that bear this mark are built from a config (run.build), each in the place of its kind.
    """

    def mark(cls: C) -> C:
        made = _dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=False, allow_inf_nan=False))(cls)
        made.__option__ = kind  # type: ignore[attr-defined]
        return made  # type: ignore[return-value]

    return mark


Positive = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=1, le=999)]  # of a sampling run; 1000 would leave Stable Diffusion's schedule by one
Rate = Annotated[float, Field(gt=0, le=1e30)]  # Adam must find it in float32
Texts = Annotated[tuple[str, ...], Field(min_length=1)]
UNetScope = Literal["attn2", "attn2.kv", "noxattn", "full", "transformers"]  # latent_diffusion.py says which weights
Scope = Literal["attn2", "attn2.kv", "noxattn", "full", "transformers", "text_encoder"]
Head = Literal["object", "style", "nudity"]


class Score(TypedDict, total=False):
    """A number that can stand alone: value, count, direction, and a 95 % interval where one makes sense.

    `values` are those of the single images, in the order of their prompts, where the score is their mean; `texts` are
    their prompts' where they are not those of a whole set; `code` is what measured it (machine.py). All three stay in
    the run's metrics folder.
    """

    value: float
    n: int
    low: float
    high: float
    better: Literal["higher", "lower"]
    extractor: str
    values: list[float]
    texts: list[str]
    code: str


Scores = dict[str, Score]
Log = Callable[..., None]  # log(step, loss=..., anchor_loss=...)


Edit = Mapping[str, "Tensor"]  # what was done to a model, as small as it is: edits.py says what a name means


class Model(Protocol):
    """A text-to-image latent diffusion model, seen through what erasing needs. b: batch, L: tokens, d: width."""

    name: str

    def encode(self, texts: Sequence[str], delta: Tensor | None = None, spans: Sequence[Sequence[int]] = (), weights: Edit | None = None) -> Tensor: ...
    def span(self, text: str, words: str) -> list[int]: ...
    def end(self, text: str) -> int: ...
    def eps(self, x: Tensor, t: Tensor, cond: Tensor, weights: Edit | None = None, seen: list[Tensor] | None = None) -> Tensor: ...
    def attention(self, x: Tensor, t: Tensor, cond: Tensor, weights: Edit | None = None) -> list[Tensor]: ...
    def weights(self, scope: str) -> dict[str, Tensor]: ...
    def edited(self, edit: Edit) -> AbstractContextManager[None]: ...
    def noised(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor: ...
    def latents(self, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, cond: Tensor | None = None) -> Tensor: ...
    def trajectory(self, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, until: int | None = None) -> tuple[Tensor, Tensor]: ...
    def draw(self, prompts: Sequence[Prompt], *, steps: int, guidance: float, scheduler: str = "own", cond: Tensor | None = None) -> list[Image]: ...

    def cut(self, texts: Sequence[str]) -> list[str]: ...

    timesteps: int
    pixels: int
    batch: int  # images that it draws at once for erasing
    shelf: Path | None  # where what it draws for erasing is kept for other runs
    device: torch.device


class Target(Protocol):
    """An anchor at work on one model and one concept: it hands out embeddings, and may learn on the way.

    `rehearse` is called `rehearsals(steps)` times before the first weight update, `embed` once for each update. `condition` is the anchor as it
    stands, in any sentences with a slot: (b, L, d) without a gradient; `ends` are the positions of their end tokens, `subjects` those of the last
    token of what stands in the slot. `state` and `load` carry it over a kill; `scalars` describes the latest step, `report` the finished anchor.
    """

    concept: Concept

    def rehearsals(self, steps: int) -> int: ...
    def rehearse(self, step: Step) -> None: ...
    def embed(self, step: Step) -> Tensor: ...
    def condition(self, templates: Sequence[str]) -> Tensor: ...
    def ends(self, templates: Sequence[str]) -> list[int]: ...
    def subjects(self, templates: Sequence[str]) -> list[int]: ...
    def state(self) -> dict[str, Any]: ...
    def load(self, state: Mapping[str, Any]) -> None: ...
    def scalars(self) -> dict[str, float]: ...
    def report(self) -> dict[str, float]: ...


class Anchor(Protocol):
    """What the concept should become."""

    name: str

    def start(self, model: Model, concept: Concept, seed: int) -> Target: ...


class Method(Protocol):
    """How the weights get there.

    `targets` are the concepts to erase, at least one, each with its anchor. `folder` is the method's to leave checkpoints in; a second call resumes from them.
    """

    name: str

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit: ...


class Judge(Protocol):
    """What measures a model's images. Lists of PIL images in, CPU tensors or labels out. `extractor` names its features, `perceptual` its distance."""

    name: str
    extractor: str
    perceptual: ClassVar[str]

    def to(self, device: str) -> Judge: ...
    def files(self) -> list[Path]: ...
    def check(self, prompts: Sequence[Prompt], pixels: int) -> None: ...
    def labels(self, head: Head) -> Sequence[str]: ...
    def find(self, images: Sequence[Image], heads: Sequence[Head]) -> dict[Head, list[str]]: ...
    def features(self, images: Sequence[Image]) -> Tensor: ...
    def distance(self, before: Sequence[Image], after: Sequence[Image]) -> Tensor: ...
    def embed(self, images: Sequence[Image]) -> Tensor: ...
    def similarity(self, images: Sequence[Image], texts: Sequence[str]) -> Tensor: ...


class Metric(Protocol):
    """Sets of images in, named scores out.

    There are "erase", "keep", the unedited model's "erase@base" and "keep@base", and "anchor": what the unedited model draws under the anchor, for the concept's
    own sentences. `sets` names those that the metric looks at; no other is drawn for it. One that cannot be computed from a single image has `fewest`.
    """

    sets: ClassVar[tuple[str, ...]]
    name: str

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores: ...


class Tracker(Protocol):
    """Where progress is shown; result.json is the record."""

    def start(self, run: str, config: dict[str, Any], out: Path) -> None: ...
    def log(self, step: int, **scalars: float) -> None: ...
    def finish(self, scores: Scores, grid: Path | None, failed: bool) -> str: ...


def share(found: Sequence[bool], better: Literal["higher", "lower"]) -> Score:
    """A proportion with its 95 % Wilson interval (Wilson 1927), which stays inside [0, 1] at 0 and n."""
    n = len(found)
    z, p = 1.959964, sum(found) / n
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return {"value": p, "n": n, "low": max(0.0, middle - half), "high": min(1.0, middle + half), "better": better, "values": [float(f) for f in found]}


def mean(values: Sequence[float], better: Literal["higher", "lower"]) -> Score:
    """A mean with its normal 95 % interval."""
    n = len(values)
    m = math.fsum(values) / n
    half = 1.959964 * math.sqrt(math.fsum((v - m) ** 2 for v in values) / max(1, n - 1) / n)
    return {"value": m, "n": n, "low": m - half, "high": m + half, "better": better, "values": list(values)}
