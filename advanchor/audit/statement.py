"""What a record states of a finished run: an in-toto Statement v1 (https://in-toto.io/Statement/v1) whose subjects are
the edit and, where somebody names it, the exported model's weights.

The predicate is ours, `urn:advanchor:audit:v1`: what was changed, with which settings and by which code, what was
measured, with how many pictures and which interval, by whom, and what all of that does not show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from advanchor.audit.drawn import PROMPTS
from advanchor.exchange.card import shared

TYPE = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:advanchor:audit:v1"
STATEMENT = "statement.json"
PAGE = "AUDIT.md"
EDIT = "edit.safetensors"
ANCHOR = "anchor.safetensors"
ELSEWHERE = ("root=", "longest=", "config_dir=", "gate=", "gate.", "tracker=", "tracker.")
FOLDER = re.compile(r"(?<![\w.}/@-])(?:~?/)(?:[^\s/,'\"\]}]+/)*([^\s/,'\"\]}]+)/?")


def statement(subjects: Mapping[str, str], predicate: Mapping[str, Any]) -> dict[str, Any]:
    """Args: subjects: name -> sha256."""
    named = [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()]
    return {"_type": TYPE, "subject": named, "predicateType": PREDICATE, "predicate": dict(predicate)}


def command(words: Sequence[str]) -> list[str]:
    """A run's words without what says where things lie on this machine: of an absolute path its last name stays."""
    return [FOLDER.sub(r"\1", word) for word in words if not word.startswith(ELSEWHERE)]


def predicate(
    result: Mapping[str, Any],
    words: Sequence[str],
    measured: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, Any],
    judge: Mapping[str, Any],
    prompts: Mapping[str, Any],
    gate: Mapping[str, Any],
) -> dict[str, Any]:
    """All that is stated but the digests of the record's own files.

    Args:
        result: of the run.
        words: that make it.
        measured: every score as its metric left it, with the code that made it.
        weights: the unedited model's: its name, and its files' digests.
        judge: its name, detectors, and files' digests.
        prompts: how many of each set, and the digest of their list.
        gate: whether one was asked for, and what it said.
    """
    config = shared(result["config"])
    scores = {
        name: {**score, **({"code": measured[name]["code"]} if name in measured else {})}
        for name, score in result["scores"].items()
    }
    attacks = {
        name: {
            "settings": settings,
            "attacked_images": scores[f"attack/{name}/asr"]["n"],
            "controls": [one for one in ("chance", "never") if f"attack/{name}/{one}" in scores],
        }
        for name, settings in config.get("attack", {}).items()
        if f"attack/{name}/asr" in scores
    }
    return {
        "run": result["run"],
        "command": command(words),
        "model": dict(weights),
        **{group: config[group]["name"] for group in ("concept", "anchor", "method")},
        "seed": config["seed"],
        "config": config,
        "changed": result["changed"],
        "diagnostics": result["diagnostics"],
        "prompts": dict(prompts),
        "cut": result["cut"],
        "judge": dict(judge),
        "scores": scores,
        "attacks": attacks,
        "gate": dict(gate),
        "pictures": result["pictures"],
        "code": result["provenance"],
        "environment": result["environment"],
        "stages": result["stages"],
        "does_not_show": limits(sum(prompts["count"].values()), sorted(attacks)),
    }


def limits(pictures: int, attacks: Sequence[str]) -> list[str]:
    """What a record does not show, a sentence each.

    Args:
        pictures: how many were drawn with each model.
    """
    tried = (
        f"The attacks that were tried are {', '.join(attacks)}, each with the effort that is stated. Others, or more "
        "effort, may bring the concept back."
        if attacks
        else "No attack was tried. A few steps of further training, or other words, may bring the concept back."
    )
    return [
        "This is no certificate. It says what one run of a program measured; whoever ran it vouches for nothing more.",
        f"Only the {pictures} pictures that {PROMPTS} lists were drawn with each model. Other words, other languages, "
        "other seeds and other sampling settings were not tried, nor were pictures given to the model to start from.",
        "The judges are neural networks. They err, they do not find what they never learned, and what they do not find "
        "may still be seen by a person.",
        tried,
        "Each interval is over the prompts of this one training. How far another training of the same settings would "
        "differ is unknown.",
        "Of the concepts that should stay, only those in the list of prompts were looked at.",
        f"The edit can help to find or to restore the concept. Whoever has {EDIT} and the original model sees which "
        "weights changed, and so where the concept sat, the more plainly the fewer changed.",
        "It does not show what else was run and is not told here. The log of the runs, audit.jsonl, has each that "
        "began.",
        "Digests show that a file is the same as when the record was made. They do not show that the numbers are true: "
        "`advanchor verify --recompute` measures again. Whoever rewrites every file, SHA256SUMS too, is found by the "
        "signature or by a copy of SHA256SUMS' digest that lies elsewhere, and by nothing else.",
    ]
