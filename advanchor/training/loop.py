"""The loop that fine-tuned methods share: seeded steps, progress, a stop on NaN, checkpoints and resume."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from advanchor.anchors.words import Fixed
from advanchor.concept import Concept
from advanchor.core import BadInput, Log
from advanchor.lazy import torch
from advanchor.protocols import Edit, Step, Target
from advanchor.store import finish, part_of, slug, verified
from advanchor.training.pools import Source

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT_SECONDS = 10.0  # between checkpoints
WRITING = 0.05  # the largest share of the time that goes into them
SEARCH = "search.pt"  # the checkpoint of anchors that learn alone where weights would learn too
REHEARSED = "rehearsed.pt"  # the anchors as they were before the first weight would have moved: `descend` begins there
_alone: ContextVar[bool] = ContextVar("alone", default=False)


class AnchorsFound(Exception):
    """The anchors are as an erasure would leave them, and its weights are not asked for."""


@contextmanager
def anchors_alone() -> Iterator[None]:
    """Inside, a method's `erase` ends as soon as its anchors have learned all that they would, and no weight has."""
    before = _alone.set(True)
    try:
        yield
    except AnchorsFound:
        pass
    finally:
        _alone.reset(before)


class Carried(Protocol):
    """What learns beside the weights and must survive a kill, such as an adversary."""

    def state(self) -> dict[str, Any]: ...
    def load(self, state: Mapping[str, Any]) -> None: ...


def leaves(weights: Edit) -> dict[str, Tensor]:
    """Copies of frozen weights that can be trained."""
    return {name: w.detach().clone().requires_grad_() for name, w in weights.items()}


def anchor_of(targets: Sequence[Target], step: Step) -> Target:
    """The anchor of the concept that a step looks at."""
    return next(target for target in targets if target.concept is step.concept)


def descend(
    theta: dict[str, Tensor],
    loss: Callable[[int, Step], Tensor],
    source: Source,
    targets: Sequence[Target],
    folder: Path,
    log: Log,
    *,
    steps: int,
    lr: float,
    batch: int,
    zero_grad: bool = True,
    clip: float | None = None,
    carried: Mapping[str, Carried] | None = None,
) -> None:
    """Adam on `theta` (leaves that require a gradient, changed in place) after the anchors' rehearsals.

    With no `theta` only the anchors learn: `embed` is called for each step, as closed-form methods need it; so they do
    inside `anchors_alone`, whatever theta is. `steps` and rehearsals are for each concept. `loss(i, step)` is the loss
    of update i on its step: stream 0 of the source; rehearsals are stream 1. Called again on the same folder it goes on
    from the last checkpoint, and ends with the bits of an undisturbed run.

    Args:
        clip: largest norm of the gradient; None is no limit.
        carried: what else learns inside `loss`, by any name.

    Raises:
        BadInput: a loss or the last weights are not finite; the checkpoint is damaged.
        AnchorsFound: inside `anchors_alone`, at the end.
    """
    alone = bool(theta) and _alone.get()
    if alone:  # on the steps on which the weights would have learned
        theta = {}
    learning: dict[str, Carried] = {
        **{f"anchor of {target.concept.name}": target for target in targets},
        **(carried or {}),
    }
    optimiser = torch.optim.Adam(theta.values() or [torch.zeros(0)], lr)
    checkpoint, record = folder / (SEARCH if alone else "checkpoint.pt"), folder / "train.jsonl"
    rehearsed = folder / REHEARSED
    first = 0
    if checkpoint.exists() or rehearsed.exists():
        latest = checkpoint if checkpoint.exists() else rehearsed
        saved = torch.load(io.BytesIO(verified(latest, folder=folder)), weights_only=True, map_location="cpu")
        if latest == checkpoint:
            with torch.no_grad():
                for name, tensor in theta.items():
                    tensor.copy_(saved["theta"][name])
                    if name in saved["gradients"]:  # a running sum is part of the state
                        tensor.grad = saved["gradients"][name].to(tensor.device)
            optimiser.load_state_dict(saved["optimiser"])
        for name, learner in learning.items():
            learner.load(saved["learning"][name])
        first = saved["step"]
    lines = recorded(record)[:first]
    record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for i, line in enumerate(lines):
        log(i, **line)
    rehearsals = len(targets) * targets[0].rehearsals(steps)
    updates = 0 if alone and rehearsals else len(targets) * steps  # an anchor that rehearses learns no more afterwards
    saved_at, writing = time.monotonic(), 0.0
    with (
        record.open("a") as lines_out,
        tqdm(total=rehearsals + updates, initial=first, desc="erase", unit="step", leave=False) as bar,
    ):
        for i in range(first, rehearsals + updates):
            step = source.step(i, 1, batch) if i < rehearsals else source.step(i - rehearsals, 0, batch)
            target = anchor_of(targets, step)
            scalars = {}
            if i < rehearsals:
                target.rehearse(step)
            elif not theta:
                target.embed(step)
            else:
                if zero_grad:
                    optimiser.zero_grad()
                value = loss(i - rehearsals, step)
                if not math.isfinite(value.item()):
                    too = ", or anchor.lr" if target.state() else ""
                    raise BadInput(
                        f"the erasing loss is not finite at step {i - rehearsals}: lower method.lr (now {lr:g}){too}."
                    )
                value.backward()
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(theta.values(), clip)
                optimiser.step()
                scalars["train/loss"] = value.item()
            scalars |= target.scalars()
            log(i, **scalars)
            lines_out.write(json.dumps(scalars) + "\n")
            lines_out.flush()
            bar.update()
            bar.set_postfix(
                {k.removesuffix("/loss"): f"{v:.3g}" for k, v in scalars.items() if k.endswith("/loss")}, refresh=False
            )
            last = i == rehearsals + updates - 1
            if time.monotonic() - saved_at > max(CHECKPOINT_SECONDS, writing / WRITING) or last:
                begun = time.monotonic()
                state = {
                    "theta": {k: v.detach() for k, v in theta.items()},
                    "gradients": {k: v.grad for k, v in theta.items() if v.grad is not None and not zero_grad},
                    "optimiser": optimiser.state_dict(),
                    "learning": {name: learner.state() for name, learner in learning.items()},
                    "step": i + 1,
                }
                for file in (rehearsed, checkpoint) if last and alone and rehearsals else (checkpoint,):
                    torch.save(state, part_of(file))
                    finish(file)
                saved_at = time.monotonic()
                writing = saved_at - begun
    if not all(tensor.isfinite().all() for tensor in theta.values()):  # the last update was followed by no loss
        raise BadInput(f"the weights are not finite after the last update: lower method.lr (now {lr:g}).")
    if alone:
        raise AnchorsFound


def recorded(record: Path) -> list[dict[str, float]]:
    """The scalars of each step that a train.jsonl holds, up to the first line that cannot be read: they are shown, and
    no number is made of them.
    """
    found = []
    for line in record.read_text(errors="replace").splitlines() if record.exists() else ():
        try:
            found.append({str(name): float(value) for name, value in json.loads(line).items()})
        except (ValueError, TypeError, AttributeError):
            break
    return found


def settle(
    targets: Sequence[Target], draw: Callable[[Concept], Source], folder: Path, log: Log, *, steps: int, batch: int
) -> list[Target]:
    """Let anchors that learn learn on their own, for methods that need them finished; resumes like `descend`.

    An anchor without a state has nothing to learn: then nothing is drawn either.

    Raises:
        AnchorsFound: inside `anchors_alone`, at the end.
    """
    for target in targets:
        if target.state():
            part = folder / f"anchor-{slug(target.concept.name)}"
            part.mkdir(exist_ok=True)
            descend(
                {}, lambda i, step: step.x, draw(target.concept), [target], part, log, steps=steps, lr=1.0, batch=batch
            )
    if _alone.get():
        raise AnchorsFound
    return [Fixed(t.concept, t.condition, t.ends, t.subjects) for t in targets]
