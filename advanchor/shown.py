"""Sets of images that are drawn when somebody asks for them, and what the unedited model draws under an anchor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from advanchor.concept import Concept, Concepts
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

    conditions = read_tensors(file)
    wanted: list[Prompt] = []
    under = {}
    for one in concept.parts:
        for i, template in enumerate(one.templates):
            text = fill(template, "", one.phrase)
            under[text] = conditions[one.name][i]
            wanted += [Prompt(text, seed, one.kind, one.name) for seed in range(sample.erase)]

    def paint(group: Sequence[Prompt]) -> list[Any]:
        return model.draw(group, cond=torch.stack([under[p.text] for p in group]), **sample.looks)

    return draw(paint, wanted, folder, batch=batch, label="anchor")


class Shown(dict[str, Images]):
    """Sets of images by name; one that is rarely wanted is drawn when it is asked for."""

    def __init__(self, later: Mapping[str, Callable[[], Images]]) -> None:
        super().__init__()
        self.later = later

    def __missing__(self, name: str) -> Images:
        self[name] = self.later[name]()
        return self[name]
