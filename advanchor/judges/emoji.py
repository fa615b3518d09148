"""What measures images of the emoji model: a classifier (detector and features) and an open_clip model, both trained
apart from it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from advanchor.concept import Concept
from advanchor.core import BadInput, Head, option
from advanchor.lazy import F, torch
from advanchor.prompts import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from advanchor.judges.emoji_classifier import EmojiClassifier

ASSETS = Path(__file__).parents[1] / "assets/judge"


@cache
def _classifier() -> EmojiClassifier:
    from advanchor.judges.emoji_classifier import EmojiClassifier

    return EmojiClassifier.load(ASSETS / "classifier")


@cache
def _clip() -> tuple[Any, Any]:
    import advanchor.torchvision_ops  # noqa: F401, I001  (before open_clip)
    import open_clip
    from transformers import CLIPTokenizer

    net = open_clip.create_model(f"local-dir:{ASSETS / 'open_clip'}")
    return net.float().eval().requires_grad_(False), CLIPTokenizer.from_pretrained(ASSETS / "open_clip")


@option("judge")
class EmojiJudge:
    """Judges 32 px emoji. `extractor` names the features behind FID and KID: numbers of other extractors are not
    comparable.
    """

    name: str
    version: int = 1
    extractor: str = "emoji classifier, 64 features, 32 px"
    perceptual: ClassVar = "lpips_emoji"
    judges: ClassVar = ("resnet",)
    rejects: ClassVar = False

    def to(self, device: str) -> Self:
        """Itself: 32 px are judged on the CPU, wherever the model is, with the same bits."""
        return self

    def files(self) -> list[Path]:
        """Every file that the judge is made of, sorted."""
        return sorted(file for file in ASSETS.rglob("*") if file.is_file())

    def check(self, prompts: Sequence[Prompt], pixels: int) -> None:
        """Raise BadInput if the model's images are not 32 px wide, or a prompt's label is none of the classifier's."""
        if pixels != 32:
            raise BadInput(
                f"the emoji judge measures 32 px images and this model draws {pixels} px: "
                "set judge=none to draw without measuring."
            )
        for p in prompts:
            self.knows(p.head, p.label)

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if the concept names what the classifier cannot tell: known before a model is loaded."""
        other: Head = "style" if concept.kind == "object" else "object"
        for name in (concept.name, *concept.keep, *concept.near):
            self.knows(concept.kind, name)
        for name in concept.keep_cross:
            self.knows(other, name)

    def knows(self, head: Head, label: str) -> None:
        """Raise BadInput if no head can find it."""
        if label not in (known := self.labels(head)):
            which = f"use one of {', '.join(known)}, or" if known else "it finds objects and styles; use"
            raise BadInput(f"the emoji judge knows no {head} '{label}': {which} judge=none to draw without measuring.")

    def labels(self, head: Head) -> list[str]:
        """What a head can find."""
        classes: dict[str, list[str]] = json.loads((ASSETS / "classifier/config.json").read_text())
        return classes.get(f"{head}s", [])

    def find(
        self, images: Sequence[Image], heads: Sequence[Head] = ("style", "object"), by: str = ""
    ) -> dict[Head, list[str]]:
        """The likeliest style and object of each image."""
        style, thing = _classifier()(_pixels(images))
        found: dict[Head, list[str]] = {
            "style": [_classifier().styles[i] for i in style.argmax(1)],
            "object": [_classifier().objects[i] for i in thing.argmax(1)],
        }
        return {head: found[head] for head in heads}

    def features(self, images: Sequence[Image]) -> Tensor:
        """(n, 64)."""
        return _classifier().features(_pixels(images))

    def distance(self, before: Sequence[Image], after: Sequence[Image]) -> Tensor:
        """(n,): the form of LPIPS (Zhang et al. 2018, arXiv 1801.03924, eq. 1) with all weights 1 on the classifier's
        three feature maps: unit vectors over the channels at every place, squared difference, mean over places, sum
        over stages. Not comparable with the published AlexNet's.
        """
        pairs = zip(_classifier().stages(_pixels(before)), _classifier().stages(_pixels(after)), strict=True)
        return torch.stack(
            [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2)) for a, b in pairs]
        ).sum(0)

    def embed(self, images: Sequence[Image]) -> Tensor:
        """CLIP embeddings (n, d) of length 1."""
        embeddings: Tensor = _clip()[0].encode_image(_pixels(images) * 2 - 1, normalize=True)
        return embeddings

    def similarity(self, images: Sequence[Image], texts: Sequence[str]) -> Tensor:
        """Cosine of each image with its text, (n,) in [-1, 1]."""
        net, tokenizer = _clip()
        ids = tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=net.context_length, return_tensors="pt"
        ).input_ids
        similarity: Tensor = (self.embed(images) * net.encode_text(ids, normalize=True)).sum(-1)
        return similarity


def _pixels(images: Sequence[Image]) -> Tensor:
    """(n, 3, 32, 32) in [0, 1]."""
    import numpy as np

    return torch.from_numpy(np.stack([np.asarray(im) for im in images])).permute(0, 3, 1, 2).float() / 255
