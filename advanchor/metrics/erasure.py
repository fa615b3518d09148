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
                hits = list(zip(shown.prompts, shown.right(judge), strict=True))
                parts = {
                    "": [hit for _, hit in hits],
                    "_in": [hit for p, hit in hits if p.kept == "in"],
                    "_cross": [hit for p, hit in hits if p.kept == "cross"],
                }
                if name == "erase" and len(labels := dict.fromkeys(p.label for p in shown.prompts)) > 1:
                    for label in labels:
                        parts[f":{label}"] = [hit for p, hit in hits if p.label == label]
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
