"""Every score of every run of a sweep, as one file that can be read without us (docs/schema/result.json)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from advanchor.build import build, sample_of
from advanchor.compose import compose_all, expand
from advanchor.exchange.card import shared
from advanchor.prompts import Prompt
from advanchor.results.overview import finished_runs
from advanchor.results.sweep import label, scores
from advanchor.units import with_interval

BEHIND = ("values", "share", "texts", "code")  # what a metric's file has of a score and a result has not

QUOTED = re.compile(r"""(["'])~?/[^"']*?([^/"']*)/?\1""")  # an absolute path in quotes
PLACE = re.compile(r"""(?<=[=\[,{:])~?/[^\s,:\[\]{}"']+""")  # one without, where a value begins


@dataclass
class Finished:
    """A finished run.

    Attributes:
        row: what its line of the table is called; `column`: what its column is.
        words: of the command that makes it alone, without the folders of this machine.
        result: what its result.json holds, without them too.
        prompts: the images of each set.
        codes: of each metric and attack what made its scores.
    """

    cfg: DictConfig
    row: tuple[str, ...]
    column: tuple[str, ...]
    words: list[str]
    result: dict[str, Any]
    prompts: dict[str, list[Prompt]]
    codes: dict[str, str]


def collected(overrides: Sequence[str]) -> list[Finished]:
    """The runs of a sweep that are there, in its order, each with every score that a metric's file holds and the values
    of single images behind it.

    Raises:
        BadInput: as `finished_runs`, or a file of scores is damaged.
    """
    choices = expand(overrides)
    configs = compose_all(choices)
    table, found = configs[0].table, []
    for cfg, result, words in finished_runs(overrides, choices, configs):
        prompts = build(cfg.concept, "concept").prompts(sample_of(cfg))
        measured = scores(Path(cfg.root) / result["run"], result, cfg)
        told, codes = shared(result), dict[str, str]()
        for name, (settings, score) in measured.items():
            inside = {key: value for key, value in score.items() if key in BEHIND}
            told["scores"][name] = {**with_interval(prompts, name, score), **inside}
            kind, one = ("attack", name.split("/")[1]) if name.startswith("attack/") else ("metric", settings["name"])
            told["config"].setdefault(kind, {})[one] = shared(settings)
            codes[one] = score["code"]
        row, column = (tuple(label(cfg, name) for name in table[axis]) for axis in ("rows", "columns"))
        found.append(Finished(cfg, row, column, anywhere(words), told, prompts, codes))
    return found


def collection(overrides: Sequence[str], runs: Sequence[Finished], missing: Sequence[str]) -> dict[str, Any]:
    """What results.json holds.

    Args:
        missing: the commands of the runs that are not there.
    """
    table = runs[0].cfg.table
    return {
        "advanchor": version("advanchor"),
        "command": command("", overrides),
        "wanted": len(runs) + len(missing),
        "missing": [shlex.join(anywhere(shlex.split(one))) for one in missing],
        "rows": list(table.rows),
        "columns": list(table.columns),
        "runs": [one.result for one in runs],
    }


def command(verb: str, overrides: Sequence[str]) -> str:
    """What makes the runs of a sweep, on whatever machine; or what a verb does with them."""
    several = ["-m"] if not verb and len(expand(overrides)) > 1 else []
    own = [f"--config-dir={word.partition('=')[2]}" for word in overrides if word.startswith("config_dir=")]
    rest = [word for word in overrides if not word.startswith("config_dir=")]
    return shlex.join(["advanchor", *([verb] if verb else several), *anywhere([*own, *rest])])


def anywhere(words: Sequence[str]) -> list[str]:
    """The words of a command without the folders of this machine: of an absolute path its last name, and no `root`."""
    kept = [word for word in words if not word.startswith(("root=", "longest="))]
    return [PLACE.sub(lambda found: Path(found[0]).name, QUOTED.sub(r"\1\2\1", word)) for word in kept]
