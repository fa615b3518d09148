"""What measures images of the emoji model: two detectors, label-free features and an open_clip model, all trained apart
from it and from each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from advanchor.concept import Concept
from advanchor.core import NOTHING, BadInput, Head, option
from advanchor.lazy import F, torch
from advanchor.prompts import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from advanchor.judges.emoji_classifier import EmojiClassifier
    from advanchor.judges.emoji_features import EmojiFeatures
    from advanchor.judges.emoji_transformer import EmojiTransformer

ASSETS = Path(__file__).parents[1] / "assets/judge"
BATCH = 128  # images that a detector looks at together


@cache
def _detector(name: str) -> EmojiClassifier | EmojiTransformer:
    from advanchor.judges.emoji_classifier import EmojiClassifier
    from advanchor.judges.emoji_transformer import EmojiTransformer
    from advanchor.judges.emoji_weights import load

    return load({"resnet": EmojiClassifier, "vit": EmojiTransformer}[name], ASSETS / name)


@cache
def _features() -> EmojiFeatures:
    from advanchor.judges.emoji_features import EmojiFeatures
    from advanchor.judges.emoji_weights import load

    return load(EmojiFeatures, ASSETS / "features")


@cache
def _clip() -> tuple[Any, Any]:
    import advanchor.torchvision_ops  # noqa: F401, I001  (before open_clip)
    import open_clip
    from transformers import CLIPTokenizer

    net = open_clip.create_model(f"local-dir:{ASSETS / 'open_clip'}")
    return net.float().eval().requires_grad_(False), CLIPTokenizer.from_pretrained(ASSETS / "open_clip")


@option("judge")
class EmojiJudge:
    """Judges 32 px emoji. `extractor` names the features behind FID, KID and CMMD: numbers of other extractors are not
    comparable. The two detectors are of different architectures and were trained on different renderings; each answers
    NOTHING for what is no emoji.
    """

    name: str
    version: int = 2
    extractor: str = "self-supervised convnet, 64 features, 32 px"
    perceptual: ClassVar = "lpips_emoji"
    embedder: ClassVar = "self-supervised convnet, 64 features, 32 px"
    judges: ClassVar = ("resnet", "vit")
    rejects: ClassVar = True

    def to(self, device: str) -> Self:
        """Itself: 32 px are judged on the CPU, wherever the model is, with the same bits."""
        return self

    def files(self) -> list[Path]:
        """Every file that the judge is made of, sorted."""
        return sorted(file for file in ASSETS.rglob("*") if file.is_file())

    def check(self, prompts: Sequence[Prompt], pixels: int) -> None:
        """Raise BadInput if the model's images are not 32 px wide, or a prompt's label is none of the detectors'."""
        if pixels != 32:
            raise BadInput(
                f"the emoji judge measures 32 px images and this model draws {pixels} px: "
                "set judge=none to draw without measuring."
            )
        for p in prompts:
            self.knows(p.head, p.label)

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if the concept names what the detectors cannot tell: known before a model is loaded."""
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
        """What a head can find; NOTHING is not among it."""
        classes: dict[str, list[str]] = json.loads((ASSETS / "resnet/config.json").read_text())
        return classes.get(f"{head}s", [])

    def find(
        self, images: Sequence[Image], heads: Sequence[Head] = ("style", "object"), by: str = ""
    ) -> dict[Head, list[str]]:
        """The likeliest style and object of each image by one detector (the first if `by` is empty), or NOTHING."""
        net = _detector(by or self.judges[0])
        names: dict[Head, list[str]] = {"style": [*net.styles, NOTHING], "object": [*net.objects, NOTHING]}
        parts = [net(x) for x in _pixels(images).split(BATCH)]
        places = dict(zip(names, (torch.cat(logits).argmax(1) for logits in zip(*parts, strict=True)), strict=True))
        return {head: [names[head][i] for i in places[head]] for head in heads}

    def features(self, images: Sequence[Image]) -> Tensor:
        """(n, 64), of a network that never saw a label."""
        return torch.cat([_features()(x) for x in _pixels(images).split(BATCH)])

    def distance(self, before: Sequence[Image], after: Sequence[Image]) -> Tensor:
        """(n,): LPIPS' form on the stages of the feature network, not comparable with the published AlexNet's."""
        return _features().distance(_pixels(before), _pixels(after))

    def embed(self, images: Sequence[Image]) -> Tensor:
        """The features at length 1, (n, 64)."""
        return F.normalize(self.features(images), dim=1)

    def similarity(self, images: Sequence[Image], texts: Sequence[str]) -> Tensor:
        """Cosine of each image with its text by the open_clip model, (n,) in [-1, 1]."""
        net, tokenizer = _clip()
        ids = tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=net.context_length, return_tensors="pt"
        ).input_ids
        shown = net.encode_image(_pixels(images) * 2 - 1, normalize=True)
        similarity: Tensor = (shown * net.encode_text(ids, normalize=True)).sum(-1)
        return similarity


def _pixels(images: Sequence[Image]) -> Tensor:
    """(n, 3, 32, 32) in [0, 1]."""
    import numpy as np

    return torch.from_numpy(np.stack([np.asarray(im) for im in images])).permute(0, 3, 1, 2).float() / 255
