"""A sweep at the tracker: its runs in one group, and once all are finished one run more with its table and figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from omegaconf import DictConfig, OmegaConf

from advanchor.build import build
from advanchor.core import BadInput
from advanchor.identity import key, run_id
from advanchor.protocols import Tracker
from advanchor.results import figures, tables
from advanchor.run import finished
from advanchor.store import lock, read_json, write_json

log = logging.getLogger(__name__)
KEPT = "sweep.json"  # which table the tracker has, and where


@runtime_checkable
class Gathering(Tracker, Protocol):
    """A tracker that keeps a sweep's table (a line for every score) and figures, in a run that it has started; it asks
    for them only if it will.
    """

    def sweep(self, make: Callable[[], tuple[list[dict[str, Any]], list[Path]]]) -> None: ...


def grouped(configs: Sequence[DictConfig]) -> str:
    """Put the runs of a sweep into one group of the tracker, named after the runs, and return its name; nothing where
    the experiment or the command names a group, or the tracker has none.
    """
    if len(configs) < 2 or any(cfg.study != "base" or written(cfg) != "${study}" for cfg in configs):
        return ""
    group = named(configs)
    for cfg in configs:
        cfg.tracker.group = group
    return group


def written(cfg: DictConfig) -> Any:
    """The group as the config has it, before `${study}` is replaced."""
    return OmegaConf.to_container(cfg.tracker, resolve=False).get("group")  # type: ignore[union-attr]


def named(configs: Sequence[DictConfig]) -> str:
    """What a sweep is called: the same runs have the same name, in whatever words."""
    return f"sweep-{key(sorted({run_id(cfg) for cfg in configs}))}"


def gathered(overrides: Sequence[str], configs: Sequence[DictConfig]) -> None:
    """Log a sweep's table and figures as one run of the tracker, in the group of its runs, if all are finished and
    that table is not there yet. The runs are there, whatever becomes of it.
    """
    tracker = configs[0].tracker.copy()
    if len(configs) < 2 or "job_type" not in tracker:
        return
    tracker.job_type, tracker.group = "sweep", configs[0].tracker.group
    made = build(tracker, "tracker")
    if not isinstance(made, Gathering) or not all(finished(cfg) for cfg in configs):
        return
    folder = Path(configs[0].root) / "sweeps" / named(configs)
    lines = json.loads(tables.table(overrides, "json"))["scores"]
    try:
        if not there(folder, lines):
            with lock(folder / ".lock"):
                if not there(folder, lines):  # nor has another process made it meanwhile
                    made.start(folder.name, {"words": [*overrides], "runs": [run_id(cfg) for cfg in configs]}, folder)
                    made.sweep(lambda: (lines, painted(overrides, folder / "figures")))
                    where = made.finish({}, None, False)
                    if not where.startswith("not logged"):
                        log.info("the sweep's table at the tracker: %s", where)
                        write_json(folder / KEPT, {"table": key(lines), "tracker": where})
    except OSError as error:
        log.warning("The sweep's table is not at the tracker: %s cannot be written (%s).", folder, error.strerror)


def there(folder: Path, lines: Sequence[dict[str, Any]]) -> bool:
    """Has the tracker this table?"""
    return (folder / KEPT).exists() and read_json(folder / KEPT)["table"] == key(lines)


def painted(overrides: Sequence[str], folder: Path) -> list[Path]:
    """The sweep's figures, or none where they cannot be drawn, which is said."""
    try:
        figures.main([*(o for o in overrides if not o.lstrip("+").startswith("table.cells=")), f"--to={folder}"])
    except BadInput as error:
        log.info("no figures for the tracker: %s", error)
    return sorted(folder.glob("*.png"))
