"""Hydra's errors in one sentence that says what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError, OmegaConfBaseException

from advanchor.compose.by_hydra import by_hydra
from advanchor.compose.options import groups, names
from advanchor.compose.writing import quoted, shell
from advanchor.core import BadInput

EXTRAS = {"ray": "ray", "joblib": "workers", "submitit_slurm": "slurm"}  # Hydra's launchers -> what brings them


@contextmanager
def sentences(overrides: Sequence[str]) -> Iterator[None]:
    """Hydra's errors become BadInput."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(sentence(error, overrides)) from None


def sentence(error: Any, overrides: Sequence[str] = ()) -> str:
    """Hydra's error in one sentence; `overrides` are those of the command: their options decide what can be set."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        return unreadable(str(error.override))
    if isinstance(error, MissingConfigException) and (found := re.search(r"Could not (?:find|load) '([^']+)'", text)):
        return no_option(found.group(1), overrides)
    if isinstance(error, InterpolationKeyError | InterpolationResolutionError) and (
        found := re.search(r"[Ii]nterpolation key '([^']+)'", text)
    ):
        where = error.full_key or next((o for o in overrides if "${" + found.group(1) in o), "a setting")
        return (
            f"{where} asks for ${{{found.group(1)}}}, and there is no such setting: "
            "write its value, or quote it if it is a text."
        )
    if isinstance(error, InterpolationResolutionError) and "RecursionError" in text:
        return f"{error.full_key or 'a setting'} refers to itself, round about: write its value."
    if found := re.search(r"Could not override '([^']+)'", text):
        return no_setting(found.group(1), overrides)
    return blamed(overrides, error)


def unreadable(line: str) -> str:
    """Of an override that is none in Hydra's grammar: how to write it."""
    name, _, value = line.partition("=")
    better = shell(f"{name}={quoted(value)}")
    if not re.fullmatch(r"[+~]*[\w./@:-]+", name):
        return f"'{line}' is not key=value: the name of a setting has letters, digits, dots and underscores."
    if value[:1] in ("[", "{", "(", "'", '"') or "(" in value:
        return (
            f"{line} cannot be read: its brackets and quotes must match, with quotes around texts inside; "
            f"as one text it is {better}."
        )
    return f"{line} cannot be read: quote the value, {better}."


def no_option(path: str, overrides: Sequence[str]) -> str:
    """Of an option that does not exist: which do.

    Args:
        path: as Hydra names it, such as concept/emoji/foxx or hydra/launcher/joblib.
    """
    of_hydra = path.startswith("hydra/")
    group, _, name = path.rpartition("/") if of_hydra else path.partition("/")
    if group == "hydra/launcher" and name in EXTRAS:
        return f"the launcher {name} is not installed: pip install 'advanchor[{EXTRAS[name]}]'."
    options = names(group, overrides)
    folder = name.rpartition("/")[0]
    options = [o for o in options if folder and o.startswith(f"{folder}/")] or options
    if not options:
        return f"there is no {group}={name}: leave it out."
    leaves = {o.rpartition("/")[2]: o for o in reversed(options)}
    close = difflib.get_close_matches(name, [*options, *leaves], 1)
    # sd16 is not sd14: names that differ in a number alone are no misspellings of each other.
    meant = [leaves.get(c, c) for c in close if re.sub(r"\d", "", c) != re.sub(r"\d", "", name)]
    guess = f"did you mean {meant[0]}? " if meant else ""
    return f"there is no {group}={name}: {guess}There are {', '.join(options)}."


def no_setting(name: str, overrides: Sequence[str]) -> str:
    """Of a dotted name that no config of these options has: which it may have meant."""
    group, _, leaf = name.rpartition(".")
    chosen = [o for o in overrides if "." not in o.partition("=")[0]]  # another setting may be wrong, too
    there = known_keys(group, chosen)
    if group and leaf not in there and leaf in known_keys(group):
        has = ", ".join(k for k in there if k not in ("_target_", "name", "version"))
        return f"there is no setting '{name}' with this {group.partition('.')[0]}: it has {has or 'none'}."
    if leaf in there:
        return f"{name} keeps its entries and takes no new ones: replace it whole with `~{name} +{name}={{...}}`."
    if close := difflib.get_close_matches(leaf, there, 1):
        return f"there is no setting '{name}': did you mean {f'{group}.' if group else ''}{close[0]}?"
    return f"there is no setting '{name}': `advanchor --cfg job` prints all of them."


def blamed(overrides: Sequence[str], error: Exception) -> str:
    """The first override that keeps a config from being composed; of any other error its own words."""
    for i, line in enumerate(overrides):
        try:
            by_hydra(overrides[: i + 1])
        except Exception:  # whatever it is
            name = re.split("[=@]", line.lstrip("+~"))[0]
            if name not in groups():
                said = " ".join(str(error).split()[:40])
                return f"{line} will not do ({said}): `advanchor --cfg job` prints what can be set."
            lists = {"metric": "[erasure,fid]", "attack": "[synonyms,relearn]"}
            several = name in lists and f"{name}={lists[name]} or {name}=[]"
            example = several or f"one of {', '.join(names(name, overrides))}"
            return f"{line} will not do, since {name} cannot be null and is chosen by the name of an option: {example}."
    return " ".join(str(error).split()[:60])


def known_keys(group: str, overrides: Sequence[str] = ()) -> list[str]:
    """Names under a dotted key of the config of a command, without any of the default one; at the top, groups and
    settings.
    """
    try:
        node: Any = by_hydra(overrides)
    except (HydraException, OmegaConfBaseException, ValueError):  # another mistake in the same command
        node = by_hydra([])
    for part in filter(None, group.split(".")):
        node = node.get(part) if isinstance(node, DictConfig) else None
    return [str(k) for k in node if group or k != "hydra"] if isinstance(node, DictConfig) else []
