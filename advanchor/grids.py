"""The picture that a person sees of a finished run: the same prompts and seeds before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from advanchor.images import Images
from advanchor.prompts import Prompt
from advanchor.store import finish, part_of


def grid(images: Mapping[str, Images], concept: str, path: Path) -> None:
    """The same prompts and seeds before and after, in pairs of rows: erased concept, its neighbours, kept concepts of
    its kind, of the other kind.
    """
    kept = {where: [p for p in images["keep"].prompts if p.kept == where] for where in ("in", "cross")}
    bands = [
        (f"erased: {concept}", "erase", list(images["erase"].prompts)),
        ("kept: nearest neighbours", "near", list(images["near"].prompts)),
        ("kept: same kind", "keep", kept["in"]),
        ("kept: other kind", "keep", kept["cross"]),
    ]
    rows = [
        (title, spread(prompts, 12), {"before": images[f"{name}@base"], "after": images[name]})
        for title, name, prompts in bands
        if prompts
    ]
    pasted(rows, path)


def anchor_grid(before: Images, under: Images, path: Path) -> None:
    """The same sentences and seeds before and under the anchor, in pairs of rows: a pair for each seed that fits, the
    sentences side by side, of several concepts each by itself.
    """
    rows = []
    for name in dict.fromkeys(p.label for p in under.prompts):
        own = [p for p in under.prompts if p.label == name]
        for seed in sorted({p.seed for p in own})[:4]:
            some = spread([p for p in own if p.seed == seed], 12)
            rows.append((f"{name}, seed {seed}", some, {"before": before, "anchor": under}))
    pasted(rows, path)


def pasted(bands: Sequence[tuple[str, Sequence[Prompt], Mapping[str, Images]]], path: Path) -> None:
    """Bands of pictures, each a title, its prompts, and a row for each of its sets."""
    from PIL import Image, ImageDraw

    first = next(iter(bands[0][2].values()))
    side = first.pictures.open(first.root / bands[0][1][0].file).width
    scale = max(1, 64 // side)
    cell = min(side * scale, 192)
    height = 6 + sum(len(sets) * (cell + 4) + 22 for _, _, sets in bands)
    page = Image.new("RGB", (70 + 12 * (cell + 4), height), "white")
    draw, y = ImageDraw.Draw(page), 6
    for title, prompts, sets in bands:
        draw.text((6, y), title, fill="black")
        y += 16
        for label, shown in sets.items():
            draw.text((6, y + cell // 2 - 6), label, fill="black")
            for column, prompt in enumerate(prompts):
                tile = shown.pictures.open(shown.root / prompt.file)
                tile = tile.resize((cell, cell), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
                page.paste(tile, (70 + column * (cell + 4), y))
            y += cell + 4
        y += 6
    page.save(part_of(path), format="PNG")
    finish(path)


def spread(prompts: Sequence[Prompt], n: int) -> list[Prompt]:
    """Up to n prompts, evenly over the list, so that a row shows as many concepts and sentences as it can."""
    return [prompts[i * len(prompts) // n] for i in range(n)] if len(prompts) > n else list(prompts)
