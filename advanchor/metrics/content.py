"""Did the rest of the picture survive? What else the sentences of the erased concept name should still be drawn."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from advanchor.core import Head, Scores, mean, option, share
from advanchor.images import Images
from advanchor.metrics.detectors import Thing, known, other, verdicts
from advanchor.metrics.sound import finite
from advanchor.protocols import Judge

BESIDE: dict[Head, Head] = {"object": "style", "style": "object"}  # by which head the other thing is found


def content(judge: Judge, shown: Images, erased: Collection[Thing]) -> Scores:
    """`hit`, `hit2`, `agree`: share of the images in which the other thing that their sentence names is found (`other`
    says which that is). Sentences that name nothing else are left out; no score if none does.
    """
    heads = sorted({BESIDE[p.head] for p in shown.prompts if p.head in BESIDE})
    can = known(judge, heads)
    asked = [(i, p.text, thing) for i, p in enumerate(shown.prompts) if (thing := other(p, can, erased)) is not None]
    if not asked:
        return {}

    def there(by: str) -> list[bool]:
        found = shown.found(judge, sorted(can), by)
        return [found[head][i] == label for i, _, (head, label) in asked]

    texts = [text for _, text, _ in asked]
    return {
        said if said == "agree" else f"hit{said}": {**share(right, "higher"), "texts": texts}
        for said, right in verdicts(judge, there).items()
    }


def things(shown: Images) -> set[Thing]:
    """What these prompts ask for."""
    return {(p.head, p.label) for p in shown.prompts}


@option("metric")
class Content:
    """What is left of the rest of the erased concept's pictures, each score also `@base`. Higher is better.

    `content/hit` (`content/hit2` by the judge's second detector, `content/agree`): share of the images of the erased
    concept's prompts in which the other thing that the sentence names is found: "a twemoji emoji of a penguin" the
    penguin, "a fox in noto style" the style noto. Of all that is erased together nothing is asked for.

    `content/clip`: where the judge has no second head for it, as for objects of Stable Diffusion, 100 x CLIP similarity
    of the image to its sentence with the superclass in the concept's place ("a photo of a building" for "a photo of a
    church"). It says less: a picture can fit that sentence with nothing else of it left.
    """

    sets: ClassVar = ("erase", "erase@base")
    name: str
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for which in ("", "@base"):
            shown = images[f"erase{which}"]
            for said, score in content(judge, shown, things(images["erase"])).items():
                scores[f"content/{said}{which}"] = score
            alone = [
                (i, p.instead)
                for i, p in enumerate(shown.prompts)
                if p.instead and not (p.head in BESIDE and judge.labels(BESIDE[p.head]))
            ]
            if alone:
                pictures, texts = [shown.pictures[i] for i, _ in alone], [text for _, text in alone]
                similar = finite(judge.similarity(pictures, texts), self.name, f"similarities of `erase{which}`")
                scores[f"content/clip{which}"] = {**mean((100 * similar).tolist(), "higher"), "texts": texts}
        return scores
