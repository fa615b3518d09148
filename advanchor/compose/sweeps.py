"""A command as the runs that it stands for."""

from __future__ import annotations

import fnmatch
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.types import Glob
from omegaconf import DictConfig, ListConfig
from tqdm import tqdm

from advanchor.compose.checked import compose, place
from advanchor.compose.composed import composed, settings
from advanchor.compose.options import names
from advanchor.compose.overrides import parsed
from advanchor.compose.sentences import sentences
from advanchor.core import BadInput, show
from advanchor.identity import run_id

MOST = 5000  # runs of one sweep


def validate(overrides: Sequence[str]) -> None:
    """Check what a command asks for; of a sweep every value of every axis, with the first of the others.

    Raises:
        BadInput: one sentence for the first mistake.
    """
    choices: list[list[str]] = []
    for one in experiments(overrides):
        axes = sweep(one)
        first = [axis[0] for axis in axes]
        choices.append(first)
        choices += [[*first[:i], value, *first[i + 1 :]] for i, axis in enumerate(axes) for value in axis[1:]]
    for choice in tqdm(choices, desc="check", unit="config", leave=False, delay=1):
        compose(choice)


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each run of a command, in Hydra's order; of several sweeps one after the other, each run once.

    Raises:
        BadInput: as `sweep`.
    """
    runs: dict[tuple[str, ...], None] = {}
    for one in experiments(overrides):
        runs |= dict.fromkeys(itertools.product(*sweep(one)))
    return [list(choice) for choice in runs]


def by_itself(choice: Sequence[str]) -> list[str]:
    """The words of one of the runs that `expand` returns, as a command of its own: an experiment's own settings are all
    in them.
    """
    return [*choice, *(["sweeps=[]"] if any(o.startswith("experiment=") for o in choice) else [])]


def launching(overrides: Sequence[str]) -> tuple[bool, str]:
    """Is a command a sweep without -m, because its experiment says so; and by which launcher, of which `basic` is this
    process.
    """
    decides = re.compile(r"\+*(config_dir|experiment|hydra[./]\S+)=")  # the rest makes no difference
    nodes = [composed([o for o in one if decides.match(o)]).hydra for one in experiments(overrides)]
    many = all(node.mode is not None and node.mode.name == "MULTIRUN" for node in nodes)
    return many, str(nodes[0].runtime.choices.get("hydra/launcher"))


def experiments(overrides: Sequence[str]) -> list[list[str]]:
    """A command for each sweep: of each of the experiments that it names (`experiment=a,b`), each of its `sweeps`. What
    the command itself sets comes last.

    Raises:
        BadInput: there is no such experiment, or its `sweeps` are not a list of settings with their values.
    """
    named = [o for o in overrides if o.startswith("experiment=")]
    given = [o for o in overrides if o.startswith(("sweeps=", "config_dir="))]
    rest = [o for o in overrides if o not in named]
    alone: list[list[str]] = [[]] if any(o.startswith("sweeps=") for o in given) else []
    commands: list[list[str]] = []
    for chosen in [[line] for line in axis(named[-1], overrides)] if named else alone:
        sweeps: Any = composed([*chosen, *given]).sweeps
        if not isinstance(sweeps, ListConfig) or not all(isinstance(one, DictConfig) for one in sweeps):
            raise BadInput(
                f"{' '.join(chosen or given)}: sweeps must be a list of settings with their values, such as "
                "`- {anchor: superclass, seed: '0,1'}`."
            )
        for one in cast(list[dict[str, Any]], sweeps) or [{}]:
            commands.append([*chosen, *(f"{key}={show(values)}" for key, values in one.items()), *rest])
    # A command that sets what tells two sweeps apart makes them one.
    distinct = {repr(sorted(sweep(one))): one for one in commands}
    return list(distinct.values()) or [rest]


def compose_all(runs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """The config of each run of a sweep. Nothing is checked: `validate` has done that."""
    found = []
    for choice in tqdm(runs, desc="compose", unit="config", leave=False, delay=1):
        with sentences(choice):
            found.append(settings(choice))
            place(found[-1])
    return found


def folders(configs: Sequence[DictConfig]) -> list[Path]:
    """Where each run of a sweep leaves its result."""
    return [Path(cfg.root) / run_id(cfg) for cfg in configs]


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Every axis of a command: the sweep written in its experiment, replaced where the command line names the same
    setting.

    Raises:
        BadInput: the overrides cannot be parsed, or name an experiment that does not exist; an axis is empty; it would
            be more than `MOST` runs.
    """
    chosen = [o for o in overrides if o.startswith(("experiment=", "config_dir="))]
    written = composed(chosen).hydra.sweeper.get("params") or {}
    lines = [*(f"{name}={show(values)}" for name, values in written.items()), *overrides]
    axes: dict[str, list[str]] = {}
    for line in lines:
        axes[line.partition("=")[0].strip() if "=" in line else line] = axis(line, overrides)
    if len(roots := axes.get("root", ())) > 1:
        several = ",".join(one.partition("=")[2] for one in roots)
        raise BadInput(f"root={several} names several folders: a sweep has one root.")
    if (size := math.prod(len(values) for values in axes.values())) > MOST:
        raise BadInput(
            f"this is a sweep of {size:,} runs or more, and {MOST:,} is the most: sweep over fewer values at once."
        )
    return list(axes.values())


def axis(line: str, overrides: Sequence[str] = ()) -> list[str]:
    """What an override stands for: itself, or each value of its sweep (at most one more than `MOST`).

    Raises:
        BadInput: it cannot be parsed, or has no value.
    """
    if line.startswith("config_dir="):
        return [line]
    one = parsed(line)
    if not one.is_sweep_override():
        return [line]
    key, value = one.get_key_element(), one.value()
    if one.is_interval_sweep():
        raise BadInput(f"{line} is a span without values: list them, or write {key}=range(start,stop,step).")
    options: Any = one.sweep_string_iterator() if not isinstance(value, Glob) else matching(one, value, overrides)
    with sentences([line]):
        values = [f"{key}={v}" for v in itertools.islice(options, MOST + 1)]
    if not values:
        raise BadInput(f"{line} matches no option: see `advanchor --help`.")
    return values


def matching(one: Any, glob: Glob, overrides: Sequence[str]) -> list[str]:
    """The options of an override's group that its glob names."""
    options = names(str(one.key_or_group), overrides)
    return [name for name in options if matches(name, glob.include) and not matches(name, glob.exclude)]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Does a pattern fit the name, folder by folder? `*` stays within one."""
    parts = name.split("/")
    each = [p.split("/") for p in patterns]
    return any(len(parts) == len(p) and all(map(fnmatch.fnmatch, parts, p)) for p in each)
