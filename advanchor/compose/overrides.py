"""The words of a command as overrides in Hydra's grammar."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Sequence
from functools import lru_cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType

from advanchor.compose.options import groups, names, own
from advanchor.compose.sentences import sentences
from advanchor.compose.writing import quoted
from advanchor.core import BadInput
from advanchor.verbs import VERBS


def read(words: Sequence[str]) -> list[str]:
    """The words of a command as overrides: each of them key=value, none twice, `~/` the home folder.

    Raises:
        BadInput: one sentence for the first word that is none of this.
    """
    found: dict[tuple[str, bool], str] = {}
    for word in words:
        line = written(word, words)
        if line.startswith("config_dir="):
            name, deleted = "config_dir", False
        else:
            one = chosen(line, words)
            name = f"{one.key_or_group}@{one.package}" if one.package else str(one.key_or_group)
            deleted = one.type == OverrideType.DEL
        if (name, deleted) in found:
            raise BadInput(f"{name} is set twice, {found[name, deleted]} and {line}: leave one of them out.")
        found[name, deleted] = line
    return list(found.values())


def written(word: str, words: Sequence[str]) -> str:
    """A word as the override that it is.

    Raises:
        BadInput: it is no key=value, or `config_dir` is no folder.
    """
    if not isinstance(word, str):
        raise BadInput(
            f'{word!r} is no override: give each as a string of its own, such as "concept=emoji/fox", "seed=1".'
        )
    name, equals, value = word.partition("=")
    if not equals and not word.startswith("~"):
        if word in VERBS:
            rest = shlex.join(w for w in words if w != word)
            raise BadInput(f"{word} goes first: advanchor {word} {rest}".rstrip() + ".")
        close = difflib.get_close_matches(word, VERBS, 1, 0.5)
        remedy = f"did you mean {close[0]}?" if close else "`advanchor --help` lists what can be set."
        raise BadInput(f"'{word}' is not key=value: {remedy}")
    if not name.strip("+~ "):
        raise BadInput(f"'{word}' names no setting: write key=value; `advanchor --help` lists what can be set.")
    if value.startswith("=") and name:
        raise BadInput(f"{word} has one = too many: write {name}={value.lstrip('=')}.")
    if name == "config_dir":
        return f"config_dir={own(value)}"
    if value == "~" or value.startswith("~/"):  # no shell expands it there, and Hydra's grammar has no such sign
        return f"{name}={quoted(os.path.expanduser(value))}"
    return word


def chosen(line: str, words: Sequence[str]) -> Override:
    """An override, parsed.

    Raises:
        BadInput: it cannot be parsed; or it chooses an option of Hydra's own groups, or nothing, or what is no name.
    """
    one = parsed(line)
    group = str(one.key_or_group)
    if group.startswith("hydra/") and group != "hydra/launcher":
        raise BadInput(f"{line} is not for a command to choose: of Hydra's own options only hydra/launcher is.")
    if group in groups() and one.type != OverrideType.DEL and one.package is None and one.value() == "":
        raise BadInput(f"{line} chooses nothing: {group} is one of {', '.join(names(group, words))}.")
    if group in groups() and group not in ("metric", "attack") and isinstance(one.value(), list | dict):
        raise BadInput(
            f"{line} will not do: {group} is one of {', '.join(names(group, words))}, "
            "or with -m several, between commas."
        )
    return one


@lru_cache(maxsize=4096)
def parsed(line: str) -> Override:
    """One override in Hydra's grammar; not to be changed.

    Raises:
        BadInput: it is none; the sentence shows how to write it.
    """
    with sentences([line]):
        return OverridesParser.create().parse_overrides([line])[0]
