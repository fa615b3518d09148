"""Train a U-Net that never learned some names, which an erasure of them is held against; or the same with everything.

    python scripts/build_emoji_data.py                                                        # first, once
    python scripts/train_reference.py --without fox,castle --seed 1 --out outputs/references/without-1
    python scripts/train_reference.py --seed 1 --out outputs/references/with-1                # with everything

It is the stage unet of train_emoji.py on the pairs of style and object that have none of these names, under captions
that say none of them. VAE and text encoder are the bundled ones, which do know the names. Like every stage it leaves a
checkpoint each minute under --work, and the same command goes on where it was killed. In the end --out holds
unet.safetensors, config.json and reference.json, which says what it was trained on; the last is written last.
"""

import argparse
import difflib
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from train_emoji import OBJECTS, ROOT, STYLES, World, bank, encode_bank, seen_pairs, train_unet

from advanchor.build import build
from advanchor.compose import compose
from advanchor.store import lock

BATCH = 64  # of the stage unet: pairs that it looks at together, no pair twice
SOURCES = ("train_emoji.py", "train_reference.py")


def asked(words: str) -> list[str]:
    """The names in "a,b", each once, in order of the alphabet.

    Raises:
        SystemExit: one of them is no style or object, or too few pairs would be left.
    """
    names = sorted({name for word in words.split(",") if (name := " ".join(word.split()))})
    for name in names:
        if name not in (*STYLES, *OBJECTS):
            close = difflib.get_close_matches(name, [*STYLES, *OBJECTS], 1)
            remedy = f"did you mean {close[0]}?" if close else "advanchor/assets/taxonomy.yaml has all of them."
            sys.exit(f"cannot leave out {name}, which is no style or object of the taxonomy: {remedy}")
    if (left := len(seen_pairs(names))) < BATCH:
        sys.exit(f"--without leaves {left} pairs of style and object, and a batch has {BATCH}: leave out fewer.")
    return names


def reference(images: Tensor, without: list[str], seed: int, steps: int, work: Path, out: Path, again: int = 0) -> None:
    """Train, or go on, and write `out`. What is unfinished lies in `work` under a name that says all it depends on."""
    pipe = build(compose([]).model, "model").open("cpu").pipe
    sources = b"".join((ROOT / "scripts" / name).read_bytes() for name in SOURCES)
    encoders = hashlib.sha256()
    for part in (pipe.vae, pipe.text_encoder):
        for name, tensor in sorted(part.state_dict().items()):
            encoders.update(name.encode() + tensor.contiguous().numpy().tobytes())
    about: dict[str, Any] = {
        "without": without,
        "seed": seed,
        "steps": steps,
        "again": again,
        "data": hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest(),
        "script": hashlib.sha256(sources).hexdigest(),
        "encoders": encoders.hexdigest(),
    }
    folder = work / f"references-{digest({name: about[name] for name in ('data', 'encoders')})}"  # they share latents
    world = World(images, seen_pairs(without), seed)
    with lock(folder / ".lock"):  # of several trainings that start together one encodes the pictures
        encode_bank(pipe.vae, world, folder)
    name = f"unet-{digest(about)}"
    unet = train_unet(world, folder, pipe.vae, pipe.tokenizer, pipe.text_encoder, steps, name, without, again)
    out.mkdir(parents=True, exist_ok=True)
    unet.save_config(out)
    save_file({name: t.contiguous() for name, t in unet.state_dict().items()}, out / "unet.part")
    os.replace(out / "unet.part", out / "unet.safetensors")
    (out / "reference.part").write_text(json.dumps(about, indent=1) + "\n")
    os.replace(out / "reference.part", out / "reference.json")


def digest(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", default="", metavar="NAMES", help="styles and objects to leave out: fox,noto")
    parser.add_argument("--seed", type=int, default=1, help="of start and batches; the bundled model's is 0")
    parser.add_argument("--steps", type=int, default=9000, help="the bundled model's are 9000")
    parser.add_argument("--again", type=int, default=0, help="steps of a second cosine after these")
    parser.add_argument("--out", type=Path, required=True, help="a folder of its own")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--data", type=Path, default=ROOT / "data/emoji")
    parser.add_argument("--work", type=Path, default=ROOT / "data/emoji/work", help="checkpoints")
    args = parser.parse_args()
    without = asked(args.without)
    if args.seed < 0 or args.steps < 1 or args.again < 0:
        sys.exit("--seed and --again must be at least 0, and --steps at least 1.")
    torch.set_num_threads(args.threads)
    with lock(args.work / ".lock"):
        images = bank(args.work, args.data, 0)
    reference(images, without, args.seed, args.steps, args.work, args.out, args.again)


if __name__ == "__main__":
    main()
