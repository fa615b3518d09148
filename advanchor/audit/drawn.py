"""What a record drew: every prompt and seed as a CSV file, written and read back."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from advanchor.prompts import Prompt

PROMPTS = "prompts.csv"
COLUMNS = ("set", "prompt", "seed", "looked_for", "kind", "kept")


def listing(prompts: Mapping[str, Sequence[Prompt]]) -> str:
    """Every prompt and seed of each set of images, in order."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(COLUMNS)
    for name, group in prompts.items():
        lines.writerows((name, p.text, p.seed, p.label, p.head, p.kept) for p in group)
    return text.getvalue()


def counted(prompts: Mapping[str, Sequence[Prompt]]) -> dict[str, Any]:
    """How many there are of each set, and the digest of their list."""
    digest = hashlib.sha256(listing(prompts).encode()).hexdigest()
    return {"file": PROMPTS, "sha256": digest, "count": {name: len(group) for name, group in prompts.items()}}


def asked(folder: Path) -> dict[str, list[Prompt]]:
    """The prompts of a record, by set.

    Raises:
        ValueError: the file is not as `listing` writes it.
    """
    found: dict[str, list[Prompt]] = {}
    with (folder / PROMPTS).open(newline="", encoding="utf-8") as lines:
        for one in csv.DictReader(lines):
            kind, kept = cast(Any, one["kind"]), cast(Any, one["kept"])
            prompt = Prompt(one["prompt"], int(one["seed"]), kind, one["looked_for"], kept)
            found.setdefault(one["set"], []).append(prompt)
    return found
