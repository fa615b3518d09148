"""What Hydra makes of overrides, made once for all commands that choose the same options.

Hydra reads some thirty files for a config, whatever differs from the last one. The options that are chosen decide which
files these are; what stands behind them on the command line (`seed=3`) replaces values of the result, and is put in
here as Hydra would put it in (tests/test_compose.py holds one against the other).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict

from advanchor.compose.by_hydra import by_hydra
from advanchor.compose.options import CONF, own_folders
from advanchor.compose.overrides import parsed
from advanchor.compose.sentences import blamed, sentences
from advanchor.core import BadInput

Stamp = tuple[tuple[str, int], ...]  # of each file in a user's own folder of configs when it was written


def composed(overrides: Sequence[str]) -> DictConfig:
    """The config with Hydra's own node, which need not list every override; only that it can be composed is checked.

    Raises:
        BadInput: it cannot.
    """
    return replaced(overrides, with_hydra=True)


def settings(overrides: Sequence[str]) -> DictConfig:
    """The config without Hydra's own node; otherwise as `composed`."""
    return replaced(overrides, with_hydra=False)


def hydra_node(overrides: Sequence[str]) -> DictConfig:
    """Hydra's own node: that of the chosen options, unless it refers to other settings."""
    with sentences(overrides):
        first, _ = parts(overrides)
        node: DictConfig = pickle.loads(made(tuple(first), stamp(overrides))[0]).hydra
    open_to_all = (OmegaConf.to_container(node[part], resolve=False) for part in ("launcher", "sweeper"))
    return composed(overrides).hydra if "${" in repr([*open_to_all]) else node


def replaced(overrides: Sequence[str], with_hydra: bool) -> DictConfig:
    try:
        with sentences(overrides):
            first, rest = parts(overrides)
            whole, bare = made(tuple(first), stamp(overrides))
            cfg: DictConfig = pickle.loads(whole if with_hydra else bare)
            try:
                for line in rest:
                    one = parsed(line)
                    OmegaConf.update(cfg, one.key_or_group, one.value(), merge=True)
            except Exception:  # Hydra finds the same mistake, and says it in its own words
                return by_hydra(overrides)
            return cfg
    except (TypeError, ValueError, AttributeError, AssertionError) as error:
        # from the depths of Hydra, for what is no name of an option
        raise BadInput(blamed(overrides, error)) from None


def parts(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides that Hydra composes, and the last ones, which only replace values of what it has composed.

    The first are all that choose options, wherever they stand, and all up to the last that does more than replace.
    """
    folders = [CONF, *own_folders(overrides)]
    chooses, replaces = ([test(line, folders) for line in overrides] for test in (is_choice, is_value))
    end = max((i + 1 for i in range(len(overrides)) if not chooses[i] and not replaces[i]), default=0)
    first = [line for i, line in enumerate(overrides) if i < end or chooses[i]]
    return first, [line for i, line in enumerate(overrides) if i >= end and not chooses[i]]


def is_choice(line: str, folders: Sequence[str]) -> bool:
    """Is this `method=ac`, which decides what files are read?"""
    if line.startswith("config_dir="):
        return True
    one = parsed(line)
    return any((Path(f) / str(one.key_or_group)).is_dir() for f in folders) and not isinstance(one.value(), dict)


def is_value(line: str, folders: Sequence[str]) -> bool:
    """Is this `seed=3`, which replaces a value that every config has?"""
    one = parsed(line)
    name = str(one.key_or_group)
    if one.type != OverrideType.CHANGE or one.package is not None or one.is_sweep_override():
        return False
    return not re.match(r"hydra[./]|.*/", name) and not any((Path(f) / name).is_dir() for f in folders)


def stamp(overrides: Sequence[str]) -> Stamp:
    files = [file for folder in own_folders(overrides) for file in Path(folder).rglob("*.yaml")]
    return tuple(sorted((str(file), file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=1024)  # a large sweep's, each several times
def made(overrides: tuple[str, ...], files: Stamp) -> tuple[bytes, bytes]:
    """The config with Hydra's node and without, pickled: 32 kB where its objects take 1.8 MB, and copied five
    times faster than by deepcopy.
    """
    cfg = by_hydra(overrides)
    whole = pickle.dumps(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return whole, pickle.dumps(cfg)
