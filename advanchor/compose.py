"""Overrides in, checked configs out; Hydra's composition errors become one sentence that says what to do."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from advanchor.core import BadInput
from advanchor.run import check
from advanchor.store import run_id

HERE = Path(__file__).resolve().parent
CONF = str(HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf")  # inside an installed wheel, beside a checkout


def compose(overrides: Sequence[str]) -> DictConfig:
    """One checked config from command-line overrides such as "concept=emoji/fox".

    Raises:
        BadInput: an unknown option, a misspelt or missing setting, a value of the wrong type or range, a missing model folder.
    """
    if merged := [o for o in overrides if re.match(r"concept\.(keep|preserve|keep_cross)=", o)]:
        name = merged[0].partition("=")[0]
        raise BadInput(f"{name}=... would be merged with what the concept has: replace it whole with `~{name} +{name}={{...}}`, or edit the concept's yaml.")
    try:
        with hydra.initialize_config_dir(CONF, version_base="1.3"):
            cfg = hydra.compose("config", list(overrides))
        check(cfg)
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(sentence(error, overrides)) from None
    except ValueError as error:  # Hydra's, of a group that is null
        if "Config group override" not in str(error):
            raise
        raise BadInput("a group cannot be null: name one of its options, as `advanchor --help` lists them.") from None
    return cfg


def validate(overrides: Sequence[str]) -> None:
    """Check what a command asks for; of a sweep every value of every axis, with the first of the others.

    Raises:
        BadInput: one sentence for the first mistake.
    """
    for one in experiments(overrides):
        axes = sweep(one)
        first = [axis[0] for axis in axes]
        others = [[*first[:i], value, *first[i + 1 :]] for i, axis in enumerate(axes) for value in axis[1:]]
        for choice in itertools.chain([first], others):
            compose(choice)


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each run of a command, in Hydra's order; of several sweeps one after the other, each run once."""
    return [list(choice) for choice in dict.fromkeys(choice for one in experiments(overrides) for choice in itertools.product(*sweep(one)))]


def experiments(overrides: Sequence[str]) -> list[list[str]]:
    """A command for each sweep: of each of the experiments that it names (`experiment=a,b`), each of its `sweeps`. What the command itself sets comes last.

    Raises:
        BadInput: there is no such experiment, or its `sweeps` are not a list of settings with their values.
    """
    names = [o for o in overrides if o.startswith("experiment=")]
    given = [o for o in overrides if o.startswith("sweeps=")]
    rest = [o for o in overrides if o not in names]
    commands = []
    for name in names[-1].partition("=")[2].split(",") if names else [""] if given else ():
        chosen = [f"experiment={name}"] if name else []
        try:
            with hydra.initialize_config_dir(CONF, version_base="1.3"):
                sweeps: Any = hydra.compose("config", [*chosen, *given]).sweeps
        except (HydraException, OmegaConfBaseException) as error:
            raise BadInput(sentence(error)) from None
        if not isinstance(sweeps, ListConfig) or not all(isinstance(one, DictConfig) for one in sweeps):
            raise BadInput(f"{' '.join(chosen or given)}: sweeps must be a list of settings with their values, such as `- {{anchor: superclass, seed: '0,1'}}`.")
        commands += [[*chosen, *(f"{key}={'null' if values is None else values}" for key, values in one.items()), *rest] for one in cast(list[dict[str, Any]], sweeps) or [{}]]
    distinct = {repr(sorted(sweep(one))): one for one in commands}  # a command that sets what tells two sweeps apart makes them one
    return list(distinct.values()) or [rest]


def compose_all(runs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """The config of each run of a sweep. Nothing is checked: `validate` has done that."""
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        return [hydra.compose("config", list(choice)) for choice in runs]


def folders(runs: Sequence[Sequence[str]]) -> list[Path]:
    """Where each run of a sweep leaves its result."""
    return [Path(cfg.root) / run_id(cfg) for cfg in compose_all(runs)]


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Every axis of a command: the sweep written in its experiment, replaced where the command line names the same setting.

    Raises:
        BadInput: the overrides cannot be parsed, or name an experiment that does not exist.
    """
    try:
        experiment = [o for o in overrides if o.startswith("experiment=")]
        with hydra.initialize_config_dir(CONF, version_base="1.3"):
            written = hydra.compose("config", experiment, return_hydra_config=True).hydra.sweeper.get("params") or {}
            lines = [*(f"{name}={'null' if values is None else values}" for name, values in written.items()), *overrides]
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())  # which knows the options of a glob
            axes = {
                str(o.get_key_element()): [f"{o.get_key_element()}={v}" for v in o.sweep_string_iterator()] if o.is_sweep_override() else [str(o.input_line)]
                for o in parser.parse_overrides(lines)
            }
        if empty := [name for name, values in axes.items() if not values]:
            raise BadInput(f"{next((line for line in lines if line.startswith(f'{empty[0]}=')), empty[0])} matches no option: see `advanchor --help`.")
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(sentence(error)) from None
    return list(axes.values())


def sentence(error: Any, overrides: Sequence[str] = ()) -> str:
    """Hydra's error in one sentence; `overrides` are those of the command, whose options say which settings there are."""
    text = str(error)
    if isinstance(error, MissingConfigException) and (found := re.search(r"Could not (?:find|load) '([^']+)'", text)):
        group, _, name = found.group(1).rpartition("/") if found.group(1).startswith("hydra/") else found.group(1).partition("/")
        if needed := {"ray": "ray", "joblib": "workers", "submitit_slurm": "slurm"}.get(name if group == "hydra/launcher" else ""):
            return f"the launcher {name} is not installed: pip install 'advanchor[{needed}]'."
        folder = Path(CONF) / group
        options = sorted(str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.yaml") if not f.stem.startswith("_"))
        close = difflib.get_close_matches(name, options, 1)
        return f"there is no {group}={name}: " + (f"did you mean {close[0]}? " if close else "") + f"There are {', '.join(options)}."
    if found := re.search(r"Could not override '([^']+)'", text):
        group, _, leaf = found.group(1).rpartition(".")
        rest = [o for o in overrides if not o.startswith(found.group(1))]
        if group and leaf in known_keys(group) and leaf not in (there := known_keys(group, rest)):
            own = ", ".join(k for k in there if k not in ("_target_", "name", "version"))
            return f"there is no setting '{found.group(1)}' with this {group.partition('.')[0]}: it has {own or 'none'}."
        if leaf in known_keys(group, rest):
            return f"{found.group(1)} keeps its entries and takes no new ones: replace it whole with `~{found.group(1)} +{found.group(1)}={{...}}`."
        close = difflib.get_close_matches(leaf, known_keys(group, rest), 1)
        return f"there is no setting '{found.group(1)}': " + (f"did you mean {group + '.' if group else ''}{close[0]}?" if close else "`advanchor --cfg job` prints all of them.")
    return " ".join(text.split()[:60])


def known_keys(group: str, overrides: Sequence[str] = ()) -> list[str]:
    """Names under a dotted key of the config of a command, without any of the default one; at the top, groups and settings."""
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        try:
            node: Any = hydra.compose("config", list(overrides))
        except (HydraException, OmegaConfBaseException):  # another mistake in the same command
            node = hydra.compose("config")
    for part in filter(None, group.split(".")):
        node = node.get(part) if isinstance(node, DictConfig) else None
    return [str(k) for k in node] if isinstance(node, DictConfig) else []
