"""What passes between the parts of a run, and what each kind of them must do.

A concept, a prompt and a sample are in concept.py, a set of images is in images.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from advanchor.concept import Concept
from advanchor.core import Head, Log, Scores
from advanchor.images import Images
from advanchor.naming import fill
from advanchor.prompts import Prompt

if TYPE_CHECKING:  # torch takes seconds to import; what only reads configs does not need it
    import torch
    from PIL.Image import Image
    from torch import Tensor

Edit = Mapping[str, "Tensor"]  # what was done to a model, as small as it is: edits.py says what a name means


class Model(Protocol):
    """A text-to-image latent diffusion model as erasing needs it. b: batch, L: rows of a condition, d: width."""

    name: str

    def encode(
        self,
        texts: Sequence[str],
        delta: Tensor | None = None,
        spans: Sequence[Sequence[int]] = (),
        weights: Edit | None = None,
    ) -> Tensor: ...
    def span(self, text: str, words: str, at: int = 0, stream: int = 0) -> list[int]: ...
    def end(self, text: str, stream: int = 0) -> int: ...
    def last(self, text: str, stream: int = 0) -> int: ...
    def ids(self, text: str) -> list[int]: ...
    def spoken(self) -> list[int]: ...
    def words(self, ids: Sequence[int]) -> str: ...
    def vocabulary(self, weights: Edit | None = None) -> Tensor: ...
    def predict(
        self, x: Tensor, t: Tensor, cond: Tensor, weights: Edit | None = None, seen: list[Tensor] | None = None
    ) -> Tensor: ...
    def attention(self, x: Tensor, t: Tensor, cond: Tensor, weights: Edit | None = None) -> list[Tensor]: ...
    def weights(self, scope: str) -> dict[str, Tensor]: ...
    def maps(self, of: str) -> dict[str, Tensor]: ...
    def edited(self, edit: Edit) -> AbstractContextManager[None]: ...
    def noised(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor: ...
    def target(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor: ...
    def as_noise(self, predicted: Tensor, x: Tensor, t: Tensor) -> Tensor: ...
    def latents(
        self, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, cond: Tensor | None = None
    ) -> Tensor: ...
    def trajectory(
        self, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, until: int | None = None
    ) -> tuple[Tensor, Tensor]: ...
    def draw(
        self,
        prompts: Sequence[Prompt],
        *,
        steps: int,
        guidance: float,
        scheduler: str = "own",
        cond: Tensor | None = None,
        start: Tensor | None = None,
        at: int = 0,
        noisy: tuple[float, float] | None = None,
        around: Tensor | None = None,
    ) -> list[Image]: ...

    def cut(self, texts: Sequence[str]) -> list[str]: ...

    timesteps: int
    length: int  # of a condition's rows those that are tokens; what follows is of the whole sentence
    streams: tuple[str, ...]  # whose tokens those are, one encoder's after the other's: clip, t5
    pooled: int  # numbers of the last row that are the whole sentence's; 0 if there is no such row
    predicts: str  # epsilon, v_prediction or velocity: the space that `predict` and `target` are in
    pixels: int
    made_by: str  # the module that put it together: its sources and what they import can change what it draws
    batch: int  # images that it draws at once for erasing
    shelf: Path | None  # where what it draws for erasing is kept for other runs
    device: torch.device


class Step:
    """Noised latents of the concept and the sentences they were drawn for.

    x: (b, c, h, w); t: (b,) in 0..T; templates: b sentences with `{}`; truth: what should be predicted, if x was
    noised. The frozen model's predictions are computed once per step, however many anchor updates look at them.
    """

    def __init__(
        self,
        model: Model,
        concept: Concept,
        x: Tensor,
        t: Tensor,
        templates: Sequence[str],
        truth: Tensor | None = None,
    ) -> None:
        self.model, self.concept, self.templates = model, concept, tuple(templates)
        self.x, self.t, self.truth = x, t, truth
        self._frozen: dict[str, Tensor] = {}

    def texts(self, phrase: str) -> list[str]:
        return [fill(template, "", phrase) for template in self.templates]

    def frozen(self, phrase: str) -> Tensor:
        """e0 at this step's x and t under its sentences filled with `phrase`: (b, c, h, w), no gradient."""
        import torch

        if phrase not in self._frozen:
            with torch.no_grad():
                self._frozen[phrase] = self.model.predict(self.x, self.t, self.model.encode(self.texts(phrase)))
        return self._frozen[phrase]


class Target(Protocol):
    """An anchor at work on one model and one concept: it hands out embeddings, and may learn on the way.

    `rehearse` is called `rehearsals(steps)` times before the first weight update, `embed` once for each update.
    `condition` is the anchor as it stands, in any sentences with a slot: (b, L, d) without a gradient; `ends` are the
    rows of their end tokens, `subjects` those of the last token of what stands in the slot, one for each of the model's
    streams. `state` and `load` carry it over a kill; `scalars` describes the latest step, `report` the finished anchor.
    """

    concept: Concept

    def rehearsals(self, steps: int) -> int: ...
    def rehearse(self, step: Step) -> None: ...
    def embed(self, step: Step) -> Tensor: ...
    def condition(self, templates: Sequence[str]) -> Tensor: ...
    def ends(self, templates: Sequence[str]) -> list[int]: ...
    def subjects(self, templates: Sequence[str]) -> list[list[int]]: ...
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

    `targets` are the concepts to erase, at least one, each with its anchor. `folder` is the method's to leave
    checkpoints in; a second call resumes from them. A class with `open_ended = True` promises that this holds also for
    checkpoints of an erasure with fewer `steps`: no rate, weight or draw of its depends on how many steps there will
    be. Then an edit of more steps goes on from one of fewer (trails.py).
    """

    name: str

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit: ...


class Judge(Protocol):
    """What measures a model's images. Lists of PIL images in, CPU tensors or labels out. `extractor` names its
    features, `perceptual` its distance, `embedder` what `embed` looks through, `judges` its detectors, the main one
    first; `find` asks one of them, the first if `by` is empty. With `rejects` each of them answers NOTHING (core.py)
    for an image that shows nothing it knows. `labels` of a head that it does not have are none.
    """

    name: str
    extractor: str
    perceptual: ClassVar[str]
    embedder: ClassVar[str]
    judges: ClassVar[tuple[str, ...]]
    rejects: ClassVar[bool]

    def to(self, device: str) -> Judge: ...
    def files(self) -> list[Path]: ...
    def check(self, prompts: Sequence[Prompt], pixels: int) -> None: ...
    def labels(self, head: Head) -> Sequence[str]: ...
    def find(self, images: Sequence[Image], heads: Sequence[Head], by: str = "") -> dict[Head, list[str]]: ...
    def features(self, images: Sequence[Image]) -> Tensor: ...
    def distance(self, before: Sequence[Image], after: Sequence[Image]) -> Tensor: ...
    def embed(self, images: Sequence[Image]) -> Tensor: ...
    def similarity(self, images: Sequence[Image], texts: Sequence[str]) -> Tensor: ...


class Metric(Protocol):
    """Sets of images in, named scores out.

    There are "erase", "keep", the unedited model's "erase@base" and "keep@base", and "anchor": what the unedited model
    draws under the anchor, for the concept's own sentences. `sets` names those that the metric looks at; no other is
    drawn for it. One that cannot be computed from a single image has `fewest`.
    """

    sets: ClassVar[tuple[str, ...]]
    name: str

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores: ...


class Tracker(Protocol):
    """Where progress is shown; result.json is the record."""

    def start(self, run: str, config: dict[str, Any], out: Path) -> None: ...
    def log(self, step: int, **scalars: float) -> None: ...
    def finish(self, scores: Scores, grid: Path | None, failed: bool) -> str: ...
