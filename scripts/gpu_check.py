"""Does everything run on this machine's GPU, does it agree with the CPU, and what does it take at real size? One
command of a few minutes.

    python scripts/gpu_check.py              # without a GPU its CPU half: tiny models, one device
    python scripts/gpu_check.py --device cuda:1 --only "Stable Diffusion 1.x"

Prints a line for each check, PASS, FAIL or SKIP, then a table; the exit code is 1 if a check failed. Weights are
random: it says what runs and what it takes, and nothing about erasing.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any, get_args

import torch
import torch.nn.functional as F
from full_size import opened

import advanchor
from advanchor.build import build
from advanchor.compose import compose
from advanchor.machine import NOTHING_SPARED, Lean, resident_peak
from advanchor.models.latent_diffusion import LatentDiffusion
from advanchor.models.tiny import Kind, Random
from advanchor.prompts import Prompt
from advanchor.training.loop import leaves
from advanchor.training.pools import Pool

FAMILIES = get_args(Kind)
SMALL = (
    "experiment=smoke",
    "tracker=none",
    "method.steps=2",
    "anchor=superclass",
    "metric=[erasure]",
    "sample.steps=2",
)
SPARING = Lean(checkpointing=True, offload=True)
CLOSE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}  # on two devices, relative to the largest number
GREY = 1.0  # levels by which drawn images may differ in the mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", action="append", help="a published architecture; both unless named")
    args = parser.parse_args()
    gpu = args.device != "cpu"
    failed = []

    def check(name: str, does: Callable[[], str]) -> None:
        try:
            print(f"PASS {name}: {does()}", flush=True)
        except Exception as error:
            traceback.print_exc()
            print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
            failed.append(name)

    for family in FAMILIES:
        for dtype, lean in (("float32", NOTHING_SPARED), ("bfloat16", SPARING), ("float16", SPARING)):
            named = f"{family}, {dtype}"
            check(f"erase, draw, judge: {named}", lambda f=family, d=dtype, k=lean: runs(f, d, k, args.device))
        for dtype, close in CLOSE.items():
            named = f"CPU and GPU agree: {family}, {dtype}"
            if gpu:
                check(named, lambda f=family, d=dtype, c=close: agrees(f, d, c, args.device))
            else:
                print(f"SKIP {named}: no GPU")
    rows = [HEAD]

    def measured(name: str, does: Callable[[], str]) -> None:
        check(name, lambda: rows.append(does()) or rows[-1])

    sizes = (args.only or ["Stable Diffusion 1.x", "Stable Diffusion XL"]) if gpu else ["tiny"]
    for what in sizes:
        for how, lean in (("plain", NOTHING_SPARED), ("checkpointing", Lean(checkpointing=True))):
            measured(f"real size: {what}, {how}", lambda w=what, h=how, k=lean: row(w, h, k, args.device))
        measured(f"two copies: {what}", lambda w=what: two_copies(w, args.device))
    for what in sizes if gpu else ():  # last, for it takes minutes, and on a CPU a compiler
        measured(f"real size: {what}, compile", lambda w=what: row(w, "compile", Lean(compile=True), args.device))
    print("\n".join(["", *rows, ""]))
    print(
        f"{torch.cuda.get_device_name(args.device) if gpu else 'CPU'}, torch {torch.__version__}; {len(failed)} failed"
    )
    sys.exit(bool(failed))


HEAD = (
    "| model, bfloat16, batch 1 | anchor step | training step | image, 20 steps | peak memory |\n"
    "| --- | --- | --- | --- | --- |"
)


def runs(family: str, dtype: str, lean: Lean, device: str) -> str:
    """A whole run of a tiny model."""
    sparing = [f"lean.{name}={str(value).lower()}" for name, value in dataclasses.asdict(lean).items()]
    with tempfile.TemporaryDirectory() as root:
        words = (*SMALL, f"model.family={family}", f"model.dtype={dtype}", f"device={device}", f"root={root}", *sparing)
        result = advanchor.erase(*words)
    assert result["environment"]["device"] == torch.device(device).type, result["environment"]["device"]
    assert all(math.isfinite(s["value"]) for s in result["scores"].values())
    assert result["changed"]["tensors"] > 0
    return f"{len(result['scores'])} scores, {result['changed']['tensors']} tensors changed"


def agrees(family: str, dtype: str, close: float, device: str) -> str:
    """Prediction, gradient and image of one model on two devices."""
    found = []
    for place in ("cpu", device):
        model = Random(name="random", family=family, dtype=dtype).open(place)  # type: ignore[arg-type]
        x = torch.randn((2, *model.shape), generator=torch.Generator().manual_seed(0)).to(place)
        theta = leaves(model.weights("attn2"))
        out = model.predict(x, torch.tensor([100, 700]).to(place), model.encode(["a fox", "a car"]), theta)
        grads = torch.autograd.grad(F.mse_loss(out, x), list(theta.values()))
        (image,) = model.draw([Prompt("a fox", 0)], steps=4, guidance=2.0)
        seen = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float()
        found.append((out.detach().cpu(), torch.cat([g.flatten().cpu() for g in grads]), seen))
    (out, grad, image), (other, others, drawn) = found
    off = [float((a - b).abs().max() / a.abs().max()) for a, b in ((out, other), (grad, others))]
    grey = float((image - drawn).abs().mean())
    assert all(one < close for one in off), off  # which is false of one that is no number
    assert grey < GREY, grey
    return f"prediction to {off[0]:.1e}, gradient to {off[1]:.1e}, images to {grey:.2f} grey levels"


def model_of(what: str, device: str, lean: Lean) -> LatentDiffusion:
    if what == "tiny":
        return Random(name="random", dtype="bfloat16").open(device, lean)
    return opened(what, None, "bfloat16", lean, device)


def row(what: str, how: str, lean: Lean, device: str) -> str:
    """Seconds of a step, an anchor's and a training's, and of an image, and the most memory of all three."""
    cfg = compose(["model=sd14", "model.path=bundled", "judge=none", "concept=style/van_gogh", "anchor=adversarial"])
    concept, method = build(cfg.concept, "concept"), build(cfg.method, "method")
    fresh(device)
    model = model_of(what, device, lean)
    z = torch.randn((1, *model.shape), generator=torch.Generator().manual_seed(0)).to(device)
    step = Pool(model, concept, z, (concept.templates[0],), 0).step(0, 0, 1)
    target = build(cfg.anchor, "anchor").start(model, concept, 0)
    theta = leaves(model.weights(method.scope))
    adam = torch.optim.Adam(theta.values(), method.lr)

    def train() -> None:
        loss = method.loss(step, theta, target.condition(step.templates))
        loss.backward()
        adam.step()
        adam.zero_grad()
        assert torch.isfinite(loss)

    anchor = seconds(lambda: target.descend(step, 1), device)
    trained = seconds(train, device)
    image = seconds(lambda: model.draw([Prompt("a picture", 0)], steps=20, guidance=7.5), device, times=1)
    where = f"{what}, {model.pixels} px, {how}"
    return f"| {where} | {anchor:.3f} s | {trained:.3f} s | {image:.2f} s | {peak(device):.1f} GB |"


def two_copies(what: str, device: str) -> str:
    """The plain way: a frozen copy of the denoiser beside the one in training, weights of its attention as parameters
    in bfloat16, AdamW.
    """
    fresh(device)
    model = model_of(what, device, NOTHING_SPARED)
    student = copy.deepcopy(model.network)
    own = [p for name, p in student.named_parameters() if ".attn2." in name]
    for p in own:
        p.requires_grad_(True)
    adam = torch.optim.AdamW(own, 1e-5)
    x = torch.randn((1, *model.shape), generator=torch.Generator().manual_seed(0)).to(device, torch.bfloat16)
    t = torch.tensor([500], device=device)
    cond = model.encode(["a picture"])
    called, named = model._inputs(x, t, cond.to(torch.bfloat16))

    def train() -> None:
        with torch.no_grad():
            aim = model.network(*called, **named).sample
        loss = F.mse_loss(student(*called, **named).sample.float(), aim.float())
        loss.backward()
        adam.step()
        adam.zero_grad()

    trained = seconds(train, device)
    return f"| {what}, {model.pixels} px, two copies in plain torch | | {trained:.3f} s | | {peak(device):.1f} GB |"


def fresh(device: str) -> None:
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: str) -> float:
    """GB: allocated on a GPU; of a CPU what the process had at most, checks before this one included."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device != "cpu" else resident_peak() / 1024


def seconds(does: Callable[[], Any], device: str, times: int = 3) -> float:
    """Of a call, the mean of some after a first one."""
    does()
    if device != "cpu":
        torch.cuda.synchronize(device)
    start = time.monotonic()
    for _ in range(times):
        does()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return (time.monotonic() - start) / times


if __name__ == "__main__":
    main()
