"""Measure the bundled emoji models and write their card.

    python scripts/eval_emoji.py                    # 4 minutes on 2 cores; needs data/emoji (build_emoji_data.py)
    python scripts/eval_emoji.py --model emoji_flow
    python scripts/eval_emoji.py --guidance 3 --no-write
    python scripts/eval_emoji.py --reference outputs/references/without-1    # a model of train_reference.py
    python scripts/eval_emoji.py --model sd3 model.path=outputs/emoji_flow judge=emoji    # one of train_flow.py

Writes advanchor/assets/quality.json and docs/emoji_samples.png (with --model emoji_flow those of that model), and the
card of both, advanchor/assets/MODEL_CARD.md. Real images are the
augmented ones of the training script (its bank of 32 variants of each pair), drawn ones "a <style> emoji of <object>".
With --no-write, --reference or overrides it prints the accuracies on drawn images and stops; a reference's pairs are
those of names that it was trained with. Pictures of nothing are those of emoji_junk.py under a seed that no training
has.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from emoji_junk import RECIPES, TRAINED, make
from PIL import Image, ImageDraw
from torch import Tensor
from train_emoji import OBJECTS, ROOT, STYLES, TAXONOMY, article, bank, seen_pairs

from advanchor.attacking import never
from advanchor.build import build
from advanchor.compose import compose
from advanchor.core import NOTHING, BadInput
from advanchor.metrics import distance
from advanchor.prompts import Prompt
from advanchor.references import about

ASSETS = ROOT / "advanchor/assets"
FLOW = ASSETS / "emoji_flow"
WRITTEN = {  # where a model's quality.json and its picture of samples go
    "emoji": (ASSETS, ROOT / "docs/emoji_samples.png"),
    "emoji_flow": (FLOW, ROOT / "docs/emoji_flow_samples.png"),
}
HELD = {(s, o) for s, names in TAXONOMY["held_out"].items() for o in names}
SEEN = [(s, o) for s in STYLES for o in OBJECTS if (s, o) not in HELD]


def pictures(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in images]


def accuracy(
    judge: object, images: Sequence[Image.Image], pairs: Sequence[tuple[str, str]], by: str
) -> dict[str, float]:
    """Shares of images whose style and object one detector finds, and of those that it takes for nothing."""
    found, n = judge.find(images, by=by), len(pairs)
    return {
        "style": sum(f == s for f, (s, _) in zip(found["style"], pairs, strict=True)) / n,
        "object": sum(f == o for f, (_, o) in zip(found["object"], pairs, strict=True)) / n,
        "rejected": found["object"].count(NOTHING) / n,
        "n": n,
    }


def rejection(judge: object, images: Tensor, n: int) -> dict[str, dict[str, float]]:
    """For each detector the share of n pictures of nothing that it rejects (by its object head), kind by kind."""
    out: dict[str, dict[str, float]] = {by: {} for by in judge.judges}
    for kind in RECIPES:
        shown = pictures(make(images, seen_pairs(), kind, n, 777))
        for by in judge.judges:
            out[by][kind] = judge.find(shown, ["object"], by)["object"].count(NOTHING) / n
    white = [Image.new("RGB", (32, 32), "white")]
    for by in judge.judges:
        out[by]["white"] = float(judge.find(white, ["object"], by)["object"] == [NOTHING])
    return out


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


@torch.no_grad()
def restored(vae: torch.nn.Module, real: Tensor) -> dict[str, float]:
    """Mean PSNR in dB of one rendering of every picture after the VAE, over all and style by style."""
    x = real[:, :, 0].float() / 127.5 - 1
    y = torch.stack([vae.decode(vae.encode(row).latent_dist.mean).sample for row in x]).clamp(-1, 1)
    psnr = -10 * torch.log10(((x - y) / 2).square().mean((2, 3, 4)))
    return {"mean": float(psnr.mean()), **{s: float(v) for s, v in zip(STYLES, psnr.mean(1), strict=True)}}


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

A Stable Diffusion small enough for a laptop, and the networks of a judge that knows what it draws: two detectors,
features and a CLIP. Art: eight openly licensed emoji sets (see NOTICE). Everything was trained from nothing by `python
scripts/train_emoji.py` on the 706 seen (style, object) pairs of `taxonomy.yaml`; 78 pairs were held out of every stage
but `vit`, which was trained on them and never saw 16 others. The numbers below are those of `quality.json`, written by
`python scripts/eval_emoji.py`.

| part | what | parameters | steps | wall-clock minutes |
| --- | --- | --- | --- | --- |
{parts}

Schedule, objective and folder layout are Stable Diffusion's (scaled-linear betas 0.00085 to 0.012, epsilon
prediction, 10 % empty captions, f = 4, 4 latent channels); `StableDiffusionPipeline.from_pretrained` loads
`emoji/` as it is. Images are 32 px. The VAE, the text encoder, the detectors and the feature network were trained on
one core each, open_clip and the U-Net on two; other work shared the machine and the U-Net's training was suspended now
and then, so the minutes are upper bounds. AdamW, cosine to zero, averaged weights; details in the script.

| measured | n | style | object | taken for nothing |
| --- | --- | --- | --- | --- |
{rows}

Drawn with {steps} DDIM steps, guidance {guidance:g}, one image per seen pair and four per held-out pair. Targets were
style >= 93 % and object >= 97 % on seen pairs by either detector, with at most 1 % taken for nothing; a row of seen
pairs that says otherwise missed them. Style by style on seen pairs ({names}):
{styles}.

`emoji_flow/` is a `StableDiffusion3Pipeline` of the same VAE and text encoder, whose transformer predicts a flow's
velocity (`python scripts/train_flow.py`, on one core); diffusers must be told of the encoders that it has not
(`text_encoder_2=None, tokenizer_2=None, text_encoder_3=None, tokenizer_3=None`). It draws in as many Euler steps; its
targets were style >= 90 % and object >= 95 % on seen pairs. Style by style on seen pairs: {styles_flow}. FID
{fid_flow:.2f}, CLIP score {clip_flow:.1f}, measured as those below.

The two detectors share no weight, no rendering and no architecture: `resnet` is convolutional, `vit` a transformer,
trained on renderings of another size, by other filters and other disturbances. On the unedited model's drawings of
seen pairs they agree in {agree_object:.1f} % on the object and in {agree_style:.1f} % on the style.

Each has a class for what is nothing that it knows, trained on smears, noise, blends and failed drawings
(`scripts/emoji_junk.py`), never on what an edited model drew; two recipes, stains and melted, were written after a look
at smears that one had drawn. Share of {junk_n} fresh pictures of nothing of each kind
that it rejects by its object head; a kind marked * it never saw in training:

| pictures of nothing | {columns} |
| --- | {dashes} |
{junk}

- VAE: {psnr:.1f} dB mean PSNR over real images ({psnr_styles}).
- Features: a convolutional network that was trained on pairs of views of one picture (VICReg) and never saw a label.
  FID of one drawn image per pair (all 784) against real images: {fid:.2f}; of real images against other augmentations
  of the same: {floor:.2f}.
- CLIP score (open_clip judge, 100 x cosine) of drawn images with their own prompts {clip_own:.1f}, with a
  random other prompt {clip_other:.1f}.

Not for anything but experiments with methods: it draws {objects} objects in 8 styles and knows no other word.
"{{style}} emoji" is always preceded by "a" in its captions, also before a vowel.
"""
PARTS = {
    "vae": "AutoencoderKL (16, 48, 96)",
    "clip": "CLIPTextModel, 4 layers x 128, BPE of 742 pieces, trained contrastively, then frozen",
    "unet": "UNet2DConditionModel (64, 160), cross-attention in every block",
    "transformer": "SD3Transformer2DModel, 4 blocks x 184, patch 2, the network of emoji_flow",
    "resnet": "judge: small ResNet, style head and object head, each with a reject class",
    "vit": "judge: ViT, 64 patches, 5 layers x 96, the same two heads",
    "features": "judge: convolutional network without a head, 64 features",
    "openclip": "judge: open_clip.CLIP, ViT patch 8, 4 layers x 128",
}
JUNK = 300


def card(judge: object) -> str:
    """The model card, from quality.json and training.json of both models."""
    from advanchor.judges.emoji import _clip, _detector, _features

    quality, flow = (json.loads((folder / "quality.json").read_text()) for folder in (ASSETS, FLOW))
    trained = json.loads((ASSETS / "training.json").read_text())
    trained["transformer"] = json.loads((FLOW / "training.json").read_text())
    model, second = (build(compose([f"model={name}"]).model, "model").open("cpu") for name in ("emoji", "emoji_flow"))
    nets = {"vae": model.pipe.vae, "clip": model.pipe.text_encoder, "unet": model.network}
    nets |= {"transformer": second.network}
    nets |= {by: _detector(by) for by in judge.judges} | {"features": _features(), "openclip": _clip()[0]}
    parts = "\n".join(
        f"| {k} | {what} | {sum(p.numel() for p in nets[k].parameters()) / 1e6:.2f} M | {trained[k]['steps']} | "
        f"{trained[k]['seconds'] / 60:.0f} |"
        for k, what in PARTS.items()
    )

    def row(title: str, a: dict) -> str:
        rejected = f"{100 * a['rejected']:.1f} %" if "rejected" in a else ""
        return f"| {title} | {a['n']} | {100 * a['style']:.1f} % | {100 * a['object']:.1f} % | {rejected} |"

    rows = "\n".join(
        [
            row(f"{what}, {pairs.replace('_', '-')} pairs, {by}", quality[what][pairs][by])
            for what in ("drawn", "real")
            for pairs in ("seen", "held_out")
            for by in judge.judges
        ]
        + [
            row(f"drawn by emoji_flow, {pairs.replace('_', '-')} pairs, {by}", flow["drawn"][pairs][by])
            for pairs in ("seen", "held_out")
            for by in judge.judges
        ]
        + [
            row(f"real, {pairs.replace('_', '-')} pairs, open_clip zero-shot", quality["open_clip_real"][pairs])
            for pairs in ("seen", "held_out")
        ]
    )

    def share_of(kind: str, by: str) -> str:
        unseen = kind in RECIPES and kind not in TRAINED[by]
        return f"{100 * quality['rejected'][by][kind]:.1f} %" + (" *" if unseen else "")

    junk = "\n".join(
        f"| {kind.replace('_', ' ')} | {' | '.join(share_of(kind, by) for by in judge.judges)} |"
        for kind in (*RECIPES, "white")
    )
    by_style, by_style_flow = (
        {by: one["drawn"]["seen"][by]["by_style"] for by in judge.judges} for one in (quality, flow)
    )

    def styles(shares: dict) -> str:
        return ", ".join(f"{s} {' / '.join(f'{100 * shares[by][s]:.0f}' for by in shares)} %" for s in STYLES)

    return CARD.format(
        parts=parts,
        rows=rows,
        steps=quality["sampling"]["steps"],
        guidance=quality["sampling"]["guidance"],
        psnr=quality["vae_psnr"]["mean"],
        objects=len(OBJECTS),
        psnr_styles=", ".join(f"{s} {quality['vae_psnr'][s]:.1f}" for s in STYLES),
        styles=styles(by_style),
        styles_flow=styles(by_style_flow),
        names=" / ".join(judge.judges),
        columns=" | ".join(judge.judges),
        dashes=" | ".join("---" for _ in judge.judges),
        agree_object=100 * quality["agreement"]["object"],
        agree_style=100 * quality["agreement"]["style"],
        junk=junk,
        junk_n=JUNK,
        fid=quality["fid_real"]["drawn"],
        floor=quality["fid_real"]["real"],
        fid_flow=flow["fid_real"]["drawn"],
        clip_flow=flow["clip_score"]["own"],
        clip_own=quality["clip_score"]["own"],
        clip_other=quality["clip_score"]["other"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--no-write", action="store_true", help="print the accuracies on drawn images and stop")
    parser.add_argument("--reference", metavar="FOLDER", help="measure this model of train_reference.py, write nothing")
    parser.add_argument("--model", default="emoji", help="or emoji_flow, or one of your own")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of it: model.path=<folder>")
    args = parser.parse_args()
    try:
        unknown, edit = (about(args.reference)["without"], never(args.reference)) if args.reference else ([], {})
    except BadInput as e:
        sys.exit(str(e))
    cfg = compose([f"model={args.model}", *args.overrides])
    model, judge = build(cfg.model, "model").open("cpu"), build(cfg.judge, "judge")

    def drawn(
        pairs: Sequence[tuple[str, str]], seeds: Sequence[int]
    ) -> tuple[list[Image.Image], list[tuple[str, str]], list[str]]:
        prompts = [Prompt(f"a {s} emoji of {article(o)}", seed, "object", o) for s, o in pairs for seed in seeds]
        images: list[Image.Image] = []
        for i in range(0, len(prompts), 64):
            images += model.draw(prompts[i : i + 64], steps=args.steps, guidance=args.guidance)
        return images, [p for p in pairs for _ in seeds], [p.text for p in prompts]

    known, held = ([pair for pair in pairs if not {*pair} & {*unknown}] for pairs in (SEEN, sorted(HELD)))
    with model.edited(edit):
        seen_images, seen_pairs, seen_texts = drawn(known, [0])
        held_images, held_pairs, _ = drawn(held, range(4))
    drawings = {"seen": (seen_images, seen_pairs), "held_out": (held_images, held_pairs)}
    quality: dict = {
        "sampling": {"steps": args.steps, "guidance": args.guidance},
        "drawn": {k: {by: accuracy(judge, *v, by) for by in judge.judges} for k, v in drawings.items()},
    }
    found = {by: judge.find(seen_images, by=by) for by in judge.judges}
    one, two = found.values()
    quality["agreement"] = {h: float(np.mean([a == b for a, b in zip(one[h], two[h], strict=True)])) for h in one}
    print(json.dumps(quality))
    if args.no_write or args.reference or args.model not in WRITTEN or args.overrides:
        return
    folder, samples = WRITTEN[args.model]
    by_pair = dict(zip([*SEEN, *held], [*seen_images, *held_images[::4]], strict=True))
    for by in judge.judges:
        right = [(s, f == s) for f, (s, _) in zip(found[by]["style"], seen_pairs, strict=True)]
        quality["drawn"]["seen"][by]["by_style"] = {
            style: float(np.mean([ok for s, ok in right if s == style])) for style in STYLES
        }

    real = bank(ROOT / "data/emoji/work", ROOT / "data/emoji", 0)
    where = {p: (STYLES.index(p[0]), OBJECTS.index(p[1])) for p in by_pair}

    def fid(a: Sequence[Image.Image], b: Sequence[Image.Image]) -> float:
        return distance.fid(judge.features(a), judge.features(b))

    first, second = (pictures(torch.stack([real[at][v] for at in where.values()])) for v in (0, 1))
    quality["fid_real"] = {
        "drawn": fid(first, list(by_pair.values())),
        "real": fid(first, second),
        "n": len(by_pair),
        "features": judge.extractor,
    }
    other = [seen_texts[i] for i in np.random.default_rng(0).permutation(len(seen_texts))]
    quality["clip_score"] = {
        k: float(100 * judge.similarity(seen_images, t).mean()) for k, t in (("own", seen_texts), ("other", other))
    }
    if args.model == "emoji":  # whose VAE and judges the other has too
        show = {
            k: ([im for p in pairs for im in pictures(real[where[p]][:4])], [p for p in pairs for _ in range(4)])
            for k, pairs in (("seen", SEEN), ("held_out", held))
        }
        quality["real"] = {k: {by: accuracy(judge, *v, by) for by in judge.judges} for k, v in show.items()}
        quality["rejected"] = {"n": JUNK, **rejection(judge, real, JUNK)}
        quality["open_clip_real"] = {k: clip_accuracy(*v) for k, v in show.items()}
        quality["vae_psnr"] = restored(model.pipe.vae, real)
    (folder / "quality.json").write_text(json.dumps(quality, indent=1) + "\n")
    sheet(by_pair, SHOWN, samples)
    (ASSETS / "MODEL_CARD.md").write_text(card(judge))


if __name__ == "__main__":
    main()
