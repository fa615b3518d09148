"""What `advanchor --help` says. It composes nothing."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from advanchor.compose.options import CONF, groups, names, own_folders

USAGE = """\
advanchor key=value ...                  one run
advanchor key=value other=a,b,c ... -m   a sweep over some values; an experiment may be one by itself
advanchor table key=value ...            what a sweep left, as a table; `advanchor table --help`
advanchor plot key=value ...             and as figures; `advanchor plot --help`
advanchor front key=value ...            and at equal erasure; `advanchor front --help`
advanchor gate key=value ... gate=strict are finished runs good enough? exit code 0 or 1; `advanchor gate --help`
advanchor tune key=value ...             a search for settings; `advanchor tune --help`
advanchor export key=value --to=<folder> a finished run's model, for others; `advanchor export --help`
advanchor gallery key=value --to=<page>  a finished run's or sweep's pictures as a page; `advanchor gallery --help`
advanchor report key=value --to=<folder> what a paper needs of a sweep, in one folder; `advanchor report --help`
advanchor audit key=value --to=<folder>  a record of a finished run that others can check; `advanchor audit --help`
advanchor verify <folder>, root=<root>   is a record, or the log of all runs, what it was? `advanchor verify --help`
advanchor doctor key=value ...           what is here, what is missing, what a run would take
advanchor --config-dir=<folder> ...      with options of your own beside these, in a folder laid out like conf/
advanchor --cfg job key=value ...        every setting of a run, without running
advanchor -sc install=bash               completion of options and settings: eval "$(advanchor -sc install=bash)"
advanchor --version"""
SETTINGS = (
    "settings, as they are by default (a setting of an option is <group>.<setting>, such as method.steps=60)\n  seed: "
)


def help_text(overrides: Sequence[str] = ()) -> str:
    """Every option of every group with the first line of its yaml, and the settings that belong to none.

    Args:
        overrides: those that name a user's own folder of configs.
    """
    settings = (Path(CONF) / "config.yaml").read_text().partition("\nseed:")[2].partition("\nhydra:")[0].strip()
    listed = ["\n".join([f"{group}=", *options_of(group, overrides)]) for group in groups()]
    return "\n\n".join([USAGE, *listed, SETTINGS + settings.replace("\n", "\n  ")])


def options_of(group: str, overrides: Sequence[str]) -> list[str]:
    """A line for each option that says what it is; the others by name, folder by folder."""
    lines: list[str] = []
    bare: dict[str, list[str]] = {}
    for name in names(group, overrides):
        files = (Path(base) / group / f"{name}.yaml" for base in (CONF, *own_folders(overrides)))
        if about := about_of(next(file for file in files if file.exists())):
            lines.append(f"  {name:<22} {about}")
        else:
            folder, _, leaf = name.rpartition("/")
            bare.setdefault(f"{folder}/" if folder else "", []).append(leaf)
    for folder, leaves in bare.items():
        text = f"{folder}{{{', '.join(leaves)}}}"
        lines.append(textwrap.fill(text, 110, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))
    return lines


def about_of(file: Path) -> str:
    """The first sentence of the comment that a config begins with, up to a command that shows its use."""
    lines = [line for line in file.read_text().splitlines()[:4] if not line.startswith("# @package")]
    comment = " ".join(line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
    words = comment.partition(":  ")[0].partition("  ")[0]
    return re.split(r"(?<=[.;])\s", words)[0].rstrip(":;")
