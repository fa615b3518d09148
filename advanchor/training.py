"""The loop that fine-tuned methods share: seeded steps, progress, a stop on NaN, checkpoints and resume."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from advanchor.core import BadInput, Concept, Log, Model, Step, Target, fill

CHECKPOINT_SECONDS = 10.0


@dataclass(frozen=True)
class Pool:
    """Images of the concept as latents (n, 4, h, w), each with its sentence, and seeded steps on them."""

    model: Model
    concept: Concept
    latents: Tensor
    templates: tuple[str, ...]
    seed: int

    @classmethod
    def drawn(cls, model: Model, concept: Concept, count: int, seed: int, folder: Path, *, steps: int, guidance: float) -> Pool:
        """Let the frozen model draw `count` images of the concept, templates in turn; kept in `folder` over a kill."""
        file, templates = folder / "pool.safetensors", tuple(concept.templates[i % len(concept.templates)] for i in range(count))
        if not file.exists():
            parts = []
            for i in tqdm(range(0, count, 32), desc="pool", unit="batch", leave=False):
                texts = [fill(t, "", concept.phrase) for t in templates[i : i + 32]]
                # Seeds from a million up: no image of the pool is one that is later measured.
                parts.append(model.latents(texts, [1_000_000 * (seed + 1) + i + j for j in range(len(texts))], steps=steps, guidance=guidance))
            save_file({"latents": torch.cat(parts).cpu()}, file.with_suffix(".part"))
            os.replace(file.with_suffix(".part"), file)
        return cls(model, concept, load_file(file)["latents"].to(model.device), templates, seed)

    def step(self, i: int, stream: int, batch: int) -> Step:
        """Step i of a stream: images in a fresh random order each pass, t uniform on 0..T-1. Depends on (seed, stream, i) alone."""
        n = len(self.latents)
        order = [int(k) for p in sorted({(i * batch + j) // n for j in range(batch)}) for k in torch.randperm(n, generator=self._random(stream, 0, p))]
        first = (i * batch) % n
        chosen = order[first : first + batch]
        g = self._random(stream, 1, i)
        t = torch.randint(self.model.timesteps, (batch,), generator=g).to(self.model.device)
        noise = torch.randn(self.latents[chosen].shape, generator=g).to(self.model.device)
        return Step(self.model, self.concept, self.model.noised(self.latents[chosen], t, noise), t, [self.templates[k] for k in chosen])

    def _random(self, stream: int, use: int, i: int) -> torch.Generator:
        return torch.Generator().manual_seed(((self.seed * 4 + stream) * 2 + use) * 10_000_000 + i)


def descend(
    theta: dict[str, Tensor], loss: Callable[[Step], Tensor], step: Callable[[int, int], Step], target: Target, folder: Path, log: Log,
    *, steps: int, lr: float, zero_grad: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Adam on `theta` (leaves that require a gradient, changed in place) after the anchor's rehearsals; returns the anchor's report.

    `step(i, stream)` makes step i: stream 0 for weight updates, 1 for rehearsals. Called again on the same folder it goes on from
    the last checkpoint, and ends with the bits of an undisturbed run.

    Raises:
        BadInput: the loss is not finite.
    """
    optimiser = torch.optim.Adam(theta.values(), lr)
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
            else:
                if zero_grad:
                    optimiser.zero_grad()
                value = loss(step(i - rehearsals, 0))
                if not math.isfinite(value.item()):
                    raise BadInput(f"the erasing loss is not finite at step {i - rehearsals}: lower method.lr (now {lr:g}).")
                value.backward()
                optimiser.step()
                scalars = {"train/loss": value.item(), **target.scalars()}
            log(i, **scalars)
            lines_out.write(json.dumps(scalars) + "\n")
            lines_out.flush()
            bar.update()
            bar.set_postfix({k.split("/")[-1]: f"{v:.3g}" for k, v in scalars.items() if k.endswith("loss")}, refresh=False)
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS or i == rehearsals + steps - 1:
                saved_at = time.monotonic()
                state = {
                    "theta": {k: v.detach() for k, v in theta.items()}, "gradients": {k: v.grad for k, v in theta.items() if v.grad is not None and not zero_grad},
                    "optimiser": optimiser.state_dict(), "anchor": target.state(), "step": i + 1, "seconds": spent + saved_at - start,
                }  # fmt: skip
                torch.save(state, checkpoint.with_suffix(".part"))
                os.replace(checkpoint.with_suffix(".part"), checkpoint)
    return {**target.report(), "cost/erase_seconds": spent + time.monotonic() - start}
