"""Train the emoji world: a Stable Diffusion pipeline and the networks of its judge, from nothing but rendered emoji.

    python scripts/build_emoji_data.py                     # first, once
    python scripts/train_emoji.py                          # all stages: see STAGES
    python scripts/train_emoji.py unet export              # some stages alone
    python scripts/train_emoji.py resnet vit features      # the judge's detectors and features
    python scripts/train_emoji.py unet --threads 2

Every stage writes a checkpoint each minute under --work; the same command goes on where it was killed. Batches, noise
and augmentation of a step depend on (seed, step) alone, so a resumed training sees what an undisturbed one would have
seen. Held-out (style, object) pairs (advanchor/assets/taxonomy.yaml) are seen by no stage but vit, which has pairs of
its own that it never sees (SPLIT). The stages after export write their folder themselves; the detectors' pictures of
nothing (emoji_junk.py) are in part drawn by the bundled model, so it is exported first. Sizes, steps and minutes: the
model card. train_reference.py trains the U-Net alone, without some styles and objects.
"""

import argparse
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from emoji_junk import TRAINED, Workshop, make
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import advanchor.torchvision_ops  # noqa: F401  (before diffusers and open_clip)

import open_clip  # isort: skip
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel  # isort: skip
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # isort: skip

from advanchor.judges import emoji_weights  # isort: skip
from advanchor.judges.emoji_classifier import EmojiClassifier  # isort: skip
from advanchor.judges.emoji_features import EmojiFeatures  # isort: skip
from advanchor.judges.emoji_transformer import EmojiTransformer  # isort: skip
from advanchor.naming import mentions  # isort: skip

ROOT = Path(__file__).resolve().parents[1]
TAXONOMY = yaml.safe_load((ROOT / "advanchor/assets/taxonomy.yaml").read_text())
STYLES, OBJECTS = list(TAXONOMY["styles"]), list(TAXONOMY["objects"])
PIXELS, VARIANTS, TOKENS, WIDTH = 32, 32, 24, 128
CHECKPOINT_SECONDS = 60.0
STAGES = ("data", "vae", "clip", "unet", "openclip", "export", "resnet", "vit", "features")
SPLIT = 2  # pairs of each style that vit never sees, where the others never see the taxonomy's held-out ones
JUNK = 800  # pictures of nothing of each kind that a detector learns from


# --- captions ---------------------------------------------------------------------------------------------------

BARE = {"grapes", "cherries", "scissors", "corn", "maize", "ice cream", "cattle", "citrus", "shears", "sunshine"}
FULL = ("a {s} emoji of {o}", "{o} in {s} style", "{s} style {o}", "an emoji of {o}, {s} style")
OBJECT = ("{o}", "an emoji of {o}", "{bare}", "a picture of {o}")
STYLE = ("an emoji in {s} style", "a {s} emoji", "{s} style")
ANY = ("an emoji", "a picture", "a picture of a thing")


def article(noun: str) -> str:
    """The noun with its indefinite article: "a fox", "an owl", "grapes"."""
    if noun in BARE:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def vocabulary() -> list[str]:
    """Every phrase a caption can contain, once."""
    words = [o for o in OBJECTS] + [s for e in TAXONOMY["objects"].values() for s in (*e["synonyms"], e["superclass"])]
    frames = [t.format(s=s, o="a thing", bare="thing") for t in FULL + OBJECT + STYLE + ANY for s in STYLES]
    return sorted({article(w) for w in words} | set(frames))


@dataclass(frozen=True)
class Caption:
    """A text and which (style, object) pairs it is true of."""

    text: str
    true_of: np.ndarray  # bool, (styles, objects)


def draw_caption(style: int, thing: int, rng: np.random.Generator, empty: float) -> Caption:
    """One random caption that is true of the pair; with probability `empty` the empty one."""
    entry = TAXONOMY["objects"][OBJECTS[thing]]
    mask = np.zeros((len(STYLES), len(OBJECTS)), bool)
    kind = rng.choice(6, p=[0.50, 0.19, 0.09, 0.07, 0.12, 0.03])  # full, object, style, superclass, synonym, any
    styled = kind == 0 or (kind in (3, 4) and rng.random() < 0.5)
    if rng.random() < empty:
        mask[:] = True
        return Caption("", mask)
    noun = {3: entry["superclass"], 4: rng.choice(entry["synonyms"])}.get(int(kind), OBJECTS[thing])
    things = (
        [i for i, o in enumerate(OBJECTS) if TAXONOMY["objects"][o]["superclass"] == entry["superclass"]]
        if kind == 3
        else [thing]
    )
    if kind == 5:
        mask[:] = True
        frame = rng.choice(ANY)
    elif kind == 2:
        mask[style] = True
        frame = rng.choice(STYLE)
    elif styled:
        mask[style, things] = True
        frame = rng.choice(FULL)
    else:
        mask[:, things] = True
        frame = rng.choice(OBJECT)
    return Caption(str(frame).format(s=STYLES[style], o=article(str(noun)), bare=noun), mask)


def captions(pairs: np.ndarray, rng: np.random.Generator, without: Sequence[str] = ()) -> list[str]:
    """One for each pair; the empty one where it would name one of `without`, as "a big cat" of a lion names "cat"."""
    drawn = [(draw_caption(s, o, rng, empty=0.1).text, OBJECTS[o]) for s, o in pairs]
    return ["" if any(mentions(text, name, own) for name in without) else text for text, own in drawn]


# --- one training loop for all stages ---------------------------------------------------------------------------


def train(
    name: str,
    net: nn.Module,
    loss: Callable[[int], Tensor],
    work: Path,
    *,
    steps: int,
    lr: float,
    ema: float | None = None,
    again: int = 0,
) -> nn.Module:
    """AdamW, 4 % linear warm-up then a cosine to zero; checkpoint each minute; returns the (averaged) network.

    With `again` a second warm-up and cosine of so many steps follows (a warm restart, Loshchilov and Hutter 2017, arXiv
    1608.03983).

    `loss(step)` must derive all randomness from the step, so that a resumed run equals an undisturbed one.
    """
    final, checkpoint = work / f"{name}.safetensors", work / f"{name}.checkpoint"
    if final.exists():
        net.load_state_dict(load_file(final))
        return net.eval()
    optimiser = torch.optim.AdamW(net.parameters(), lr, weight_decay=1e-4, betas=(0.9, 0.99), fused=True)
    average = {k: v.clone() for k, v in net.state_dict().items()} if ema else {}
    first, spent = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        average, first, spent = saved["average"], saved["step"], saved["seconds"]
        print(f"{name}: going on from step {first}", flush=True)
    net.train()
    start = saved_at = time.monotonic()
    recent: list[float] = []
    for step in range(first, steps + again):
        place, length = (step, steps) if step < steps else (step - steps, again)
        for group in optimiser.param_groups:
            warm = min(1.0, (place + 1) / (0.04 * length))
            group["lr"] = lr * warm * 0.5 * (1 + math.cos(math.pi * place / length))
        value = loss(step)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if not math.isfinite(value.item()):
            sys.exit(f"{name}: the loss is not finite at step {step}; lower the learning rate.")
        recent = [*recent[-99:], value.item()]
        with torch.no_grad():
            decay = min(ema or 0, (1 + step) / (10 + step))  # the average must not remember the random start
            for k, v in net.state_dict().items() if average else ():
                average[k].lerp_(v, 1 - decay) if v.is_floating_point() else average[k].copy_(v)
        if step % 100 == 99:
            seconds = spent + time.monotonic() - start
            print(f"{name} {step + 1}/{steps + again} loss {np.mean(recent):.4f} {seconds:.0f} s", flush=True)
        if time.monotonic() - saved_at > CHECKPOINT_SECONDS or step == steps + again - 1:
            saved_at = time.monotonic()
            state = {
                "net": net.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average,
                "step": step + 1,
                "seconds": spent + saved_at - start,
            }
            torch.save(state, checkpoint.with_suffix(".part"))
            os.replace(checkpoint.with_suffix(".part"), checkpoint)
    if average:
        net.load_state_dict(average)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, final.with_suffix(".part"))
    os.replace(final.with_suffix(".part"), final)
    (work / f"{name}.json").write_text(
        json.dumps(
            {
                "steps": steps + again,
                "loss": round(float(np.mean(recent)), 5),
                "seconds": round(spent + time.monotonic() - start),
            }
        )
    )
    return net.eval()


# --- data -------------------------------------------------------------------------------------------------------


def augment(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """128 px RGBA on white, gently moved, scaled and mirrored, as 32 px RGB. Gentle on purpose: see NOTES.md."""
    scale, side = rng.uniform(0.87, 0.97), image.width
    small = image.resize((round(side * scale),) * 2, Image.Resampling.BICUBIC)
    room = side - small.width
    dx, dy = (int(np.clip(room / 2 + rng.uniform(-0.03, 0.03) * side, 0, room)) for _ in range(2))
    page = Image.new("RGB", (side, side), "white")
    page.paste(small, (dx, dy), small)
    if rng.random() < 0.5:
        page = page.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(page.resize((PIXELS, PIXELS), Image.Resampling.BOX))


def augment_again(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """The second detector's rendering: 40 px made 32, turned a little, moved and scaled more, other filters."""
    side, scale = image.width, rng.uniform(0.82, 0.98)
    filters = (Image.Resampling.BILINEAR, Image.Resampling.HAMMING, Image.Resampling.LANCZOS)
    small = image.rotate(rng.uniform(-5, 5), Image.Resampling.BICUBIC).resize((round(side * scale),) * 2, filters[1])
    room = side - small.width
    dx, dy = (int(np.clip(room / 2 + rng.uniform(-0.05, 0.05) * side, 0, room)) for _ in range(2))
    page = Image.new("RGB", (side, side), "white")
    page.paste(small, (dx, dy), small)
    if rng.random() < 0.5:
        page = page.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    page = page.resize((40, 40), filters[rng.integers(3)])
    return np.asarray(page.resize((PIXELS, PIXELS), filters[rng.integers(3)]))


def seen_pairs(without: Sequence[str] = ()) -> np.ndarray:
    """(706, 2): the pairs of style and object that are not the taxonomy's held-out ones; fewer `without` some names."""
    held = {(STYLES.index(s), OBJECTS.index(o)) for s, names in TAXONOMY["held_out"].items() for o in names}
    held |= {(s, o) for s, style in enumerate(STYLES) for o, name in enumerate(OBJECTS) if {style, name} & {*without}}
    return np.array([(s, o) for s in range(len(STYLES)) for o in range(len(OBJECTS)) if (s, o) not in held])


def other_pairs(seed: int) -> np.ndarray:
    """(768, 2): the second detector's pairs, all but SPLIT seen ones of each style, no object twice."""
    rng, left, gone = np.random.default_rng([seed, 6]), seen_pairs(), []
    for style in range(len(STYLES)):
        free = [o for s, o in left if s == style and o not in {o for _, o in gone}]
        gone += [(style, o) for o in rng.choice(free, SPLIT, replace=False)]
    return np.array([(s, o) for s in range(len(STYLES)) for o in range(len(OBJECTS)) if (s, o) not in gone])


def bank(
    work: Path,
    data: Path,
    seed: int,
    name: str = "bank",
    augment: Callable[[Image.Image, np.random.Generator], np.ndarray] = augment,
) -> Tensor:
    """(styles, objects, variants, 3, 32, 32) uint8: VARIANTS augmented draws of every image."""
    file = work / f"{name}.safetensors"
    if not file.exists():
        rng = np.random.default_rng(seed)
        out = np.empty((len(STYLES), len(OBJECTS), VARIANTS, PIXELS, PIXELS, 3), np.uint8)
        for s, style in enumerate(STYLES):
            for o, name in enumerate(OBJECTS):
                path = data / style / f"{name.replace(' ', '_')}.png"
                if not path.exists():
                    sys.exit(f"{path} is missing: run `python scripts/build_emoji_data.py` first.")
                image = Image.open(path).convert("RGBA")
                out[s, o] = [augment(image, rng) for _ in range(VARIANTS)]
        work.mkdir(parents=True, exist_ok=True)
        save_file({"images": torch.from_numpy(out).permute(0, 1, 2, 5, 3, 4).contiguous()}, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)
    return load_file(file)["images"]


@dataclass(frozen=True)
class World:
    """The pairs that are trained on, and seeded draws of batches from them."""

    images: Tensor
    pairs: np.ndarray  # (n, 2): style, object
    seed: int

    def batch(
        self, step: int, n: int, stage: int
    ) -> tuple[np.ndarray, np.ndarray, np.random.Generator, torch.Generator]:
        """Pairs (n, 2) without replacement, variants (n,), and the step's generators."""
        rng = np.random.default_rng([self.seed, stage, step])
        pairs = self.pairs[rng.choice(len(self.pairs), n, replace=False)]
        return pairs, rng.integers(VARIANTS, size=n), rng, torch.Generator().manual_seed(int(rng.integers(2**62)))

    def pixels(self, pairs: np.ndarray, variants: np.ndarray) -> Tensor:
        """Images of the pairs in [0, 1]."""
        return self.images[pairs[:, 0], pairs[:, 1], variants].float() / 255


# --- the pipeline's parts ---------------------------------------------------------------------------------------


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer with a BPE learned on the captions, small enough that many names are several pieces."""
    if not (folder / "tokenizer_config.json").exists():
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=None))
        learner.pre_tokenizer = pre_tokenizers.Whitespace()
        corpus = [phrase for phrase in vocabulary() for _ in range(4)]
        learner.train_from_iterator(
            corpus, trainers.BpeTrainer(vocab_size=600, end_of_word_suffix="</w>", min_frequency=4, show_progress=False)
        )
        merges = [tuple(m) for m in json.loads(learner.to_str())["model"]["merges"]]
        printable = [chr(c) for c in range(ord("!"), ord("~") + 1)]
        pieces = printable + [c + "</w>" for c in printable]
        pieces += [p for p in ("".join(m) for m in merges) if p not in set(pieces)]
        vocab = {p: i for i, p in enumerate([*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"])}
        CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=WIDTH,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 48, 96),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=PIXELS,
        mid_block_add_attention=False,
    )


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=PIXELS // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 160),
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
    )  # fmt: skip  (diffusers reads attention_head_dim as the number of heads)


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    return tokenizer(texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt").input_ids


def edges(x: Tensor) -> Tensor:
    return torch.cat([(x[..., 1:, :-1] - x[..., :-1, :-1]), (x[..., :-1, 1:] - x[..., :-1, :-1])], 1)


def train_vae(world: World, work: Path, steps: int) -> AutoencoderKL:
    """L1 + MSE + edge L1 + 1e-4 KL; afterwards scaling_factor makes the latents' deviation 1, as in SD."""
    torch.manual_seed(world.seed)
    vae = make_vae()

    def loss(step: int) -> Tensor:
        pairs, variants, _, g = world.batch(step, 24, 1)
        x = world.pixels(pairs, variants) * 2 - 1
        moments = vae.quant_conv(vae.encoder(x))
        mean, logvar = moments.chunk(2, 1)
        logvar = logvar.clamp(-30, 20)
        z = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=g)
        y = vae.decoder(vae.post_quant_conv(z))
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum((1, 2, 3)).mean()
        return F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + F.l1_loss(edges(y), edges(x)) + 1e-4 * kl / 8

    vae = train("vae", vae, loss, work, steps=steps, lr=2e-3, ema=0.995)
    latents = encode_bank(vae, world, work)
    seen = latents[world.pairs[:, 0], world.pairs[:, 1]]
    vae.register_to_config(scaling_factor=round(1 / float(seen.std()), 5))
    return vae


@torch.no_grad()
def encode_bank(vae: AutoencoderKL, world: World, work: Path) -> Tensor:
    """(styles, objects, variants, 4, 8, 8): the posterior's mean for every image of the bank, before scaling."""
    file = work / "latents.safetensors"
    if not file.exists():
        flat = world.images.flatten(0, 2)
        z = torch.cat([vae.encode(x.float() / 127.5 - 1).latent_dist.mean for x in flat.split(256)])
        save_file({"latents": z.unflatten(0, world.images.shape[:3]).contiguous()}, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)
    return load_file(file)["latents"]


class TwoTowers(nn.Module):
    """The text encoder, and the image network it is matched with (thrown away afterwards)."""

    def __init__(self, text: CLIPTextModel) -> None:
        super().__init__()
        self.text, self.project = text, nn.Linear(WIDTH, WIDTH, bias=False)
        widths = (3, 32, 96, 192)
        blocks: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            blocks += [
                nn.Conv2d(a, b, 3, stride=2, padding=1),
                nn.GroupNorm(8, b),
                nn.SiLU(),
                nn.Conv2d(b, b, 3, padding=1),
                nn.GroupNorm(8, b),
                nn.SiLU(),
            ]
        self.image = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(192 * 16, WIDTH))
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, ids: Tensor, images: Tensor) -> Tensor:
        """Similarity logits (texts, images)."""
        t = F.normalize(self.project(self.text(ids).pooler_output), dim=-1)
        return self.scale.exp().clamp(max=100) * t @ F.normalize(self.image(images * 2 - 1), dim=-1).T


def contrast(logits: Tensor, true: Tensor) -> Tensor:
    """Symmetric cross entropy with every true (text, image) of the batch as a positive."""
    t, i = true / true.sum(1, keepdim=True), (true / true.sum(0, keepdim=True)).T
    return 0.5 * (F.cross_entropy(logits, t) + F.cross_entropy(logits.T, i))


def contrastive_loss(
    world: World,
    similarity: Callable[[Tensor, Tensor], Tensor],
    tokenizer: CLIPTokenizer,
    stage: int,
    n: int,
    noise: float,
) -> Callable[[int], Tensor]:
    def loss(step: int) -> Tensor:
        pairs, variants, rng, g = world.batch(step, n, stage)
        captions = [draw_caption(s, o, rng, empty=0) for s, o in pairs]
        true = torch.from_numpy(np.stack([c.true_of[pairs[:, 0], pairs[:, 1]] for c in captions])).float()
        x = world.pixels(pairs, variants)
        if noise:
            x = disturb(x, rng, g, noise)
        return contrast(similarity(tokenize(tokenizer, [c.text for c in captions]), x), true)

    return loss


def train_clip(world: World, work: Path, steps: int) -> tuple[CLIPTokenizer, CLIPTextModel]:
    tokenizer = make_tokenizer(work / "tokenizer")
    torch.manual_seed(world.seed + 1)
    towers = TwoTowers(make_text_encoder(tokenizer))
    train("clip", towers, contrastive_loss(world, towers, tokenizer, 2, 128, 0.02), work, steps=steps, lr=1e-3)
    return tokenizer, towers.text.eval().requires_grad_(False)


def train_unet(
    world: World,
    work: Path,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    text: CLIPTextModel,
    steps: int,
    name: str = "unet",
    without: Sequence[str] = (),
    again: int = 0,
) -> UNet2DConditionModel:
    """SD's objective: epsilon prediction on scaled latents, 10 % empty captions; t is stratified over the batch.

    Args:
        without: names that no caption may hold; the world's pairs have none of them.
        again: steps of a second cosine.
    """
    latents = encode_bank(vae, world, work) * vae.config.scaling_factor
    alphas = make_scheduler().alphas_cumprod
    torch.manual_seed(world.seed + 2)
    unet = make_unet()
    memory: dict[str, Tensor] = {}

    @torch.no_grad()
    def embed(texts: list[str]) -> Tensor:
        new = sorted(set(texts) - set(memory))
        if new:
            memory.update(zip(new, text(tokenize(tokenizer, new)).last_hidden_state, strict=True))
        return torch.stack([memory[t] for t in texts])

    def loss(step: int) -> Tensor:
        n = 64
        pairs, variants, rng, g = world.batch(step, n, 3)
        cond = embed(captions(pairs, rng, without))
        z = latents[pairs[:, 0], pairs[:, 1], variants]
        t = ((torch.arange(n) + torch.rand(n, generator=g)) / n * 1000).long()
        noise = torch.randn(z.shape, generator=g)
        a = alphas[t].view(-1, 1, 1, 1)
        return F.mse_loss(unet(a.sqrt() * z + (1 - a).sqrt() * noise, t, cond).sample, noise)

    return train(name, unet, loss, work, steps=steps, lr=1e-3, ema=0.999, again=again)


# --- the judges -------------------------------------------------------------------------------------------------


def disturb(x: Tensor, rng: np.random.Generator, g: torch.Generator, noise: float) -> Tensor:
    """Gaussian noise, a slight blur and a change of contrast, so that a judge does not hang on single pixels."""
    x = x + torch.randn(x.shape, generator=g) * torch.rand(len(x), 1, 1, 1, generator=g) * noise
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = torch.lerp(x, blurred, torch.rand(len(x), 1, 1, 1, generator=g) * 0.7)
    gain = 1 + 0.2 * (torch.rand(len(x), 1, 1, 1, generator=g) - 0.5)
    return (1 - (1 - x) * gain).clamp(0, 1)


def disturb_again(x: Tensor, rng: np.random.Generator, g: torch.Generator) -> Tensor:
    """The second detector's: fewer pixels and back, colours and brightness a little off, noise, a patch torn out."""
    n = len(x)
    coarse = F.interpolate(x, size=int(rng.integers(18, 30)), mode="bilinear", antialias=True)
    coarse = F.interpolate(coarse, size=PIXELS, mode="bicubic")
    x = torch.lerp(x, coarse, torch.rand(n, 1, 1, 1, generator=g) * 0.9)
    x = 1 - (1 - x) * (1 + 0.24 * (torch.rand(n, 1, 1, 1, generator=g) - 0.5))
    x = x * (1 + 0.08 * (torch.rand(n, 3, 1, 1, generator=g) - 0.5))
    x = x + torch.randn(x.shape, generator=g) * torch.rand(n, 1, 1, 1, generator=g) * 0.1
    for i in np.flatnonzero(rng.random(n) < 0.3):
        side, (top, left) = int(rng.integers(4, 10)), rng.integers(0, 26, size=2)
        x[i, :, top : top + side, left : left + side] = 1.0 if rng.random() < 0.5 else float(x[i].mean())
    return x.clamp(0, 1)


def decoded_bank(world: World, work: Path, name: str) -> Tensor:
    """(pairs, 8, 3, 32, 32) uint8: what the bundled VAE makes of the renderings' latents, with up to 0.3 of noise: a
    detector that knew clean renderings alone could take the VAE's traces for a mark of pictures of nothing.
    """
    file = work / f"decoded-{name}.safetensors"
    if not file.exists():
        w = Workshop(world.images, world.pairs, world.seed)
        rows = []
        for variant in range(8):
            x = world.pixels(world.pairs, np.full(len(world.pairs), variant))
            z = w.encode(x)
            z = z + w.normal(*z.shape) * w.uniform(0, 0.3, len(z), 1, 1, 1)
            rows.append((w.decode(z) * 255).round().byte())
        save_file({"images": torch.stack(rows, 1).contiguous()}, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)
    return load_file(file)["images"]


def junk_bank(world: World, work: Path, name: str) -> Tensor:
    """(n, 3, 32, 32) uint8: JUNK pictures of each kind that the detector learns from."""
    file = work / f"junk-{name}.safetensors"
    if not file.exists():
        seed = world.seed * 10 + list(TRAINED).index(name)
        kinds = {kind: make(world.images, world.pairs, kind, JUNK, seed) for kind in TRAINED[name]}
        save_file(kinds, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)
    return torch.cat(list(load_file(file).values()))


def train_detector(
    name: str,
    net: EmojiClassifier | EmojiTransformer,
    disturbed: Callable[[Tensor, np.random.Generator, torch.Generator], Tensor],
    world: World,
    work: Path,
    stage: int,
    steps: int,
    lr: float,
    again: int = 0,
) -> nn.Module:
    """Cross entropy of both heads on 64 emoji, half of them decoded by the VAE, and 24 pictures of nothing."""
    decoded, junk = decoded_bank(world, work, name), junk_bank(world, work, name)
    nothing = torch.tensor([[len(STYLES), len(OBJECTS)]]).expand(24, 2)
    place = {(s, o): i for i, (s, o) in enumerate(world.pairs.tolist())}

    def loss(step: int) -> Tensor:
        pairs, variants, rng, g = world.batch(step, 64, stage)
        own = decoded[[place[s, o] for s, o in pairs[:32].tolist()], variants[:32] % decoded.shape[1]]
        junked = junk[rng.integers(len(junk), size=24)]
        x = torch.cat([own.float() / 255, world.pixels(pairs[32:], variants[32:]), junked.float() / 255])
        style, thing = net(disturbed(x, rng, g))
        target = torch.cat([torch.from_numpy(pairs), nothing])
        return F.cross_entropy(style, target[:, 0], label_smoothing=0.05) + F.cross_entropy(
            thing, target[:, 1], label_smoothing=0.05
        )

    return train(name, net, loss, work, steps=steps, lr=lr, ema=0.995, again=again)


def view(x: Tensor, rng: np.random.Generator, g: torch.Generator) -> Tensor:
    """One look at pictures: cropped, moved, mirrored, colours a little off; so little that a style stays what it is."""
    n = len(x)
    scale, flip = 0.75 + 0.35 * torch.rand(n, generator=g), torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    move = (torch.rand(n, 2, generator=g) - 0.5) * 0.3
    turn = torch.zeros(n, 2, 3)
    turn[:, 0, 0], turn[:, 1, 1], turn[:, :, 2] = scale * flip, scale, move
    x = 1 - F.grid_sample(1 - x, F.affine_grid(turn, list(x.shape), align_corners=False), align_corners=False)
    x = x * (1 + 0.16 * (torch.rand(n, 3, 1, 1, generator=g) - 0.5))
    return disturb(x, rng, g, 0.08)


class Expanded(nn.Module):
    """The features and the network that VICReg's loss looks through, which is thrown away afterwards."""

    def __init__(self, features: EmojiFeatures) -> None:
        super().__init__()
        self.features = features
        self.expand = nn.Sequential(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256))

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.features(x))


def vicreg(a: Tensor, b: Tensor) -> Tensor:
    """VICReg (Bardes et al. 2022, arXiv 2105.04906), with its weights 25, 25, 1."""
    spread, apart = torch.zeros(()), torch.zeros(())
    for z in (a - a.mean(0), b - b.mean(0)):
        spread = spread + F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2
        covariance = z.T @ z / (len(z) - 1)
        apart = apart + (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
    return 25 * F.mse_loss(a, b) + 25 * spread + apart


def train_features(worlds: tuple[World, World], work: Path, steps: int) -> EmojiFeatures:
    """Two views of each picture, one of either rendering; no label is looked at."""
    torch.manual_seed(worlds[0].seed + 7)
    net = Expanded(EmojiFeatures())

    def loss(step: int) -> Tensor:
        pairs, variants, rng, g = worlds[0].batch(step, 160, 9)
        x = torch.cat([view(world.pixels(pairs, variants), rng, g) for world in worlds])
        return vicreg(*net(x).chunk(2))

    train("features", net, loss, work, steps=steps, lr=2e-3, ema=0.995)
    return net.features


OPEN_CLIP = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": PIXELS, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": TOKENS, "vocab_size": 0, "width": 96, "heads": 3, "layers": 3},
}


def train_openclip(world: World, work: Path, steps: int) -> tuple[nn.Module, dict]:
    """A model of open_clip's own classes, trained by the same contrastive loss on disturbed images."""
    tokenizer = make_tokenizer(work / "tokenizer")
    config = json.loads(json.dumps(OPEN_CLIP))
    config["text_cfg"]["vocab_size"] = len(tokenizer)
    torch.manual_seed(world.seed + 4)
    net = open_clip.CLIP(**config)

    def similarity(ids: Tensor, images: Tensor) -> Tensor:
        i, t, scale = net(images * 2 - 1, ids)
        return scale.clamp(max=100) * t @ i.T

    train("openclip", net, contrastive_loss(world, similarity, tokenizer, 5, 96, 0.15), work, steps=steps, lr=1e-3)
    return net, config


# --- the folder -------------------------------------------------------------------------------------------------


def export(
    out: Path,
    work: Path,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    text: CLIPTextModel,
    unet: UNet2DConditionModel,
    clip: nn.Module,
    clip_config: dict,
) -> None:
    """Write out/emoji (a plain StableDiffusionPipeline folder) and out/judge/open_clip; fp16."""
    pipe = StableDiffusionPipeline(
        vae, text, tokenizer, unet, make_scheduler(), None, None, None, requires_safety_checker=False
    )
    pipe.to(dtype=torch.float16).save_pretrained(out / "emoji")
    # transformers would load in the dtype named there, diffusers loads in float32
    config = out / "emoji/text_encoder/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    folder = out / "judge/open_clip"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": clip_config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}, indent=1)
    )
    save_file({k: v.half().contiguous() for k, v in clip.state_dict().items()}, folder / "open_clip_model.safetensors")
    note_training(out, work)


def note_training(out: Path, work: Path) -> None:
    """Add what is known of the trained stages to out/training.json."""
    file = out / "training.json"
    training = json.loads(file.read_text()) if file.exists() else {}
    training |= {f.stem: json.loads(f.read_text()) for f in sorted(work.glob("*.json"))}
    file.write_text(json.dumps(dict(sorted(training.items())), indent=1) + "\n")
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / 1e6
    print(f"wrote {out}: {size:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"any of {', '.join(STAGES)}; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--data", type=Path, default=ROOT / "data/emoji")
    parser.add_argument("--work", type=Path, default=ROOT / "data/emoji/work", help="checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "advanchor/assets", help="where export writes")
    parser.add_argument("--vae-steps", type=int, default=4000)
    parser.add_argument("--clip-steps", type=int, default=2500)
    parser.add_argument("--unet-steps", type=int, default=9000)
    parser.add_argument("--openclip-steps", type=int, default=1500)
    parser.add_argument("--resnet-steps", type=int, default=2000)
    parser.add_argument("--vit-steps", type=int, default=3000)
    parser.add_argument("--vit-again", type=int, default=2500, help="steps of vit's second cosine")
    parser.add_argument("--features-steps", type=int, default=1500)
    args = parser.parse_args()
    stages = args.stages or list(STAGES)
    if unknown := set(stages) - set(STAGES):
        sys.exit(f"unknown stage {', '.join(sorted(unknown))}: choose from {', '.join(STAGES)}.")
    torch.set_num_threads(args.threads)

    images = bank(args.work, args.data, args.seed)
    world = World(images, seen_pairs(), args.seed)
    # A stage that is asked for trains; one that a later stage needs is loaded, or trained if it never was.
    if {"vae", "unet", "export"} & set(stages):
        vae = train_vae(world, args.work, args.vae_steps)
    if {"clip", "unet", "export"} & set(stages):
        tokenizer, text = train_clip(world, args.work, args.clip_steps)
    if {"unet", "export"} & set(stages):
        unet = train_unet(world, args.work, vae, tokenizer, text, args.unet_steps)
    if {"openclip", "export"} & set(stages):
        clip, config = train_openclip(world, args.work, args.openclip_steps)
    if "export" in stages:
        export(args.out, args.work, vae, tokenizer, text, unet, clip, config)
    classes = {"styles": STYLES, "objects": OBJECTS}
    if "resnet" in stages:
        torch.manual_seed(world.seed + 3)
        net = EmojiClassifier(**classes)
        train_detector("resnet", net, partial(disturb, noise=0.15), world, args.work, 4, args.resnet_steps, 3e-3)
        emoji_weights.save(net, classes, args.out / "judge/resnet")
    if {"vit", "features"} & set(stages):
        again = bank(args.work, args.data, args.seed + 1, "bank-again", augment_again)
    if "vit" in stages:
        torch.manual_seed(world.seed + 5)
        net = EmojiTransformer(**classes)
        other = World(again, other_pairs(args.seed), args.seed + 1)
        train_detector("vit", net, disturb_again, other, args.work, 8, args.vit_steps, 1e-3, args.vit_again)
        emoji_weights.save(net, classes, args.out / "judge/vit")
    if "features" in stages:
        net = train_features((world, World(again, seen_pairs(), args.seed)), args.work, args.features_steps)
        emoji_weights.save(net, {}, args.out / "judge/features")
    if {"resnet", "vit", "features"} & set(stages):
        note_training(args.out, args.work)


if __name__ == "__main__":
    main()
