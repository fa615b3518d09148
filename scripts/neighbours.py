"""The nearest neighbours of every concept of the emoji world: `near` of its yaml, the hardest of its kind to keep.

    python scripts/neighbours.py       # writes `near` into conf/concept/emoji/*.yaml

An object's are the objects of its superclass (assets/taxonomy.yaml) that are nearest to it, and where it has fewer than
OBJECTS of them the nearest of all others; a style's are the nearest styles. Near is the cosine of the two phrases'
embeddings, the text encoder's outputs at their end tokens.
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

OBJECTS, OF_STYLES = 8, 4  # neighbours of an object, of a style
FOLDER = ROOT / "conf/concept/emoji"


def phrase(name: str) -> str:
    return f"a {name} emoji" if name in STYLES else article(name)


def neighbours(model: Model, name: str) -> list[str]:
    """Those of a style or an object, the nearest first, an object's own superclass before all others."""
    pool, count = (STYLES, OF_STYLES) if name in STYLES else (THINGS, OBJECTS)

    def pooled(one: str) -> Any:
        return model.encode([phrase(one)])[0, model.end(phrase(one))]

    def place(other: str) -> tuple[bool, float]:
        above = [TAXONOMY["objects"].get(one, {}).get("superclass") for one in (name, other)]
        return above[0] != above[1], -float(F.cosine_similarity(pooled(name), pooled(other), dim=0))

    return sorted((other for other in pool if other != name), key=place)[:count]


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
