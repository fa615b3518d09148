"""Measure the bundled emoji world and write its model card.

    python scripts/eval_emoji.py                    # 3 minutes on 2 cores; needs data/emoji (build_emoji_data.py)
    python scripts/eval_emoji.py --guidance 3 --no-write

Writes advanchor/assets/quality.json, advanchor/assets/MODEL_CARD.md and docs/emoji_samples.png. Real images are the
augmented ones of the training script (its bank of 32 variants of each pair), drawn ones "a <style> emoji of <object>".
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from train_emoji import OBJECTS, ROOT, STYLES, TAXONOMY, article, bank

from advanchor.compose import compose
from advanchor.core import share
from advanchor.metrics import distance
from advanchor.prompts import Prompt
from advanchor.run import build

HELD = {(s, o) for s, names in TAXONOMY["held_out"].items() for o in names}
SEEN = [(s, o) for s in STYLES for o in OBJECTS if (s, o) not in HELD]


def pictures(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in images]


def accuracy(judge: object, images: Sequence[Image.Image], pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    found = judge.find(images)
    n = len(pairs)
    return {
        "style": sum(f == s for f, (s, _) in zip(found["style"], pairs, strict=True)) / n,
        "object": sum(f == o for f, (_, o) in zip(found["object"], pairs, strict=True)) / n,
        "n": n,
    }


@torch.no_grad()
def clip_accuracy(images: Sequence[Image.Image], pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Zero-shot, as in CLIP: the likeliest of 98 sentences about objects, of 8 about styles."""
    from advanchor.judges.emoji import _clip, _pixels

    net, tokenizer = _clip()
    shown = net.encode_image(_pixels(images) * 2 - 1, normalize=True)
    out: dict[str, float] = {}
    for name, texts, truth in (
        ("style", [f"a {s} emoji" for s in STYLES], [STYLES.index(s) for s, _ in pairs]),
        ("object", [f"an emoji of {article(o)}" for o in OBJECTS], [OBJECTS.index(o) for _, o in pairs]),
    ):
        ids = tokenizer(texts, padding="max_length", max_length=net.context_length, return_tensors="pt").input_ids
        out[name] = float(
            (shown @ net.encode_text(ids, normalize=True).T).argmax(1).eq(torch.tensor(truth)).float().mean()
        )
    return {**out, "n": len(pairs)}


def sheet(images: dict[tuple[str, str], Image.Image], objects: Sequence[str], path: Path) -> None:
    """Objects down, styles across; a frame marks a pair that was held out of training."""
    page = Image.new("RGB", (110 + 72 * len(STYLES), 20 + 72 * len(objects)), "white")
    draw = ImageDraw.Draw(page)
    for c, style in enumerate(STYLES):
        draw.text((112 + 72 * c, 4), style, fill="black")
        for r, thing in enumerate(objects):
            draw.text((4, 48 + 72 * r), thing, fill="black")
            page.paste(images[style, thing].resize((64, 64), Image.Resampling.NEAREST), (112 + 72 * c, 22 + 72 * r))
            if (style, thing) in HELD:
                draw.rectangle((110 + 72 * c, 20 + 72 * r, 177 + 72 * c, 87 + 72 * r), outline="red", width=2)
    path.parent.mkdir(exist_ok=True)
    page.quantize(128).save(path, optimize=True)


# In the picture of samples.
SHOWN = (
    *("fox", "wolf", "owl", "shark", "butterfly", "snail", "lemon", "hamburger"),
    *("car", "fire engine", "castle", "rose", "guitar", "soccer ball", "key", "ghost"),
)
CARD = """# Model card: the emoji world

A Stable Diffusion small enough for a laptop, and two judges that know what it draws. Art: eight openly licensed
emoji sets (see NOTICE). Everything was trained from nothing by `python scripts/train_emoji.py` on the 706 seen
(style, object) pairs of `taxonomy.yaml`; 78 pairs were held out of every stage. The numbers below are those of
`quality.json`, written by `python scripts/eval_emoji.py`.

| part | what | parameters | steps | wall-clock minutes |
| --- | --- | --- | --- | --- |
{parts}

Schedule, objective and folder layout are Stable Diffusion's (scaled-linear betas 0.00085 to 0.012, epsilon
prediction, 10 % empty captions, f = 4, 4 latent channels); `StableDiffusionPipeline.from_pretrained` loads
`emoji/` as it is. Images are 32 px. The VAE, the text encoder and the classifier were trained on one core each,
open_clip and the U-Net on two; other work shared the machine and the U-Net's training was suspended now and
then, so the minutes are upper bounds. AdamW, cosine to zero, averaged weights; details in the script.

| measured | n | style | object |
| --- | --- | --- | --- |
{rows}

Drawn with {steps} DDIM steps, guidance {guidance:g}, one image per seen pair and four per held-out pair, judged
by the classifier. Targets were style >= 90 % and object >= 95 % on seen pairs. Style by style on seen pairs:
{styles}.

- VAE: {psnr:.1f} dB mean PSNR over real images ({psnr_styles}).
- FID of one drawn image per pair (all 784) against real images, classifier features: {fid:.2f}; of real images
  against other augmentations of the same: {floor:.2f}.
- CLIP score (open_clip judge, 100 x cosine) of drawn images with their own prompts {clip_own:.1f}, with a
  random other prompt {clip_other:.1f}.

Not for anything but experiments with methods: it draws {objects} objects in 8 styles and knows no other word.
"{{style}} emoji" is always preceded by "a" in its captions, also before a vowel.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--no-write", action="store_true", help="print the accuracies on drawn images and stop")
    args = parser.parse_args()
    cfg = compose([])
    model, judge = build(cfg.model, "model").open("cpu"), build(cfg.judge, "judge")

    def drawn(
        pairs: Sequence[tuple[str, str]], seeds: Sequence[int]
    ) -> tuple[list[Image.Image], list[tuple[str, str]], list[str]]:
        prompts = [Prompt(f"a {s} emoji of {article(o)}", seed, "object", o) for s, o in pairs for seed in seeds]
        images: list[Image.Image] = []
        for i in range(0, len(prompts), 64):
            images += model.draw(prompts[i : i + 64], steps=args.steps, guidance=args.guidance)
        return images, [p for p in pairs for _ in seeds], [p.text for p in prompts]

    held = sorted(HELD)
    seen_images, seen_pairs, seen_texts = drawn(SEEN, [0])
    held_images, held_pairs, _ = drawn(held, range(4))
    quality: dict = {
        "sampling": {"steps": args.steps, "guidance": args.guidance},
        "drawn": {
            "seen": accuracy(judge, seen_images, seen_pairs),
            "held_out": accuracy(judge, held_images, held_pairs),
        },
    }
    print(json.dumps(quality))
    if args.no_write:
        return
    found = judge.find(seen_images)["style"]
    quality["drawn"]["seen"]["interval"] = {}
    for name in ("style", "object"):
        right = round(quality["drawn"]["seen"][name] * len(SEEN))
        one = share([True] * right + [False] * (len(SEEN) - right), "higher")
        quality["drawn"]["seen"]["interval"][name] = [round(one["low"], 4), round(one["high"], 4)]
    quality["drawn"]["by_style"] = {}
    for style in STYLES:
        right = [f == style for f, (s, _) in zip(found, seen_pairs, strict=True) if s == style]
        quality["drawn"]["by_style"][style] = float(np.mean(right))

    real = bank(ROOT / "data/emoji/work", ROOT / "data/emoji", 0)
    where = {p: (STYLES.index(p[0]), OBJECTS.index(p[1])) for p in [*SEEN, *held]}
    show = {}
    for k, pairs in (("seen", SEEN), ("held_out", held)):
        images = [im for p in pairs for im in pictures(real[where[p]][:4])]
        show[k] = images, [p for p in pairs for _ in range(4)]
    quality["real"] = {k: accuracy(judge, *v) for k, v in show.items()}
    quality["open_clip_real"] = {k: clip_accuracy(*v) for k, v in show.items()}

    with torch.no_grad():
        x = real[:, :, 0].float() / 127.5 - 1
        y = torch.stack([model.pipe.vae.decode(model.pipe.vae.encode(row).latent_dist.mean).sample for row in x]).clamp(
            -1, 1
        )
        psnr = -10 * torch.log10(((x - y) / 2).square().mean((2, 3, 4)))
    quality["vae_psnr"] = {
        "mean": float(psnr.mean()),
        **{s: float(v) for s, v in zip(STYLES, psnr.mean(1), strict=True)},
    }

    def fid(a: Sequence[Image.Image], b: Sequence[Image.Image]) -> float:
        return distance.fid(judge.features(a), judge.features(b))

    one_each = [*seen_images, *held_images[::4]]
    first, second = (pictures(torch.stack([real[where[p]][v] for p in [*SEEN, *held]])) for v in (0, 1))
    quality["fid_real"] = {
        "drawn": fid(first, one_each),
        "real": fid(first, second),
        "n": len(one_each),
        "features": judge.extractor,
    }
    other = [seen_texts[i] for i in np.random.default_rng(0).permutation(len(seen_texts))]
    quality["clip_score"] = {
        k: float(100 * judge.similarity(seen_images, t).mean()) for k, t in (("own", seen_texts), ("other", other))
    }
    (ROOT / "advanchor/assets/quality.json").write_text(json.dumps(quality, indent=1) + "\n")

    trained = json.loads((ROOT / "advanchor/assets/training.json").read_text())
    nets = {
        "vae": ("AutoencoderKL (16, 48, 96)", model.pipe.vae),
        "clip": (
            "CLIPTextModel, 4 layers x 128, BPE of 742 pieces, trained contrastively, then frozen",
            model.text_encoder,
        ),
        "unet": ("UNet2DConditionModel (64, 160), cross-attention in every block", model.unet),
    }
    from advanchor.judges.emoji import _classifier, _clip

    nets |= {
        "classifier": ("judge: small ResNet, style head and object head", _classifier()),
        "openclip": ("judge: open_clip.CLIP, ViT patch 8, 4 layers x 128", _clip()[0]),
    }
    parts = "\n".join(
        f"| {k} | {what} | {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M | {trained[k]['steps']} | "
        f"{trained[k]['seconds'] / 60:.0f} |"
        for k, (what, net) in nets.items()
    )

    def row(title: str, a: dict) -> str:
        return f"| {title} | {a['n']} | {100 * a['style']:.1f} % | {100 * a['object']:.1f} % |"

    rows = "\n".join(
        row(title, quality[a][b])
        for title, a, b in (
            ("drawn, seen pairs", "drawn", "seen"),
            ("drawn, held-out pairs", "drawn", "held_out"),
            ("classifier on real images, seen pairs", "real", "seen"),
            ("classifier on real images, held-out pairs", "real", "held_out"),
            ("open_clip on real images, zero-shot, seen pairs", "open_clip_real", "seen"),
            ("open_clip on real images, zero-shot, held-out pairs", "open_clip_real", "held_out"),
        )
    )
    card = CARD.format(
        parts=parts,
        rows=rows,
        steps=args.steps,
        guidance=args.guidance,
        psnr=quality["vae_psnr"]["mean"],
        objects=len(OBJECTS),
        psnr_styles=", ".join(f"{s} {quality['vae_psnr'][s]:.1f}" for s in STYLES),
        styles=", ".join(f"{s} {100 * v:.0f} %" for s, v in quality["drawn"]["by_style"].items()),
        fid=quality["fid_real"]["drawn"],
        floor=quality["fid_real"]["real"],
        clip_own=quality["clip_score"]["own"],
        clip_other=quality["clip_score"]["other"],
    )
    (ROOT / "advanchor/assets/MODEL_CARD.md").write_text(card)
    by_pair = dict(zip([*SEEN, *held], one_each, strict=True))
    sheet(by_pair, SHOWN, ROOT / "docs/emoji_samples.png")
    print(card)


if __name__ == "__main__":
    main()
