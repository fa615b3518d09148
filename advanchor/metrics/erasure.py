"""Is the concept still drawn, and are the others? Shares of images in which the judge's detector finds what the prompt
names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advanchor.core import Scores, option, share
from advanchor.images import Images
from advanchor.protocols import Judge


@option("metric")
class Erasure:
    """`erasure/hit`, `keep/hit`, `keep/hit_in` (kept concepts of the erased one's kind), `keep/hit_cross` (other kind),
    each also `@base` for the unedited model's images of the same prompts and seeds, and `erasure/rate` = 1 - hit /
    hit@base. Of several erased concepts each has its own as well, `erasure/hit:fox`.

    A detector that finds nothing in the unedited model's images can prove no erasure: then there is no `erasure/rate`.
    """

    sets: ClassVar = ("erase", "keep", "erase@base", "keep@base")
    name: str
    version: int = 1

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for which in ("", "@base"):
            for name, subset in (("erase", "erasure"), ("keep", "keep")):
                shown = images[name + which]
                hits = [(p.kept, right) for p, right in zip(shown.prompts, shown.right(judge.find), strict=True)]
                parts = {
                    "": [h for _, h in hits],
                    "_in": [h for k, h in hits if k == "in"],
                    "_cross": [h for k, h in hits if k == "cross"],
                }
                if name == "erase" and len(labels := dict.fromkeys(p.label for p in shown.prompts)) > 1:
                    parts |= {
                        f":{label}": [h for p, (_, h) in zip(shown.prompts, hits, strict=True) if p.label == label]
                        for label in labels
                    }
                for part, values in parts.items():
                    if values:
                        scores[f"{subset}/hit{part}{which}"] = share(values, "lower" if name == "erase" else "higher")
        before, after = scores["erasure/hit@base"], scores["erasure/hit"]
        if before["value"] > 0:
            scores["erasure/rate"] = {
                "value": 1 - after["value"] / before["value"],
                "n": after["n"],
                "better": "higher",
            }
        return scores
