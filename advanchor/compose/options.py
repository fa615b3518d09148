"""What there is to choose: the groups of conf/ and their options, and those of a user's own folder beside them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from advanchor.core import BadInput

HERE = Path(__file__).resolve().parents[1]
CONF = str(HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf")  # in an installed wheel, or a checkout
INTERNAL = (
    "anchor_for",
    "anchor_of",
    "method_for",
    "attack_for",
    "sample_for",
)  # groups that are chosen by others, never by hand


def groups() -> list[str]:
    """What a user chooses an option of, in the order of the config."""
    folders = sorted(p.name for p in Path(CONF).iterdir() if p.is_dir() and p.name not in (*INTERNAL, "hydra"))
    order = ["model", "concept", "anchor", "method", "judge", "metric", "attack", "tracker", "gate", "experiment"]
    return [*sorted(folders, key=lambda g: (order.index(g) if g in order else len(order), g)), "hydra/launcher"]


def names(group: str, overrides: Sequence[str] = ()) -> list[str]:
    """The options of a group, nested ones included, a user's own among them."""
    found = {
        str(f.relative_to(Path(folder) / group).with_suffix(""))
        for folder in (CONF, *own_folders(overrides))
        for f in (Path(folder) / group).rglob("*.yaml")
        if not f.stem.startswith("_")
    }
    return sorted(found)


def own(value: str) -> str:
    """The absolute path of a user's folder of configs.

    Raises:
        BadInput: there is none; a file has the name of one of ours, which Hydra would take instead; a subfolder is a
            misspelt group.
    """
    folder = Path(os.path.expanduser(value)).absolute()
    if not value:
        raise BadInput("--config-dir names no folder: write --config-dir=<folder>, laid out like conf/.")
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}: --config-dir=<folder> takes one that is laid out like conf/.")
    for sub in sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        every = [*groups(), *INTERNAL, "hydra"]
        if sub not in every and (close := difflib.get_close_matches(sub, every, 1)):
            raise BadInput(f"{folder / sub} is no group of options: did you mean {close[0]}?")
    files = [
        folder / "config.yaml",
        *(f for group in (*groups(), *INTERNAL) for f in sorted((folder / group).rglob("*.y*ml"))),
    ]
    for file in filter(Path.exists, files):
        if file.suffix == ".yml":
            raise BadInput(f"{file} is not read: Hydra takes files that end in .yaml, so rename it.")
        if (Path(CONF) / file.relative_to(folder)).exists():
            raise BadInput(f"{file} has the name of one of advanchor's own configs, which comes first: rename it.")
    return str(folder)


def own_folders(overrides: Sequence[str]) -> list[str]:
    """The absolute path of the user's folder of configs, if the overrides name one."""
    return [own(o.partition("=")[2]) for o in overrides if o.startswith("config_dir=")][-1:]


def own_file(overrides: Sequence[str], name: str) -> bool:
    return any((Path(folder) / f"{name}.yaml").exists() for folder in own_folders(overrides))
