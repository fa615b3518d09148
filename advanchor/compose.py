"""Overrides in, checked configs out; Hydra's composition errors become one sentence that says what to do.

Overrides are those of the command line, such as "concept=emoji/fox". One of them is not Hydra's: `config_dir=mine` adds a user's own folder
of configs, laid out like conf/, to every composition; `advanchor --config-dir=mine` is the same.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import math
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError, OmegaConfBaseException

from advanchor.core import BadInput
from advanchor.run import check
from advanchor.store import run_id

HERE = Path(__file__).resolve().parent
CONF = str(HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf")  # in an installed wheel, or a checkout
MOST = 5000  # runs of one sweep
MERGED = ("concept.keep", "concept.preserve", "concept.keep_cross")  # where another value would be added to the first
INTERNAL = ("anchor_for", "anchor_of", "method_for")  # groups that are chosen by others, never by hand

# What of Hydra's own node a command or a config file may set. Everything else decides where results go or names programs that Hydra would run.
FREE = (
    "launcher",
    "mode",
    "sweeper.params",
    "runtime",
    "overrides",
    "job.override_dirname",
    "job.id",
    "job.num",
    "job.config_name",
)
LAUNCHERS = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
}
COMMANDS = (
    "setup",
    "additional_parameters",
    "ray",
)  # launchers' settings that can run programs: for the command line alone


def read(words: Sequence[str]) -> list[str]:
    """The words of a command as overrides: each of them key=value, none twice, `~/` the home folder.

    Raises:
        BadInput: one sentence for the first word that is none of this.
    """
    found: dict[tuple[str, bool], str] = {}
    for word in words:
        if not isinstance(word, str):
            raise BadInput(
                f'{word!r} is no override: give each as a string of its own, such as "concept=emoji/fox", "seed=1".'
            )
        name, equals, value = word.partition("=")
        if not equals and not word.startswith("~"):
            if word in ("table", "plot"):
                raise BadInput(
                    f"{word} goes first: advanchor {word} {shlex.join(w for w in words if w != word)}".rstrip() + "."
                )
            close = difflib.get_close_matches(word, ["table", "plot"], 1, 0.5)
            raise BadInput(
                f"'{word}' is not key=value"
                + (f": did you mean {close[0]}?" if close else ": `advanchor --help` lists what can be set.")
            )
        if not name.strip("+~ "):
            raise BadInput(f"'{word}' names no setting: write key=value; `advanchor --help` lists what can be set.")
        if value.startswith("=") and name:
            raise BadInput(f"{word} has one = too many: write {name}={value.lstrip('=')}.")
        if value == "~" or value.startswith("~/"):  # no shell expands it there, and Hydra's grammar has no such sign
            word = f"{name}={quoted(os.path.expanduser(value))}"
        if name == "config_dir":
            word, key, deleted = f"config_dir={own(value)}", name, False
        else:
            one = parsed(word)
            if str(one.key_or_group).startswith("hydra/") and one.key_or_group != "hydra/launcher":
                raise BadInput(f"{word} is not for a command to choose: of Hydra's own options only hydra/launcher is.")
            if one.key_or_group in groups() and one.key_or_group != "metric" and isinstance(one.value(), list | dict):
                raise BadInput(
                    f"{word} will not do: {one.key_or_group} is one of {', '.join(names(str(one.key_or_group), words))}, or with -m several, between commas."
                )
            key, deleted = (
                f"{one.key_or_group}@{one.package}" if one.package else str(one.key_or_group),
                one.type == OverrideType.DEL,
            )
            if one.type != OverrideType.DEL and one.value() == "" and key in groups():
                raise BadInput(f"{word} chooses nothing: {key} is one of {', '.join(names(key, words))}.")
        if (key, deleted) in found:
            raise BadInput(f"{key} is set twice, {found[key, deleted]} and {word}: leave one of them out.")
        found[key, deleted] = word
    return list(found.values())


def compose(overrides: Sequence[str]) -> DictConfig:
    """One checked config from overrides.

    Raises:
        BadInput: an unknown option, a misspelt or missing setting, a value of the wrong type or range, a missing model folder; or Hydra is told
            to do what is not for a config to decide (`guard`).
    """
    deleted = {o.partition("=")[0] for o in overrides if o.startswith("~")}
    for line in overrides:
        name = line.partition("=")[0].lstrip("+")
        if name in MERGED and "=" in line and f"~{name}" not in deleted:
            group, _, leaf = name.partition(".")
            if leaf in known_keys(group, [o for o in overrides if o != line]):
                raise BadInput(
                    f"{name}=... would be merged with what the concept has: replace it whole with `~{name} +{name}={{...}}`, or edit the concept's yaml."
                )
        if re.fullmatch(r"(model|judge|anchor|method|tracker|metric\.\w+)\.name", name):
            raise BadInput(f"{name} is what tables and files call it, and not for a command to change: leave it out.")
    cfg = composed(overrides)
    with sentences(overrides):
        guard(cfg.hydra, overrides)
        with open_dict(cfg):
            del cfg["hydra"]
        shape(cfg)
        place(cfg)
        check(cfg)
    return cfg


def composed(overrides: Sequence[str]) -> DictConfig:
    """What Hydra makes of overrides, its own node included; only that it can be composed is checked."""
    try:
        with sentences(overrides), hydra.initialize_config_dir(CONF, version_base="1.3"):
            return hydra.compose("config", hydras(overrides), return_hydra_config=True)
    except (
        TypeError,
        ValueError,
        AttributeError,
        AssertionError,
    ) as error:  # from the depths of Hydra, for what is no name of an option
        raise BadInput(blamed(overrides, error)) from None


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
    """What every other check takes for granted: every reference in a config leads somewhere, and what holds settings holds them.

    Raises:
        BadInput: it does not.
    """
    parts = (
        "model",
        "judge",
        "concept",
        "anchor",
        "method",
        "tracker",
        "sample",
        "seed",
        "batch",
        "device",
        "root",
        "study",
        "table",
        "paper",
        "sweeps",
    )
    for name in parts:
        if name not in cfg:
            raise BadInput(f"{name} is deleted, and nothing runs without it: leave ~{name} out.")
    for name, kind, example in (
        ("sample", DictConfig, "sample.steps=20"),
        ("table", DictConfig, "table.rows=[anchor]"),
        ("paper", DictConfig, "paper={}"),
    ):
        if not isinstance(cfg.get(name), kind):
            raise BadInput(
                f"{name}={show(cfg.get(name))} will not do: it holds settings, each set by itself, such as {example}."
            )
    if not isinstance(cfg.get("study"), str) or not cfg.study.strip():
        raise BadInput(f"study={show(cfg.get('study'))} will not do: it is a name, such as study=trial.")
    for name in ("rows", "columns", "cells"):
        if not isinstance(cfg.table.get(name), ListConfig) or not all(isinstance(one, str) for one in cfg.table[name]):
            example = "[erasure/hit]" if name == "cells" else "[method,anchor]"
            raise BadInput(
                f"table.{name}={show(cfg.table.get(name))} will not do: it must be a list, such as {example}."
            )
    if "metric" in cfg and not isinstance(cfg.metric, DictConfig):
        raise BadInput(f"metric={show(cfg.metric)} will not do: it is a list of options, such as metric=[erasure,fid].")
    OmegaConf.to_container(cfg, resolve=True)


def show(value: Any) -> str:
    """A value as it is written in a config."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def guard(node: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse whatever a command or a config file tells Hydra that is not theirs to decide: a config never runs a program, and never moves a result.

    Args:
        node: the `hydra` node of a composed config, against which that of the default one is held.

    Raises:
        BadInput: another setting than the launcher, its own settings, the mode and the sweep differs; or the launcher is none that is known.
    """
    chosen = str(node.runtime.choices.get("hydra/launcher"))
    known = chosen in {f.stem for f in (Path(CONF) / "hydra/launcher").glob("*.yaml")} or not own_file(
        overrides, f"hydra/launcher/{chosen}"
    )
    usual, given = flat(reference(chosen if known else "basic")), flat(OmegaConf.to_container(node, resolve=False))
    added = [f"file://{folder}" for folder in own_folders(overrides)]
    for name in sorted(usual.keys() | given.keys()):
        if name == "searchpath" and given.get(name) == added:
            continue
        if usual.get(name) != given.get(name) and not any(name == free or name.startswith(f"{free}.") for free in FREE):
            remedy = {
                "run": "root=<folder> says where results go", "sweep": "root=<folder> says where results go", "searchpath": "--config-dir=<folder> adds a folder of configs",
            }.get(name.partition(".")[0], "of Hydra's own settings only the launcher's, hydra.mode and hydra.sweeper.params can be set")  # fmt: skip
            raise BadInput(f"hydra.{name} is not for a command or a config to set: leave it out; {remedy}.")
    launcher = cast(dict[str, Any], OmegaConf.to_container(node.launcher, resolve=True))
    made = launcher.pop("_target_", None)
    if made not in LAUNCHERS or (known and made != usual.get("launcher._target_")):
        raise BadInput(
            f"hydra.launcher._target_={made} is not for a command or a config to set: choose a launcher with hydra/launcher=<name>."
        )
    said = {o.lstrip("+~").partition("=")[0] for o in overrides}
    for name, value in flat(
        {"launcher": launcher, "sweeper": {"params": OmegaConf.to_container(node.sweeper, resolve=True).get("params")}}
    ).items():  # type: ignore[union-attr]
        if any(sign in name.split(".") for sign in ("_target_", "()", "_args_", "_partial_")) or "_target_" in repr(
            value
        ):
            raise BadInput(f"hydra.{name} names a program, which a config never runs: leave it out.")
        if isinstance(value, str) and re.search(r"[\n\r\0]", value):
            raise BadInput(f"hydra.{name} has a line break in it: write it in one line.")
        part = name.split(".")[1] if name.startswith("launcher.") else ""
        by_hand = any(s == f"hydra.{name}" or f"hydra.{name}".startswith(f"{s}.") for s in said)
        if part in COMMANDS and value not in (None, {}, []) and not by_hand and value != usual.get(name):
            raise BadInput(
                f"hydra.{name} can run programs, so a config file may not set it: give it on the command line."
            )


@cache
def reference(launcher: str) -> Any:
    """The `hydra` node of the default config with a launcher, as it is written."""
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        return OmegaConf.to_container(
            hydra.compose("config", [f"hydra/launcher={launcher}"], return_hydra_config=True).hydra, resolve=False
        )


def flat(node: Any, above: str = "") -> dict[str, Any]:
    """Dotted name -> value; lists and empty dicts are values."""
    if not isinstance(node, dict) or not node:
        return {above: node}
    return {k: v for name, one in node.items() for k, v in flat(one, f"{above}.{name}" if above else str(name)).items()}


# --- a user's own folder of configs -----------------------------------------------------------------------------------


def own(value: str) -> str:
    """The absolute path of a user's folder of configs.

    Raises:
        BadInput: there is none; a file has the name of one of ours, which Hydra would take instead; a subfolder is a misspelt group.
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


def hydras(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra knows them: a user's folder is a search path, and there is no other (Hydra imports what `pkg://` names).

    Raises:
        BadInput: one of them sets the search path; or as `own`.
    """
    if by_hand := [o for o in overrides if o.lstrip("+~").startswith("hydra.searchpath")]:
        raise BadInput(f"{by_hand[0]} is not for a command to set: --config-dir=<folder> adds a folder of configs.")
    path = [f"hydra.searchpath=[{quoted(f'file://{folder}')}]" for folder in own_folders(overrides)]
    return [*path, *(o for o in overrides if not o.startswith("config_dir="))]


def groups() -> list[str]:
    """What a user chooses an option of, in the order of the config."""
    folders = sorted(p.name for p in Path(CONF).iterdir() if p.is_dir() and p.name not in (*INTERNAL, "hydra"))
    order = ["model", "concept", "anchor", "method", "judge", "metric", "tracker", "experiment"]
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


# --- sweeps -----------------------------------------------------------------------------------------------------------


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
    """The overrides of each run of a command, in Hydra's order; of several sweeps one after the other, each run once.

    Raises:
        BadInput: as `sweep`.
    """
    return [
        list(choice)
        for choice in dict.fromkeys(
            choice for one in experiments(overrides) for choice in itertools.product(*sweep(one))
        )
    ]


def launching(overrides: Sequence[str]) -> tuple[bool, str]:
    """Is a command a sweep without -m, because its experiment says so; and by which launcher, of which `basic` is this process."""
    nodes = []
    for one in experiments(overrides):
        kept = [
            o for o in one if re.match(r"\+*(config_dir|experiment|hydra[./]\S+)=", o)
        ]  # the rest makes no difference
        nodes.append(composed(kept).hydra)
    return all(node.mode is not None and node.mode.name == "MULTIRUN" for node in nodes), str(
        nodes[0].runtime.choices.get("hydra/launcher")
    )


def experiments(overrides: Sequence[str]) -> list[list[str]]:
    """A command for each sweep: of each of the experiments that it names (`experiment=a,b`), each of its `sweeps`. What the command itself sets comes last.

    Raises:
        BadInput: there is no such experiment, or its `sweeps` are not a list of settings with their values.
    """
    named = [o for o in overrides if o.startswith("experiment=")]
    given = [o for o in overrides if o.startswith(("sweeps=", "config_dir="))]
    rest = [o for o in overrides if o not in named]
    commands = []
    for chosen in (
        [[line] for line in axis(named[-1], overrides)]
        if named
        else [[]]
        if any(o.startswith("sweeps=") for o in given)
        else ()
    ):
        sweeps: Any = composed([*chosen, *given]).sweeps
        if not isinstance(sweeps, ListConfig) or not all(isinstance(one, DictConfig) for one in sweeps):
            raise BadInput(
                f"{' '.join(chosen or given)}: sweeps must be a list of settings with their values, such as `- {{anchor: superclass, seed: '0,1'}}`."
            )
        commands += [
            [*chosen, *(f"{key}={show(values)}" for key, values in one.items()), *rest]
            for one in cast(list[dict[str, Any]], sweeps) or [{}]
        ]
    distinct = {
        repr(sorted(sweep(one))): one for one in commands
    }  # a command that sets what tells two sweeps apart makes them one
    return list(distinct.values()) or [rest]


def compose_all(runs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """The config of each run of a sweep. Nothing is checked: `validate` has done that."""
    found = []
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        for choice in runs:
            with sentences(choice):
                found.append(hydra.compose("config", hydras(choice)))
                place(found[-1])
    return found


def folders(configs: Sequence[DictConfig]) -> list[Path]:
    """Where each run of a sweep leaves its result."""
    return [Path(cfg.root) / run_id(cfg) for cfg in configs]


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Every axis of a command: the sweep written in its experiment, replaced where the command line names the same setting.

    Raises:
        BadInput: the overrides cannot be parsed, or name an experiment that does not exist; an axis is empty; it would be more than `MOST` runs.
    """
    chosen = [o for o in overrides if o.startswith(("experiment=", "config_dir="))]
    written = composed(chosen).hydra.sweeper.get("params") or {}
    lines = [*(f"{name}={show(values)}" for name, values in written.items()), *overrides]
    axes: dict[str, list[str]] = {}
    for line in lines:
        axes[line.partition("=")[0].strip() if "=" in line else line] = axis(line, overrides)
    if len(axes.get("root", ())) > 1:
        raise BadInput(
            f"root={','.join(one.partition('=')[2] for one in axes['root'])} names several folders: a sweep has one root."
        )
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
    if isinstance(value, Glob):
        options: Any = (
            n
            for n in names(str(one.key_or_group), overrides)
            if matches(n, value.include) and not matches(n, value.exclude)
        )
    else:
        options = one.sweep_string_iterator()
    with sentences([line]):
        values = [f"{key}={v}" for v in itertools.islice(options, MOST + 1)]
    if not values:
        raise BadInput(f"{line} matches no option: see `advanchor --help`.")
    return values


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Does a pattern fit the name, folder by folder? `*` stays within one."""
    return any(
        p.count("/") == name.count("/") and all(map(fnmatch.fnmatch, name.split("/"), p.split("/"))) for p in patterns
    )


# --- sentences --------------------------------------------------------------------------------------------------------


def parsed(line: str) -> Override:
    """One override in Hydra's grammar.

    Raises:
        BadInput: it is none; the sentence shows how to write it.
    """
    with sentences([line]):
        return OverridesParser.create().parse_overrides([line])[0]


@contextmanager
def sentences(overrides: Sequence[str]) -> Iterator[None]:
    """Hydra's errors become BadInput."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(sentence(error, overrides)) from None


def quoted(text: str) -> str:
    """A text as Hydra's grammar takes any."""
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + found[2].replace('"', '\\"'), text) + '"'


def shell(word: str) -> str:
    """A word as a shell takes it, in whichever quotes are easier to read."""
    return (
        '"' + word.replace('"', '\\"') + '"' if "'" in word and not re.search(r"[$`\\!]", word) else shlex.quote(word)
    )


def sentence(error: Any, overrides: Sequence[str] = ()) -> str:
    """Hydra's error in one sentence; `overrides` are those of the command, whose options say which settings there are."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        name, _, value = str(error.override).partition("=")
        better = f"{name}={quoted(value)}"
        if not re.fullmatch(r"[+~]*[\w./@:-]+", name):
            return (
                f"'{error.override}' is not key=value: the name of a setting has letters, digits, dots and underscores."
            )
        if value[:1] in ("[", "{", "(", "'", '"') or "(" in value:
            return f"{error.override} cannot be read: its brackets and quotes must match, with quotes around texts inside; as one text it is {shell(better)}."
        return f"{error.override} cannot be read: quote the value, {shell(better)}."
    if isinstance(error, MissingConfigException) and (found := re.search(r"Could not (?:find|load) '([^']+)'", text)):
        group, _, name = (
            found.group(1).rpartition("/") if found.group(1).startswith("hydra/") else found.group(1).partition("/")
        )
        if needed := {"ray": "ray", "joblib": "workers", "submitit_slurm": "slurm"}.get(
            name if group == "hydra/launcher" else ""
        ):
            return f"the launcher {name} is not installed: pip install 'advanchor[{needed}]'."
        options = names(group, overrides)
        if (folder := name.rpartition("/")[0]) and any(o.startswith(f"{folder}/") for o in options):
            options = [o for o in options if o.startswith(f"{folder}/")]
        if not options:
            return f"there is no {group}={name}: leave it out."
        leaves = {o.rpartition("/")[2]: o for o in reversed(options)}
        close = [
            leaves.get(c, c)
            for c in difflib.get_close_matches(name, [*options, *leaves], 1)
            if re.sub(r"\d", "", c) != re.sub(r"\d", "", name)
        ]  # sd15 is not sd14
        return (
            f"there is no {group}={name}: "
            + (f"did you mean {close[0]}? " if close else "")
            + f"There are {', '.join(options)}."
        )
    if isinstance(error, InterpolationKeyError | InterpolationResolutionError) and (
        found := re.search(r"[Ii]nterpolation key '([^']+)'", text)
    ):
        where = error.full_key or next((o for o in overrides if "${" + found.group(1) in o), "a setting")
        return f"{where} asks for ${{{found.group(1)}}}, and there is no such setting: write its value, or quote it if it is a text."
    if found := re.search(r"Could not override '([^']+)'", text):
        group, _, leaf = found.group(1).rpartition(".")
        rest = [
            o for o in overrides if "." not in o.partition("=")[0]
        ]  # the options that are chosen; another setting may be wrong, too
        if group and leaf in known_keys(group) and leaf not in (there := known_keys(group, rest)):
            own_ = ", ".join(k for k in there if k not in ("_target_", "name", "version"))
            return (
                f"there is no setting '{found.group(1)}' with this {group.partition('.')[0]}: it has {own_ or 'none'}."
            )
        if leaf in known_keys(group, rest):
            return f"{found.group(1)} keeps its entries and takes no new ones: replace it whole with `~{found.group(1)} +{found.group(1)}={{...}}`."
        close = difflib.get_close_matches(leaf, known_keys(group, rest), 1)
        return f"there is no setting '{found.group(1)}': " + (
            f"did you mean {group + '.' if group else ''}{close[0]}?"
            if close
            else "`advanchor --cfg job` prints all of them."
        )
    return blamed(overrides, error)


def blamed(overrides: Sequence[str], error: Exception) -> str:
    """The first override that keeps a config from being composed; of any other error its own words."""
    for i, line in enumerate(overrides):
        try:
            with hydra.initialize_config_dir(CONF, version_base="1.3"):
                hydra.compose("config", hydras(overrides[: i + 1]))
        except Exception:  # whatever it is
            name = re.split("[=@]", line.lstrip("+~"))[0]
            if name in groups():
                example = (
                    "metric=[erasure,fid] or metric=[]"
                    if name == "metric"
                    else f"one of {', '.join(names(name, overrides))}"
                )
                return f"{line} will not do, since {name} cannot be null and is chosen by the name of an option: {example}."
            return f"{line} will not do ({' '.join(str(error).split()[:40])}): `advanchor --cfg job` prints what can be set."
    return " ".join(str(error).split()[:60])


def known_keys(group: str, overrides: Sequence[str] = ()) -> list[str]:
    """Names under a dotted key of the config of a command, without any of the default one; at the top, groups and settings."""
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        try:
            node: Any = hydra.compose("config", hydras(overrides))
        except (HydraException, OmegaConfBaseException, ValueError):  # another mistake in the same command
            node = hydra.compose("config")
    for part in filter(None, group.split(".")):
        node = node.get(part) if isinstance(node, DictConfig) else None
    return [str(k) for k in node] if isinstance(node, DictConfig) else []
