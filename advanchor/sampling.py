"""Prompts in, one file per (text, seed) out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from advanchor.concept import Prompt
from advanchor.core import Images
from advanchor.store import lock

if TYPE_CHECKING:
    from PIL.Image import Image


def draw(paint: Callable[[Sequence[Prompt]], list[Image]], prompts: Sequence[Prompt], folder: Path, *, batch: int, label: str) -> Images:
    """Let `paint` draw what `folder` does not hold yet and return all of it.

    Prompts are cut into batches at fixed places and a batch with a missing file is drawn whole, so that a resumed run
    computes the same batches as an undisturbed one. (Another batch size changes an image by rounding only.)
    """
    with lock(folder / ".lock"):
        batches = [prompts[i : i + batch] for i in range(0, len(prompts), batch)]
        waiting = [b for b in batches if not all((folder / p.file).exists() for p in b)]
        with tqdm(total=sum(map(len, waiting)), desc=f"draw {label}", unit="image", leave=False) as bar:
            for group in waiting:
                for prompt, image in zip(group, paint(group), strict=True):
                    target = folder / prompt.file
                    if not target.exists():
                        image.save(target.with_suffix(".part"), format="PNG")
                        os.replace(target.with_suffix(".part"), target)
                bar.update(len(group))
    return Images(folder, prompts)
