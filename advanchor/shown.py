"""Sets of images that are drawn when somebody asks for them, what the unedited model draws under an anchor, and where
what a judge sees in images is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from advanchor.concept import Concept, Concepts
from advanchor.identity import key
from advanchor.images import Images, draw
from advanchor.naming import fill
from advanchor.prompts import Prompt, Sample
from advanchor.protocols import Model
from advanchor.store import read_tensors


def drawn_under(
    file: Path, model: Model, concept: Concept | Concepts, sample: Sample, folder: Path, batch: int
) -> Images:
    """What the unedited model draws under the finished anchors in `file`, for each concept's own sentences.

    It is shared by all runs that have the same anchors.
    """
    import torch

    conditions, under = read_tensors(file), {}
    for one in concept.parts:
        for i, template in enumerate(one.templates):
            under[fill(template, "", one.phrase)] = conditions[one.name][i]

    def paint(group: Sequence[Prompt]) -> list[Any]:
        return model.draw(group, cond=torch.stack([under[p.text] for p in group]), **sample.looks)

    return draw(paint, asked_under(concept, sample), folder, batch=batch, label="anchor")


def asked_under(concept: Concept | Concepts, sample: Sample) -> list[Prompt]:
    """The images to draw under an anchor: of each concept each of its own sentences, with as many seeds as others."""
    return [
        Prompt(fill(template, "", one.phrase), seed, one.kind, one.name)
        for one in concept.parts
        for template in one.templates
        for seed in range(sample.erase)
    ]


def folder_under(file: Path, model: DictConfig, sample: Sample, drawn_by: str) -> str:
    """What the folder of those images is called.

    Args:
        file: the finished anchors.
        drawn_by: the code that draws.
    """
    return f"anchor-{key(model, sample.looks, drawn_by, hashlib.sha256(file.read_bytes()).hexdigest())}"


def recorded_by(shown: Images, settings: DictConfig, seen_by: str) -> Images:
    """The same images; what the judge of these settings and this `stamps.seeing` sees in them is kept beside them."""
    return replace(shown, record=shown.root / f"seen-{key(settings, seen_by)}")


class Shown(dict[str, Images]):
    """Sets of images by name; one that is rarely wanted is drawn when it is asked for."""

    def __init__(self, later: Mapping[str, Callable[[], Images]]) -> None:
        super().__init__()
        self.later = later

    def __missing__(self, name: str) -> Images:
        self[name] = self.later[name]()
        return self[name]
