"""The loop that fine-tuned methods share: seeded steps, progress, a stop on NaN, checkpoints and resume."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from advanchor.core import BadInput, Log, Step, Target
from advanchor.pools import Pool

CHECKPOINT_SECONDS = 10.0


def descend(
    theta: dict[str, Tensor], loss: Callable[[int, Step], Tensor], step: Callable[[int, int], Step], target: Target, folder: Path, log: Log,
    *, steps: int, lr: float, zero_grad: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Adam on `theta` (leaves that require a gradient, changed in place) after the anchor's rehearsals; returns what it cost.

    With no `theta` only the anchor learns: `embed` is called for each step, as closed-form methods need it.

    `step(i, stream)` makes step i: stream 0 for weight updates, 1 for rehearsals; `loss(i, step)` is update i's loss on it. Called again on the same folder it goes on from
    the last checkpoint, and ends with the bits of an undisturbed run.

    Raises:
        BadInput: the loss is not finite.
    """
    optimiser = torch.optim.Adam(theta.values() or [torch.zeros(0)], lr)
    checkpoint, record = folder / "checkpoint.pt", folder / "train.jsonl"
    first, spent = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location="cpu")
        with torch.no_grad():
            for name, tensor in theta.items():
                tensor.copy_(saved["theta"][name])
                if name in saved["gradients"]:  # a running sum is part of the state
                    tensor.grad = saved["gradients"][name].to(tensor.device)
        optimiser.load_state_dict(saved["optimiser"])
        target.load(saved["anchor"])
        first, spent = saved["step"], saved["seconds"]
    lines = record.read_text().splitlines()[:first] if record.exists() else []
    record.write_text("".join(line + "\n" for line in lines))
    for i, line in enumerate(lines):
        log(i, **json.loads(line))
    rehearsals = target.rehearsals(steps)
    start = saved_at = time.monotonic()
    with record.open("a") as lines_out, tqdm(total=rehearsals + steps, initial=first, desc="erase", unit="step", leave=False) as bar:
        for i in range(first, rehearsals + steps):
            if i < rehearsals:
                target.rehearse(step(i, 1))
                scalars = target.scalars()
            elif not theta:
                target.embed(step(i - rehearsals, 0))
                scalars = target.scalars()
            else:
                if zero_grad:
                    optimiser.zero_grad()
                value = loss(i - rehearsals, step(i - rehearsals, 0))
                if not math.isfinite(value.item()):
                    raise BadInput(f"the erasing loss is not finite at step {i - rehearsals}: lower method.lr (now {lr:g}).")
                value.backward()
                optimiser.step()
                scalars = {"train/loss": value.item(), **target.scalars()}
            log(i, **scalars)
            lines_out.write(json.dumps(scalars) + "\n")
            lines_out.flush()
            bar.update()
            bar.set_postfix({k.removesuffix("/loss"): f"{v:.3g}" for k, v in scalars.items() if k.endswith("/loss")}, refresh=False)
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS or i == rehearsals + steps - 1:
                saved_at = time.monotonic()
                state = {
                    "theta": {k: v.detach() for k, v in theta.items()}, "gradients": {k: v.grad for k, v in theta.items() if v.grad is not None and not zero_grad},
                    "optimiser": optimiser.state_dict(), "anchor": target.state(), "step": i + 1, "seconds": spent + saved_at - start,
                }  # fmt: skip
                torch.save(state, checkpoint.with_suffix(".part"))
                os.replace(checkpoint.with_suffix(".part"), checkpoint)
    return {"cost/erase_seconds": spent + time.monotonic() - start}


def settle(target: Target, draw: Callable[[], Pool], folder: Path, log: Log, *, steps: int, batch: int) -> dict[str, float]:
    """Let an anchor that learns learn on its own, for methods that need it finished; resumes like `descend`.

    An anchor without a state has nothing to learn: then nothing is drawn either.
    """
    if not target.state():
        return {}
    pool = draw()
    folder.mkdir(exist_ok=True)
    return descend({}, lambda i, s: s.x, lambda i, stream: pool.step(i, stream, batch), target, folder, log, steps=steps, lr=1.0)
