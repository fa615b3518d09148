"""One step of AdvAnchor and one of Ablating Concepts at real size, on random weights: does it run, how long, how much
memory?

    python scripts/full_size.py "Stable Diffusion 1.x"
    python scripts/full_size.py "Stable Diffusion XL" --side 64      # latents of 64 x 64, 512 px
    python scripts/full_size.py "Stable Diffusion XL" --dtype bfloat16 --checkpointing

No published weights are needed: the networks have the published sizes (advanchor/models/architectures.py) and weights
drawn from a normal distribution, so the pictures are noise and nothing here says how well anything erases. Batch 1.
Prints a line of docs/performance.md.
"""

import argparse
import resource
import sys
import time
from typing import Any

import torch

import advanchor.torchvision_ops  # noqa: F401  (before diffusers)
from advanchor.build import build
from advanchor.compose import compose
from advanchor.machine import NOTHING_SPARED, Lean
from advanchor.models import layout, single_file
from advanchor.models.architectures import ARCHITECTURES, SCHEDULE
from advanchor.models.latent_diffusion import LatentDiffusion
from advanchor.models.loading import assembled
from advanchor.training.loop import leaves
from advanchor.training.pools import Pool


def filled(cls: Any, config: Any, dtype: torch.dtype, device: str) -> Any:
    """A network of this config whose weights are drawn at once, where they will be used: the own start of each layer
    would take minutes.
    """
    with torch.device("meta"):
        net = cls(config) if config.__class__.__name__.endswith("Config") else cls(**config)
    net = net.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "norm" in name and name.endswith("weight"):
                p.fill_(1.0)
            else:  # of a matrix or kernel as much as keeps the size of what it is given
                p.normal_(0, max(1, p[0].numel()) ** -0.5, generator=generator)
        for name, b in net.named_buffers():
            b.copy_(torch.arange(b.numel(), device=device).view_as(b)) if name.endswith("position_ids") else b.zero_()
    return net


def opened(
    what: str, side: int | None, dtype: str = "float32", lean: Lean = NOTHING_SPARED, device: str = "cpu"
) -> LatentDiffusion:
    import diffusers
    import transformers

    made = ARCHITECTURES[what]
    family = layout.FAMILIES[made.pipeline]
    unet = {**made.unet, "sample_size": side or made.unet["sample_size"]}
    parts: dict[str, Any] = {
        "unet": filled(diffusers.UNet2DConditionModel, unet, getattr(torch, dtype), device),
        "vae": filled(diffusers.AutoencoderKL, made.vae, torch.float32, device),
        "scheduler": diffusers.DDIMScheduler(**SCHEDULE, prediction_type=made.predicts or "v_prediction"),
    }
    for (part, settings), pad in zip(made.encoders.items(), made.pads, strict=True):
        config = transformers.CLIPTextConfig(**settings)
        parts[part] = filled(getattr(transformers, family.encoders[part]), config, getattr(torch, dtype), device)
        parts[part.replace("text_encoder", "tokenizer")] = single_file.tokenizer(
            pad, settings["max_position_embeddings"]
        )
    pipe = assembled(made.pipeline, parts)
    return LatentDiffusion(what, pipe, device, "none", None, lean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(ARCHITECTURES))
    parser.add_argument("--side", type=int, help="of the latents; the published size unless told otherwise")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--checkpointing", action="store_true")
    args = parser.parse_args()
    cfg = compose(["model=sd14", "model.path=bundled", "judge=none", "concept=style/van_gogh", "anchor=adversarial"])
    concept, method = build(cfg.concept, "concept"), build(cfg.method, "method")
    began = time.monotonic()
    model = opened(args.what, args.side, args.dtype, Lean(checkpointing=args.checkpointing))
    loaded = time.monotonic() - began
    side = model.pixels // model.pipe.vae_scale_factor
    z = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    step = Pool(model, concept, z, (concept.templates[0],), 0).step(0, 0, 1)
    target = build(cfg.anchor, "anchor").start(model, concept, 0)
    for phrase in (concept.phrase, concept.superclass):  # once for each step, whatever looks at it
        step.frozen(phrase)
    start = time.monotonic()
    target.descend(step, 1)
    anchor = time.monotonic() - start
    theta = leaves(model.weights(method.scope))
    adam = torch.optim.Adam(theta.values(), method.lr)
    start = time.monotonic()
    loss = method.loss(step, theta, target.condition(step.templates))
    loss.backward()
    adam.step()
    train = time.monotonic() - start
    frozen = model.weights(method.scope)
    moved = sum(not torch.equal(theta[name], frozen[name]) for name in theta)
    if not torch.isfinite(loss) or moved < len(theta):
        sys.exit(f"loss {loss.item()}, {moved} of {len(theta)} tensors moved")
    millions = sum(p.numel() for p in model.network.parameters()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    how = ", ".join([f"{model.pixels} px", args.dtype, *["checkpointing"] * args.checkpointing])
    print(
        f"| {args.what}, {how} | {millions:.0f} M | {loaded:.0f} s | {anchor:.1f} s | {train:.1f} s | "
        f"{peak:.1f} GB | {moved} tensors, {sum(p.numel() for p in theta.values()) / 1e6:.0f} M |"
    )


if __name__ == "__main__":
    main()
