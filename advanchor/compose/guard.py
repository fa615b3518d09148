"""A config never runs a program and never moves a result, whatever it or a command tells Hydra."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from advanchor.compose.by_hydra import by_hydra
from advanchor.compose.options import CONF, own_file, own_folders
from advanchor.core import BadInput

# What of Hydra's own node a command or a config file may set. Everything else decides where results go or names
# programs that Hydra would run.
FREE = (
    *("launcher", "mode", "sweeper.params", "runtime", "overrides"),
    *("job.override_dirname", "job.id", "job.num", "job.config_name"),
)
LAUNCHERS = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
}
COMMANDS = ("setup", "additional_parameters", "ray")  # launchers' settings that can run programs: by hand alone
PLACES = ("submitit_folder", "temp_folder")  # and those that say where they write: in `root`, or by hand
NAMES_A_PROGRAM = {"_target_", "()", "_args_", "_partial_"}
REMEDIES = {
    "run": "root=<folder> says where results go",
    "sweep": "root=<folder> says where results go",
    "searchpath": "--config-dir=<folder> adds a folder of configs",
}
OTHERWISE = "of Hydra's own settings only the launcher's, hydra.mode and hydra.sweeper.params can be set"


def guard(node: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse whatever a command or a config file tells Hydra that is not theirs to decide.

    Args:
        node: the `hydra` node of a composed config, against which that of the default one is held.

    Raises:
        BadInput: another setting than the launcher, its own settings, the mode and the sweep differs; the launcher is
            none that is known; or one of its settings or of the sweep's names a program.
    """
    chosen = str(node.runtime.choices.get("hydra/launcher"))
    ours = chosen in {f.stem for f in (Path(CONF) / "hydra/launcher").glob("*.yaml")}
    known = ours or not own_file(overrides, f"hydra/launcher/{chosen}")
    usual = reference(chosen if known else "basic")
    written = flat(OmegaConf.to_container(node, resolve=False))
    untouched(written, usual, own_folders(overrides))
    launcher = cast(dict[str, Any], OmegaConf.to_container(node.launcher, resolve=True))
    made = launcher.pop("_target_", None)
    if made not in LAUNCHERS or (known and made != usual.get("launcher._target_")):
        raise BadInput(
            f"hydra.launcher._target_={made} is not for a command or a config to set: "
            "choose a launcher with hydra/launcher=<name>."
        )
    params = cast(dict[str, Any], OmegaConf.to_container(node.sweeper, resolve=True)).get("params")
    by_hand = tuple(f"{o.lstrip('+~').partition('=')[0]}." for o in overrides)
    for name, value in flat({"launcher": launcher, "sweeper": {"params": params}}).items():
        if NAMES_A_PROGRAM & {*name.split(".")} or "_target_" in repr(value):
            raise BadInput(f"hydra.{name} names a program, which a config never runs: leave it out.")
        if isinstance(value, str) and re.search(r"[\n\r\0]", value):
            raise BadInput(f"hydra.{name} has a line break in it: write it in one line.")
        part = name.split(".")[1] if name.startswith("launcher.") else ""
        if value in (None, {}, []) or value == usual.get(name) or f"hydra.{name}.".startswith(by_hand):
            continue
        if part in COMMANDS:
            raise BadInput(
                f"hydra.{name} can run programs, so a config file may not set it: give it on the command line."
            )
        if part in PLACES and not re.match(r"\$\{(root|hydra\.sweep\.dir)\}(?!.*\.\.)", str(written.get(name))):
            raise BadInput(f"hydra.{name}={value} is not in root: let it begin with ${{root}}/ in a config file.")


def untouched(given: Mapping[str, Any], usual: Mapping[str, Any], folders: Sequence[str]) -> None:
    """Raises: BadInput if one of Hydra's settings is not as usual, those that are free and the search path of the
    user's folder aside.
    """
    added = [f"file://{folder}" for folder in folders]
    for name in sorted(usual.keys() | given.keys()):
        free = any(f"{name}.".startswith(f"{one}.") for one in FREE)
        if usual.get(name) == given.get(name) or free or (name == "searchpath" and given.get(name) == added):
            continue
        remedy = REMEDIES.get(name.partition(".")[0], OTHERWISE)
        raise BadInput(f"hydra.{name} is not for a command or a config to set: leave it out; {remedy}.")


@cache
def reference(launcher: str) -> dict[str, Any]:
    """The `hydra` node of the default config with a launcher, as it is written, flat."""
    return flat(OmegaConf.to_container(by_hydra([f"hydra/launcher={launcher}"]).hydra, resolve=False))


def flat(node: Any, above: str = "") -> dict[str, Any]:
    """Dotted name -> value; lists and empty dicts are values."""
    if not isinstance(node, dict) or not node:
        return {above: node}
    found: dict[str, Any] = {}
    for name, one in node.items():
        found |= flat(one, f"{above}.{name}" if above else str(name))
    return found
