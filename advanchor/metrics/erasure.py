"""Is the concept still drawn, and are the others? Shares of images in which the judge's detector finds what the prompt
names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

from advanchor.core import Scores, option, share
from advanchor.images import Images
from advanchor.metrics.detectors import verdicts
from advanchor.prompts import Prompt
from advanchor.protocols import Judge


@option("metric")
class Erasure:
    """`erasure/hit`, `keep/hit`, `keep/hit_in` (kept concepts of the erased one's kind), `keep/hit_cross` (other kind)
    and `keep/hit_near` (its neighbours, which are not in `keep/hit`), each also `@base` for the unedited model's images
    of the same prompts and seeds, and `erasure/rate` = 1 - hit / hit@base. Of several erased concepts each has its own
    as well, `erasure/hit:fox`.

    By the judge's second detector they are called `erasure/hit2`, `keep/hit2_in` and so on. `erasure/agree` and
    `keep/agree`: share of the images of which both say the same, found or not.

    A detector that finds nothing in the unedited model's images can prove no erasure: then there is no `erasure/rate`.
    """

    sets: ClassVar = ("erase", "keep", "near", "erase@base", "keep@base", "near@base")
    name: str
    version: int = 2

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        scores: Scores = {}
        for which in ("", "@base"):
            for name, subset in (("erase", "erasure"), ("keep", "keep"), ("near", "keep")):
                shown = images[name + which]
                said = verdicts(judge, partial(shown.right, judge)) if shown.prompts else {}
                if name != "near" and (same := said.get("agree")):
                    scores[f"{subset}/agree{which}"] = share(same, "higher")
                for by in said.keys() - {"agree"}:
                    for part, right in parts(name, shown.prompts, said[by]).items():
                        scores[f"{subset}/hit{by}{part}{which}"] = share(
                            right, "lower" if name == "erase" else "higher"
                        )
        before, after = scores["erasure/hit@base"], scores["erasure/hit"]
        if before["value"] > 0:
            rate = 1 - after["value"] / before["value"]
            scores["erasure/rate"] = {"value": rate, "n": after["n"], "better": "higher"}
        return scores


def parts(name: str, prompts: Sequence[Prompt], right: Sequence[bool]) -> dict[str, list[bool]]:
    """What a set's images are counted as, {"_in": ..., ":fox": ...}; "" is all of them. Empty ones are left out."""
    hits = list(zip(prompts, right, strict=True))
    if name == "near":
        return {"_near": [hit for _, hit in hits]}
    found = {"": [hit for _, hit in hits]}
    if name == "keep":
        found |= {f"_{kept}": [hit for p, hit in hits if p.kept == kept] for kept in ("in", "cross")}
    elif len(labels := dict.fromkeys(p.label for p in prompts)) > 1:
        found |= {f":{label}": [hit for p, hit in hits if p.label == label] for label in labels}
    return {part: chosen for part, chosen in found.items() if chosen}
