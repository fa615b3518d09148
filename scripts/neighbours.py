"""The nearest neighbours of every concept of the emoji world: `near` of its yaml, the hardest of its kind to keep.

    python scripts/neighbours.py       # writes `near` into conf/concept/emoji/*.yaml

An object has OBJECTS of them: the KIN nearest of its superclass (assets/taxonomy.yaml), fewer where it has fewer, and
the nearest of all others. A style's are the OF_STYLES nearest styles. Near is the cosine of the two phrases'
embeddings, the text encoder's outputs at their end tokens: what it takes for alike is what an erasure hits first,
whatever people think.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from train_emoji import OBJECTS as THINGS
from train_emoji import ROOT, STYLES, TAXONOMY, article

from advanchor.build import build
from advanchor.compose import compose
from advanchor.lazy import F
from advanchor.protocols import Model

OBJECTS, KIN, OF_STYLES = 8, 4, 4  # neighbours of an object, how many of its superclass come first, of a style
FOLDER = ROOT / "conf/concept/emoji"


def phrase(name: str) -> str:
    return f"a {name} emoji" if name in STYLES else article(name)


def neighbours(model: Model, name: str) -> list[str]:
    """Those of a style or an object; of an object first those of its superclass, each part the nearest first."""
    pool, count = (STYLES, OF_STYLES) if name in STYLES else (THINGS, OBJECTS)

    def pooled(one: str) -> Any:
        return model.encode([phrase(one)])[0, model.end(phrase(one))]

    def above(one: str) -> Any:
        return TAXONOMY["objects"].get(one, {}).get("superclass")

    cosine = {one: float(F.cosine_similarity(pooled(name), pooled(one), dim=0)) for one in pool if one != name}
    nearest = sorted(cosine, key=lambda one: -cosine[one])
    kin = [one for one in nearest if name not in STYLES and above(one) == above(name)][:KIN]
    return [*kin, *(one for one in nearest if one not in kin)][:count]


def concepts() -> dict[str, Path]:
    """The yaml of every single concept, by its name."""
    named = {file: re.search(r"^name: (.+)$", file.read_text(), re.MULTILINE) for file in sorted(FOLDER.glob("*.yaml"))}
    return {found[1]: file for file, found in named.items() if found and found[1] in {*STYLES, *THINGS}}


def main() -> None:
    model = build(compose([]).model, "model").open("cpu")
    for name, file in concepts().items():
        listed = ", ".join(f"{other}: {phrase(other)}" for other in neighbours(model, name))
        rest = re.sub(r"^near: .*\n", "", file.read_text(), flags=re.MULTILINE)
        file.write_text(f"{rest}near: {{{listed}}}\n")


if __name__ == "__main__":
    main()
