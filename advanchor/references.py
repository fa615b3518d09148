"""Models that never learned a concept: the folders that scripts/train_reference.py makes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advanchor.core import BadInput

MADE = "scripts/train_reference.py makes such folders"


def about(folder: str) -> dict[str, Any]:
    """What a folder says of the model in it: `without`, `seed`, and how it was trained.

    Raises:
        BadInput: it is no such folder.
    """
    place = Path(folder).expanduser()
    for name in ("unet.safetensors", "reference.json"):
        if not (place / name).is_file():
            raise BadInput(f"{folder} holds no {name}: name the folder of a finished model; {MADE}.")
    try:
        told = json.loads((place / "reference.json").read_text())
        return {"again": 0, **told, "without": [str(name) for name in told["without"]], "seed": int(told["seed"])}
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{place / 'reference.json'} is damaged: train the model again; {MADE}.") from None


def ignorant(folder: str, concepts: Sequence[str], setting: str) -> None:
    """Raise BadInput if the model in a folder, which a setting names, learned one of the concepts."""
    without = about(folder)["without"]
    for name in concepts:
        if name not in without:
            lacks = ", ".join(without) or "nothing"
            raise BadInput(f"{setting}: {folder} was trained without {lacks}, and {name} is erased: {MADE}.")
