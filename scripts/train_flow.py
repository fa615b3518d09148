"""Train the second bundled model: a small transformer of image and text (SD3Transformer2DModel of diffusers) that
predicts a flow's velocity, on the same art, with the VAE and the text encoder of the first one.

    python scripts/build_emoji_data.py                       # first, once
    python scripts/train_flow.py --threads 1
    python scripts/eval_emoji.py --model sd3 model.path=outputs/emoji_flow judge=emoji

The objective is rectified flow matching with logit-normal t (Esser et al. 2024, arXiv 2403.03206), t stratified over
the batch, 10 % empty captions; pairs of style and object that the taxonomy holds out are never seen. Text is given as
Stable Diffusion 3 takes it of CLIP: the penultimate layer for each token, and the sentence's embedding, unprojected.
Every minute a checkpoint is left under --work, and the same command goes on where it was killed. In the end --out is a
folder of a StableDiffusion3Pipeline with one text encoder, in float16.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from train_emoji import ROOT, WIDTH, World, bank, captions, encode_bank, seen_pairs, tokenize, train

from advanchor.build import build
from advanchor.compose import compose
from advanchor.models.saving import nameless

from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline  # isort: skip
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer  # isort: skip

BATCH = 64
LATENTS = 8


def make_transformer(patch: int, width: int, layers: int) -> SD3Transformer2DModel:
    heads = 4
    return SD3Transformer2DModel(
        sample_size=LATENTS,
        patch_size=patch,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        attention_head_dim=width // heads,
        num_attention_heads=heads,
        joint_attention_dim=WIDTH,
        caption_projection_dim=width,
        pooled_projection_dim=WIDTH,
        pos_embed_max_size=LATENTS // patch,
        qk_norm="rms_norm",
    )


def projected(text: CLIPTextModel) -> CLIPTextModelWithProjection:
    """The text encoder with a projection that changes nothing: Stable Diffusion 3 wants one."""
    made = CLIPTextModelWithProjection(text.config)
    own = {name if name in made.state_dict() else f"text_model.{name}": t for name, t in text.state_dict().items()}
    made.load_state_dict({**own, "text_projection.weight": torch.eye(WIDTH)})
    return made.eval().requires_grad_(False)


def train_transformer(
    world: World,
    latents: Tensor,
    tokenizer: CLIPTokenizer,
    text: CLIPTextModelWithProjection,
    net: SD3Transformer2DModel,
    work: Path,
    name: str,
    steps: int,
    again: int,
    lr: float,
) -> SD3Transformer2DModel:
    memory: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def embed(texts: list[str]) -> tuple[Tensor, Tensor]:
        if new := sorted(set(texts) - set(memory)):
            out = text(tokenize(tokenizer, new), output_hidden_states=True)
            memory.update(zip(new, zip(out.hidden_states[-2], out.text_embeds, strict=True), strict=True))
        return torch.stack([memory[t][0] for t in texts]), torch.stack([memory[t][1] for t in texts])

    def loss(step: int) -> Tensor:
        pairs, variants, rng, g = world.batch(step, BATCH, 10)
        tokens, sentence = embed(captions(pairs, rng))
        z = latents[pairs[:, 0], pairs[:, 1], variants]
        u = (torch.arange(BATCH) + torch.rand(BATCH, generator=g)) / BATCH
        s = torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4)).sigmoid()
        noise = torch.randn(z.shape, generator=g)
        x = torch.lerp(z, noise, s.view(-1, 1, 1, 1))
        out = net(x, encoder_hidden_states=tokens, pooled_projections=sentence, timestep=1000 * s).sample
        return F.mse_loss(out, noise - z)

    return train(name, net, loss, work, steps=steps, lr=lr, ema=0.999, again=again)  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=16000)
    parser.add_argument("--again", type=int, default=0, help="steps of a second cosine after these")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--patch", type=int, default=2)
    parser.add_argument("--width", type=int, default=184)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--data", type=Path, default=ROOT / "data/emoji")
    parser.add_argument("--work", type=Path, default=ROOT / "data/emoji/work", help="checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/emoji_flow")
    args = parser.parse_args()
    if args.seed < 0 or args.steps < 1 or args.again < 0 or LATENTS % args.patch or args.width % 8 or args.layers < 1:
        sys.exit(
            "--patch must divide 8, --width be a multiple of 8, and the others at least 1 (0 for --again, --seed)."
        )
    if args.out.exists() and not (args.out / "training.json").is_file():
        sys.exit(f"{args.out} is there and was not written by this script: name another --out.")
    torch.set_num_threads(args.threads)
    pipe = build(compose([]).model, "model").open("cpu").pipe
    images = bank(args.work, args.data, 0)
    world = World(images, seen_pairs(), args.seed)
    about = {k: v for k, v in vars(args).items() if k in ("seed", "steps", "again", "lr", "patch", "width", "layers")}
    sources = b"".join((ROOT / "scripts" / name).read_bytes() for name in ("train_emoji.py", "train_flow.py"))
    about["script"] = hashlib.sha256(sources).hexdigest()
    learned = hashlib.sha256(images.contiguous().numpy().tobytes())  # the pictures, and what they are encoded with
    for part in (pipe.vae, pipe.text_encoder):
        for name, tensor in sorted(part.state_dict().items()):
            learned.update(name.encode() + tensor.contiguous().numpy().tobytes())
    folder = args.work / f"flow-{learned.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    latents = encode_bank(pipe.vae, world, folder) * pipe.vae.config.scaling_factor
    text = projected(pipe.text_encoder)
    torch.manual_seed(args.seed + 2)
    net = make_transformer(args.patch, args.width, args.layers)
    name = f"transformer-{hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]}"
    print(f"{name}: {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters", flush=True)
    net = train_transformer(world, latents, pipe.tokenizer, text, net, folder, name, args.steps, args.again, args.lr)
    made = StableDiffusion3Pipeline(
        transformer=net,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=pipe.vae,
        text_encoder=text,
        tokenizer=pipe.tokenizer,
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    made.vae.register_to_config(shift_factor=0.0)  # which diffusers adds, and cannot do without
    part = args.out.with_name(f"{args.out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    made.to(dtype=torch.float16).save_pretrained(part)
    nameless(part)
    config = part / "text_encoder/config.json"  # transformers would load in the dtype named there
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    told = json.loads((folder / f"{name}.json").read_text())  # steps, loss, seconds
    (part / "training.json").write_text(json.dumps({**about, **told}, indent=1) + "\n")
    shutil.rmtree(args.out, ignore_errors=True)
    part.rename(args.out)
    size = sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file()) / 1e6
    print(f"wrote {args.out}: {size:.1f} MB, loss of the last hundred steps {told['loss']:.4f}")


if __name__ == "__main__":
    main()
