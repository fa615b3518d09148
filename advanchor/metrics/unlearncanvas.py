"""The three accuracies of UnlearnCanvas (Zhang et al. 2024, arXiv 2402.11846), by the judge's classifier on the edited
model's images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from advanchor.core import Head, Scores, option, share
from advanchor.images import Images
from advanchor.metrics.detectors import known, other
from advanchor.prompts import Prompt
from advanchor.protocols import Judge


class Asked(NamedTuple):
    """One image of a set, and what one head of the judge should find in it."""

    which: str
    place: int
    text: str
    head: Head
    label: str


def asked(prompts: Mapping[str, Sequence[Prompt]], labels: Mapping[Head, Sequence[str]]) -> dict[str, list[Asked]]:
    """What each accuracy counts: {"ua", "ira", "cra"}, some of which may be empty.

    UnlearnCanvas draws every style with every object, and each accuracy of a domain is over all images
    (machine_unlearning/evaluation/quantitative/accuracy.py): that of a style over its images of all objects, of an
    object over its images in all styles, the erased one's among them. So an image counts twice if its sentence names
    two things: "a fox in noto style" for foxes and for noto. A prompt has one label; the other thing is the one word of
    `labels` of the other domain that stands in its sentence and is not erased (detectors.other). A sentence with none,
    or several, is asked for its own alone. Every pair has as many images there, so of each sentence /ira and /cra take
    the first ones, as many as the sentence with the fewest has: sample.erase alone would decide /cra otherwise.

    Args:
        labels: what the judge can find by each of the heads that are measured.
    """
    erased = {(p.head, p.label) for p in prompts["erase"]}
    found: dict[str, list[Asked]] = {"ua": [], "ira": [], "cra": []}
    for which in ("erase", "keep"):
        for place, p in enumerate(prompts[which]):
            own, rest = ("cra", "ira") if p.kept == "cross" else ("ira", "cra")
            found["ua" if which == "erase" else own].append(Asked(which, place, p.text, p.head, p.label))
            if (also := other(p, labels, erased)) is not None:
                found[rest].append(Asked(which, place, p.text, *also))
    return {name: ones if name == "ua" else balanced(ones) for name, ones in found.items()}


def balanced(ones: Sequence[Asked]) -> list[Asked]:
    """The first images of each sentence, as many as the sentence with the fewest has."""
    each: dict[tuple[str, str], list[Asked]] = {}
    for one in ones:
        each.setdefault((one.text, one.label), []).append(one)
    fewest = min(map(len, each.values()), default=0)
    return [one for same in each.values() for one in same[:fewest]]


@option("metric")
class UnlearnCanvas:
    """UnlearnCanvas' accuracies; `asked` says what is counted.

    `unlearncanvas/ua`: unlearning accuracy, share of images of the erased concept in which the judge finds another of
    its domain. `/ira`: in-domain retain accuracy, share of images of other concepts of its domain in which it finds
    them. `/cra`: cross-domain retain accuracy, the same of the other domain, also in images of the erased concept.

    Where we differ: the paper's grid is complete, ours is what the concept's sentences name; where it has holes the
    share over images is not quite the mean of the labels' shares. Under bare names (conf/concept/emoji_set) no sentence
    names two things, so there /cra is over the other domain's own images alone.
    """

    sets: ClassVar = ("erase", "keep")
    name: str
    version: int = 2

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        heads = sorted({p.head for name in self.sets for p in images[name].prompts})
        found = {name: images[name].found(judge, heads) for name in self.sets}
        scores: Scores = {}
        for name, ones in asked({name: images[name].prompts for name in self.sets}, known(judge, heads)).items():
            right = [found[one.which][one.head][one.place] == one.label for one in ones]
            if right:
                score = share([ok != (name == "ua") for ok in right], "higher")
                scores[f"unlearncanvas/{name}"] = {**score, "texts": [one.text for one in ones]}
        return scores
