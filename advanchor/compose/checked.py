"""Overrides in, one checked config out."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from advanchor.build import check
from advanchor.compose.composed import hydra_node, settings
from advanchor.compose.guard import guard
from advanchor.compose.sentences import known_keys, sentences
from advanchor.compose.writing import quoted, shell
from advanchor.core import BadInput, show

MERGED = (
    "concept.keep",
    "concept.preserve",
    "concept.keep_cross",
    "concept.near",
)  # where another value would be added to the first
NAMES = re.compile(r"(model|judge|concept|anchor|method|tracker|gate|metric\.\w+|attack\.\w+)\.(name|_target_)")
PARTS = (
    *("model", "judge", "concept", "anchor", "method", "tracker", "sample", "seed", "batch", "device", "root"),
    *("study", "stage", "table", "paper", "sweeps", "tune", "gate"),
)
LISTS = {"metric": "metric=[erasure,fid]", "attack": "attack=[synonyms,relearn]"}
HOLD_SETTINGS = {
    "sample": "sample.steps=20",
    "table": "table.rows=[anchor]",
    "paper": "paper={}",
    "tune": "tune.trials=40",
    "gate": "gate.found=0.1",
}


def compose(overrides: Sequence[str]) -> DictConfig:
    """One checked config from overrides.

    Raises:
        BadInput: an unknown option, a misspelt or missing setting, a value of the wrong type or range, a missing model
            folder; or Hydra is told to do what is not for a config to decide (`guard`).
    """
    deleted = {o.partition("=")[0] for o in overrides if o.startswith("~")}
    for line in overrides:
        name = line.partition("=")[0].lstrip("+")
        group, _, leaf = name.partition(".")
        merged = name in MERGED and "=" in line and f"~{name}" not in deleted
        if merged and leaf in known_keys(group, [o for o in overrides if o != line]):
            raise BadInput(
                f"{name}=... would be merged with what the concept has: replace it whole with "
                f"`~{name} +{name}={{...}}`, or edit the concept's yaml."
            )
        if NAMES.fullmatch(name) and name != "concept.name":
            what = "is what tables and files call it" if name.endswith(".name") else "says which class it is"
            raise BadInput(f"{name} {what}, and is not for a command to change: leave it out.")
    cfg = settings(overrides)
    with sentences(overrides):
        guard(hydra_node(overrides), overrides)
        shape(cfg)
        place(cfg)
        check(cfg)
    return cfg


def place(cfg: DictConfig) -> None:
    """`root` as a folder, `~` expanded. Nothing is written, and it need not exist.

    Raises:
        BadInput: it is no name, or something that is no folder stands there.
    """
    root = cfg.get("root")
    if isinstance(root, bool | int | float):
        root = show(root)
        raise BadInput(f"root={root} is no text: write {shell(f'root={quoted(str(root))}')} for a folder of that name.")
    if not isinstance(root, str) or not root.strip():
        raise BadInput(f"root={show(root)} will not do: name the folder for runs and store, such as root=outputs.")
    cfg.root = os.path.expanduser(root)
    try:
        there = next(p for p in (Path(cfg.root), *Path(cfg.root).absolute().parents) if p.exists())
    except OSError as error:
        raise BadInput(f"root={root} cannot be a folder ({error.strerror}): choose another.") from None
    if not there.is_dir():
        raise BadInput(f"root={root} cannot be a folder, since {there} is a file: choose another.")


def shape(cfg: DictConfig) -> None:
    """What every other check takes for granted: every reference in a config leads somewhere, and what holds settings
    holds them.

    Raises:
        BadInput: it does not.
    """
    for name in PARTS:
        if name not in cfg:
            raise BadInput(f"{name} is deleted, and nothing runs without it: leave ~{name} out.")
    for name, example in HOLD_SETTINGS.items():
        if not isinstance(cfg.get(name), DictConfig):
            raise BadInput(
                f"{name}={show(cfg.get(name))} will not do: it holds settings, each set by itself, such as {example}."
            )
    if not isinstance(cfg.get("study"), str) or not cfg.study.strip():
        raise BadInput(f"study={show(cfg.get('study'))} will not do: it is a name, such as study=trial.")
    for name in ("rows", "columns", "cells"):
        listed = cfg.table.get(name)
        if not isinstance(listed, ListConfig) or not all(isinstance(one, str) for one in listed):
            example = "[erasure/hit]" if name == "cells" else "[method,anchor]"
            raise BadInput(f"table.{name}={show(listed)} will not do: it must be a list, such as {example}.")
    for name, example in LISTS.items():
        if name in cfg and not isinstance(cfg[name], DictConfig):
            raise BadInput(f"{name}={show(cfg[name])} will not do: it is a list of options, such as {example}.")
    OmegaConf.to_container(cfg, resolve=True)
