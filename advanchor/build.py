"""What a config may build: our own options of the right kind, each setting of the right type and range."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from advanchor.concept import Concept
from advanchor.core import BadInput, Kind, show
from advanchor.criteria import gate_of
from advanchor.identity import STAGES, plain
from advanchor.machine import Lean, device
from advanchor.prompts import Sample
from advanchor.references import ignorant

GROUPS: tuple[Kind, ...] = ("model", "judge", "concept", "anchor", "method", "tracker")
TOP = (
    "metric",
    "attack",
    "attack_for",
    "never",
    "sample",
    "lean",
    "seed",
    "batch",
    "device",
    "longest",
    "stage",
    "root",
    "gate",
    "study",
    "sweeps",
    "table",
    "paper",
    "tune",
)
SETTINGS = "settings, as conf/config.yaml has them"
TYPES: dict[str, tuple[type, str]] = {  # of the settings that belong to no group, and how that is said
    "seed": (int, "a whole number"),
    "batch": (int, "a whole number"),
    "device": (str, "auto, cpu, cuda, cuda:1 or mps"),
    "root": (str, "a folder"),
    "study": (str, "a name"),
    "sample": (DictConfig, SETTINGS),
    "lean": (DictConfig, SETTINGS),
    "table": (DictConfig, SETTINGS),
    "tune": (DictConfig, SETTINGS),
    "metric": (DictConfig, "metrics, such as metric=[erasure,fid]"),
    "attack": (DictConfig, "attacks, such as attack=[synonyms,relearn]"),
}


def build(node: DictConfig, kind: Kind, where: str = "") -> Any:
    """Make a component from its config. Constructing is free: nothing is loaded, everything is checked.

    Args:
        kind: what it must be; `where`: how its settings are called, if not by its kind.

    Raises:
        BadInput: `_target_` is none of our options of this kind; an unknown or missing setting, or a value of the wrong
            type or range.
    """
    where = where or kind
    if not isinstance(node, DictConfig):
        raise BadInput(f"{where}={show(node)} will not do: name one of the options that `advanchor --help` lists.")
    settings, cls = cast(dict[str, Any], plain(node)), target(node.get("_target_"), kind, where)
    try:
        made = cls(**settings)
    except ValidationError as error:
        raise BadInput("; ".join(explain(e, where, settings, cls) for e in error.errors())) from None
    for name, given in settings.items():  # pydantic takes true for 1 and "1" for 1
        if isinstance(given, bool | str) and type(getattr(made, name)) in (int, float):
            raise BadInput(f"{where}.{name}={show(given)} will not do: it must be a number, without quotes.")
    return made


def target(name: Any, kind: Kind, where: str) -> type:
    """The class that a config names, if it is one of our options of this kind.

    Whatever else a name may lead to is not even looked up.

    Raises:
        BadInput: it is not.
    """
    module, _, leaf = str(name).rpartition(".")
    try:
        if not re.fullmatch(r"advanchor(\.\w+)+", module):
            raise ImportError
        found = vars(importlib.import_module(module)).get(leaf)
    except ImportError:
        found = None
    if not isinstance(found, type) or found.__module__ != module or vars(found).get("__option__") != kind:
        remedy = "leave it as the yaml files in conf/ have it"
        raise BadInput(f"{where}._target_ is '{name}', which is no {kind} of advanchor: {remedy}.")
    return found


def explain(error: Any, where: str, settings: Mapping[str, Any], cls: type) -> str:
    """One sentence for one pydantic error."""
    name = ".".join([where, *(str(part) for part in error["loc"])])
    holder = cls if len(error["loc"]) == 1 else Concept  # only a set of concepts holds others
    fields = [f.name for f in dataclasses.fields(holder) if f.init]
    if error["type"] == "unexpected_keyword_argument":
        close = difflib.get_close_matches(str(error["loc"][-1]), fields, 1)
        return f"there is no setting '{name}': " + (
            f"did you mean {name.rpartition('.')[0]}.{close[0]}?" if close else f"choose from {', '.join(fields)}."
        )
    if error["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{name} is missing: add it to the yaml file or the command line."
    if error["type"] == "too_short":
        return f"{name} is empty: give it at least one entry."
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}."
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{name}={show(error['input'])} will not do: {message}."


def check(cfg: DictConfig) -> None:
    """Build every component of a config, so that a mistake is said before anything is loaded.

    Raises:
        BadInput: as `build`, or a top-level setting that does not exist.
    """
    known = {*GROUPS, *TOP}
    for name in map(str, cfg):
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), 1)
            raise BadInput(
                f"there is no setting '{name}'"
                + (f": did you mean {close[0]}?" if close else f": choose from {', '.join(sorted(known))}.")
            )
    for name, (kind, what) in TYPES.items():
        value = cfg.get(name, OmegaConf.create() if name in ("metric", "attack") else None)  # [] leaves no such key
        if not isinstance(value, kind) or isinstance(value, bool) or value == "":
            raise BadInput(f"{name}={show(value)} will not do: it must be {what}.")
    for name, least in (("seed", 0), ("batch", 1)):
        if cfg[name] < least:
            raise BadInput(f"{name}={cfg[name]} will not do: it must be at least {least}.")
    staged(cfg)
    gate_of(cfg.get("gate"))
    longest = cfg.get("longest")
    if longest is not None and (not isinstance(longest, int) or isinstance(longest, bool) or longest < 0):
        raise BadInput(f"longest={show(longest)} will not do: it must be a number of steps, 0 or null.")
    if cfg.seed >= 10**11:  # torch's seeds end at 2^64
        why = "every step's random numbers come from a number that is 80 million times as large"
        raise BadInput(f"seed={cfg.seed} will not do: it must be below 10^11, since {why}.")
    if isinstance(cfg.anchor, DictConfig) and "_target_" not in cfg.anchor and isinstance(cfg.method, DictConfig):
        name = cfg.method.get("name")
        remedy = f"add conf/anchor_of/published_{name}.yaml, or name an anchor"
        raise BadInput(f"nothing says which anchor method={name} was published with: {remedy}.")
    built: dict[str, Any] = {group: build(cfg[group], group) for group in GROUPS}
    if getattr(built["method"], "guided", False) and cfg.sample.guidance == 1:
        raise BadInput(
            f"method={cfg.method.name} changes classifier-free guidance, and sample.guidance=1 is none: raise it."
        )
    built["concept"].prompts(sample_of(cfg))
    lean_of(cfg)
    for sort, name, node in listed(cfg):
        if not re.fullmatch(r"\w{1,60}", name):
            raise BadInput(f"{sort} '{name}' will not do: files are called by it, so it must be one plain word.")
        built[f"{sort}.{name}"] = build(node, sort, f"{sort}.{name}")
        if sort == "attack" and node.get("never") is not None:
            ignorant(str(node.never), [part.name for part in built["concept"].parts], "never")
    wanted = {f"{where.partition('.')[0]}={part.name}": getattr(part, "needs", ()) for where, part in built.items()}
    wanted[f"sample.scheduler={cfg.sample.scheduler}"] = sample_of(cfg).needs
    for what, needs in wanted.items():
        if lacks := [one for one in needs if one not in built["model"].offers]:
            raise BadInput(
                f"{what} needs {lacks[0]} as it is set, and model={cfg.model.name} has none: name another one, or "
                "another model."
            )
    built["model"].check()
    for part in (p for p in built.values() if hasattr(p, "suits")):  # some know or need only certain concepts
        for one in built["concept"].parts:
            part.suits(one)
    if cfg.device not in ("auto", "cpu"):  # which are always there, and need no torch to say so
        device(cfg.device)


def listed(cfg: DictConfig) -> list[tuple[Literal["metric", "attack"], str, DictConfig]]:
    """What a config measures: kind, name and settings of each metric and attack."""
    kinds: tuple[Literal["metric", "attack"], ...] = ("metric", "attack")
    return [(kind, str(name), node) for kind in kinds for name, node in (cfg.get(kind) or {}).items()]


def asked(cfg: DictConfig) -> list[tuple[Literal["metric", "attack"], str, DictConfig]]:
    """What of that its stage measures: without an edit there are pictures under the anchor alone."""
    if cfg.get("stage") != "anchor":
        return listed(cfg)
    found = [
        (kind, name, node, cast(Any, target(node.get("_target_"), kind, name))) for kind, name, node in listed(cfg)
    ]
    return [(kind, name, node) for kind, name, node, cls in found if kind == "metric" and {*cls.sets} <= {"anchor"}]


def staged(cfg: DictConfig) -> None:
    """Raise BadInput if there is no such stage, or it cannot measure what is asked for."""
    if (given := cfg.get("stage")) not in STAGES:
        remedy = "it must be erase, the whole run, or anchor, what comes before any weight is touched"
        raise BadInput(f"stage={show(given)} will not do: {remedy}.")
    if given == "anchor" and cfg.get("attack"):
        what = f"attack={','.join(map(str, cfg.attack))} is for an erased model, and stage=anchor erases nothing"
        raise BadInput(f"{what}: leave one of them out.")
    if given == "anchor" and not asked(cfg):
        raise BadInput("stage=anchor measures what is drawn under the anchor: say metric=[anchor].")


def sample_of(cfg: DictConfig) -> Sample:
    """How the images that a run measures are drawn."""
    node = OmegaConf.merge({"_target_": "advanchor.prompts.Sample"}, cfg.sample)
    return cast(Sample, build(cast(DictConfig, node), "sample"))


def lean_of(cfg: DictConfig) -> Lean:
    """What a run does without."""
    node = OmegaConf.merge({"_target_": "advanchor.machine.Lean"}, cfg.lean)
    return cast(Lean, build(cast(DictConfig, node), "lean"))
