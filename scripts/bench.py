"""How fast and how lean next to the plain way: each row has both sides from this one run, in turns, and their ratio.

    python scripts/bench.py                       # ten minutes of one quiet core; the table of docs/performance.md
    python scripts/bench.py --only draw --only start

The plain way is written out here: the released loops of AdvAnchor, AC and ESD as bare calls of the network, diffusers'
own pipeline, a second copy of the network to train. Both sides get the same inputs, and what they return is compared
before anything is timed. One thread; of several repeats the fastest.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from full_size import opened

import advanchor
from advanchor.build import build
from advanchor.compose import compose
from advanchor.machine import resident_peak
from advanchor.models import sampling
from advanchor.models.latent_diffusion import LatentDiffusion
from advanchor.prompts import Prompt
from advanchor.training.loop import leaves
from advanchor.training.pools import Pool

UPDATES, RATE = 10, 2e-2  # of the anchor for each batch, as on the emoji model
LEFT = 0.2  # of the concept, where two trainings are compared
BUDGETS = (50, 100, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=sorted(ROWS), help="a row; all unless named")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)  # of memory: its own process
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.side:
        return print(peak_of(args.side))
    print("| what | ours | the plain way | ratio | limit |\n| --- | --- | --- | --- | --- |", flush=True)
    for name in args.only or ROWS:
        for row in ROWS[name](args.repeat):
            print(row, flush=True)


def fastest(*sides: Callable[[], Any], repeat: int) -> list[float]:
    """Seconds of each side, the least of `repeat` turns after one that is not counted."""
    found: list[list[float]] = [[] for _ in sides]
    for turn in range(repeat + 1):
        for side, times in zip(sides, found, strict=True):
            start = time.perf_counter()
            side()
            if turn:
                times.append(time.perf_counter() - start)
    return [min(times) for times in found]


def line(what: str, ours: float, plain: float, limit: str = "", unit: str = "s") -> str:
    digits = 2 if min(ours, plain) >= 0.1 else 4
    return f"| {what} | {ours:.{digits}f} {unit} | {plain:.{digits}f} {unit} | {plain / ours:.2f} | {limit} |"


class Bare:
    """One step of the released loops in bare calls of the network, on what a step of ours looks at."""

    def __init__(self, model: LatentDiffusion, method: Any, anchor: Any, concept: Any, batch: int) -> None:
        self.model, self.method, self.concept = model, method, concept
        z = torch.randn((batch, *model.shape), generator=torch.Generator().manual_seed(0))
        self.pool = Pool(model, concept, z, tuple(concept.templates[:batch]), 0)
        self.anchor, self.batch = anchor, batch
        step = self.step()
        self.x, self.t = step.x, step.t
        self.e_c, self.e_b = (model.encode(step.texts(p)) for p in (concept.phrase, concept.superclass))
        self.spans = [model.span(text, concept.name) for text in step.texts(concept.phrase)]
        self.net, self.student = model.network, None

    def step(self) -> Any:
        return self.pool.step(0, 0, self.batch)

    def new(self) -> Any:
        """An anchor of ours at its start."""
        return self.anchor.start(self.model, self.concept, 0)

    def descend(self) -> torch.Tensor:
        """Ours: the anchor's updates on one batch."""
        target = self.new()
        target.descend(self.step(), UPDATES)
        return target.parameter.detach()

    def released(self) -> torch.Tensor:
        """The released loop: three passes and a backward for every update (op1, loss adv2)."""
        delta = self.new().parameter
        adam = torch.optim.Adam([delta], RATE)
        for _ in range(UPDATES):
            with torch.no_grad():
                e0_c = self.net(self.x, self.t, self.e_c).sample
                e0_b = self.net(self.x, self.t, self.e_b).sample
            e_a = self.e_c.clone()
            for i, span in enumerate(self.spans):
                e_a[i, span] = self.e_c[i, span] + delta
            loss = ((self.net(self.x, self.t, e_a).sample - e0_b) * (e0_c - e0_b)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        return delta.detach()

    def learner(self) -> Callable[[], float]:
        """Ours: a training step of AC towards the superclass; returns the loss."""
        theta = leaves(self.model.weights(self.method.scope))
        adam = torch.optim.Adam(theta.values(), self.method.lr)

        def train() -> float:
            loss = self.method.loss(self.step(), theta, self.e_b)
            adam.zero_grad()
            loss.backward()
            adam.step()
            return loss.item()

        return train

    def copied(self) -> Callable[[], float]:
        """The plain way: a second copy of the network learns, the first one teaches."""
        student = copy.deepcopy(self.net)
        own = [p.requires_grad_() for name, p in student.named_parameters() if ".attn2." in name]
        adam = torch.optim.Adam(own, self.method.lr)

        def train() -> float:
            with torch.no_grad():
                goal, kept = (self.net(self.x, self.t, e).sample for e in (self.e_b, self.e_b))
            loss = F.mse_loss(student(self.x, self.t, self.e_c).sample, goal)
            loss = loss + self.method.preserve * F.mse_loss(student(self.x, self.t, self.e_b).sample, kept)
            adam.zero_grad()
            loss.backward()
            adam.step()
            return loss.item()

        return train


def bare(model: LatentDiffusion, batch: int, *words: str) -> Bare:
    cfg = compose([*words, "anchor=adversarial", f"anchor.lr={RATE}", "anchor.stop=-1e9", "method=ac"])
    return Bare(model, build(cfg.method, "method"), build(cfg.anchor, "anchor"), build(cfg.concept, "concept"), batch)


def emoji() -> LatentDiffusion:
    model: LatentDiffusion = build(compose([]).model, "model").open("cpu")
    return model


def steps(repeat: int) -> list[str]:
    """Steps of an anchor and of a training."""
    rows, model = [], emoji()
    for batch in (8, 1):
        one = bare(model, batch, "concept=emoji/fox")
        torch.testing.assert_close(one.descend(), one.released(), rtol=1e-3, atol=1e-4)
        ours, plain = fastest(one.descend, one.released, repeat=repeat)
        forward, both = fastest(*passes(one), repeat=repeat)
        limit = UPDATES * (2 * forward + both) / (2 * forward + UPDATES * both)
        what = f"{UPDATES} updates of an anchor, batch {batch}, beside the released loop"
        rows.append(line(what, ours, plain, f"{limit:.2f} at equal maths"))
    one = bare(model, 8, "concept=emoji/fox")
    train, copied = one.learner(), one.copied()
    for _ in range(3):
        assert abs(train() - copied()) < 1e-5
    ours, plain = fastest(train, copied, repeat=3 * repeat)
    rows.append(line("training step of AC, batch 8, beside bare calls of the U-Net", ours, plain, "1"))
    return rows


def passes(one: Bare) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A forward pass, and one with its backward to the embedding."""

    def forward() -> None:
        with torch.no_grad():
            one.net(one.x, one.t, one.e_c)

    def both() -> None:
        e = one.e_c.clone().requires_grad_()
        one.net(one.x, one.t, e).sample.mean().backward()

    return forward, both


def draw(repeat: int) -> list[str]:
    """Pictures, beside diffusers' pipeline in one batch and one by one."""
    model = emoji()
    prompts = [
        Prompt(f"{name} in {style} style", s) for name in ("a fox", "a car") for style in STYLES for s in range(4)
    ]
    texts, seeds = [p.text for p in prompts], [p.seed for p in prompts]
    start = sampling.noise(texts, seeds, model.shape) * model.pipe.scheduler.init_noise_sigma
    how: dict[str, Any] = {"num_inference_steps": 20, "guidance_scale": 4.0}

    def ours() -> list[Any]:
        return list(model.draw(prompts, steps=20, guidance=4.0))

    def together() -> list[Any]:
        return list(model.pipe(prompt=texts, latents=start.clone(), **how).images)

    def alone() -> list[Any]:
        each = zip(texts, start, strict=True)
        return [model.pipe(prompt=text, latents=one[None].clone(), **how).images[0] for text, one in each]

    for a, b in zip(ours(), together(), strict=True):
        off = np.abs(np.asarray(a, int) - np.asarray(b, int)).max()
        assert off <= 2, f"pictures differ by {off} grey levels"
    mine, whole, single = fastest(ours, together, alone, repeat=max(1, repeat // 2))
    n = len(prompts)
    said = f"{n} pictures of 20 steps, beside diffusers' pipeline"
    return [line(f"{said}, one batch", mine, whole, "1"), line(f"{said}, one by one", mine, single)]


STYLES = ("noto", "blob", "fluent", "twemoji")


GROUPS = {  # of torch's operations, by a part of their names
    "convolutions": ("conv",),
    "matrix products and attention": ("mm", "attention", "linear"),
    "norms and activations": ("norm", "silu", "gelu", "softmax"),
}


def profile(repeat: int) -> list[str]:
    """Where the time of a training step and of drawing goes: shares of the CPU's time in torch's own operations, and of
    the whole in anything else.
    """
    model = emoji()
    train = bare(model, 8, "concept=emoji/fox").learner()
    prompts = [Prompt("a fox", s) for s in range(8)]
    jobs = {"training step of AC": train, "pictures": lambda: model.draw(prompts, steps=20, guidance=4.0)}
    rows = [
        "",
        f"| where the time goes | {' | '.join([*GROUPS, 'the rest of torch', 'outside it'])} |",
        "|" + " --- |" * 6,
    ]
    for what, job in jobs.items():
        job()
        start = time.perf_counter()
        job()
        whole = time.perf_counter() - start
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            start = time.perf_counter()
            job()
            watched = time.perf_counter() - start
        spent = dict.fromkeys([*GROUPS, "rest"], 0.0)
        for event in seen.key_averages():
            group = next((g for g, parts in GROUPS.items() if any(part in event.key for part in parts)), "rest")
            spent[group] += event.self_cpu_time_total / 1e6
        print(f"{what}: {whole:.2f} s, {watched:.2f} s while watched", file=sys.stderr)
        shares = [*spent.values(), max(0.0, watched - sum(spent.values()))]
        rows.append(f"| {what} | {' | '.join(f'{share / watched:.0%}' for share in shares)} |")
    return rows


def esd(repeat: int) -> list[str]:
    """Seconds until a fifth of the castles is left, with runs that are drawn once and as published: denoised anew for
    every update. Same rate, batch, prompts and seeds.
    """
    with tempfile.TemporaryDirectory() as root:
        (ours, at), (plain, at_plain) = (reached(latents, root) for latents in ("pool", "denoise"))
    what = f"ESD until {LEFT} of castle is found (step {at:.0f}), beside the published loop (step {at_plain:.0f})"
    return [line(what, ours, plain)]


def reached(latents: str, root: str) -> tuple[float, float]:
    """Seconds and steps of the erasing at which the concept is found in LEFT of its pictures, on straight lines."""
    curve = [(0.0, 0.0, 1.0)]
    for budget in BUDGETS:
        words = [f"method.latents={latents}", f"method.steps={budget}", f"longest={BUDGETS[-1]}", f"root={root}"]
        more = ["sample.erase=3", "sample.keep=1", "sample.near=1", "sample.steps=10", "metric=[erasure]", *words]
        result = advanchor.erase("concept=emoji/castle", "method=esd", "anchor=empty", "tracker=none", *more)
        found = result["scores"]["erasure/hit"]["value"]
        curve.append((result["diagnostics"]["cost/seconds"], budget, found))
        print(f"{latents}: {budget} steps, {curve[-1][0]:.1f} s, {found:.3f} found", file=sys.stderr)
        if found <= LEFT:
            (s, n, above), (s2, n2, below) = curve[-2:]
            share = (above - LEFT) / (above - below)
            return s + share * (s2 - s), n + share * (n2 - n)
    sys.exit(f"{latents}: {found:.2f} is left after {budget} steps")


def memory(repeat: int) -> list[str]:
    """The most memory of one update of an anchor and a training step at the size of Stable Diffusion 1.x, 512 px,
    float32, batch 1, each side in a process of its own.
    """
    command = [sys.executable, __file__, "--side"]
    ours, plain = (float(subprocess.check_output([*command, side]).split()[-1]) for side in ("ours", "plain"))
    what = "anchor update and training step of Stable Diffusion 1.x, 512 px, beside a loop with two copies"
    return [line(what, ours, plain, unit="GB")]


def peak_of(side: str) -> float:
    """GB at most of this process, for one side of `memory`."""
    torch.set_num_threads(os.cpu_count() or 1)  # nothing is timed here
    model = opened("Stable Diffusion 1.x", None)
    one = bare(model, 1, "model=sd14", "model.path=bundled", "judge=none", "concept=style/van_gogh")
    if side == "ours":
        target = one.new()
        target.descend(one.step(), 1)
        one.learner()()
    else:
        train = one.copied()  # which a script makes before its loop
        global UPDATES
        UPDATES = 1
        one.released()
        train()
    return resident_peak() / 1024


def start(repeat: int) -> list[str]:
    """CPU seconds of commands, beside importing what a script of the field begins with."""
    scripts = {
        "--help": ["-m", "advanchor.cli", "--help"],
        "a mistake in a setting": ["-m", "advanchor.cli", "method.lr=-1"],
    }
    plain = ["-c", "import torch; from diffusers import StableDiffusionPipeline"]
    rows = []
    for what, words in scripts.items():
        ours, other = (min(cpu(side) for _ in range(repeat)) for side in (words, plain))
        rows.append(line(f"{what}, beside importing torch and a pipeline", ours, other))
    return rows


def cpu(words: list[str]) -> float:
    """CPU seconds of a Python process."""
    before = os.times()
    subprocess.run([sys.executable, *words], capture_output=True, cwd=Path(tempfile.gettempdir()))
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


ROWS = {"steps": steps, "draw": draw, "esd": esd, "memory": memory, "start": start, "profile": profile}


if __name__ == "__main__":
    main()
