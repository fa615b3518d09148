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
from advanchor.run import finished
from advanchor.store import lock, read_json, write_json

log = logging.getLogger(__name__)


@runtime_checkable
class Gathering(Protocol):
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
    that table is not there yet.
    """
    tracker = configs[0].tracker.copy()
    if len(configs) < 2 or "job_type" not in tracker:
        return
    tracker.job_type, tracker.group = "sweep", configs[0].tracker.group
    made = build(tracker, "tracker")
    if not isinstance(made, Gathering) or not all(finished(cfg) for cfg in configs):
        return
    from advanchor.results import figures, tables

    name = named(configs)
    folder = Path(configs[0].root) / "sweeps" / name
    lines = json.loads(tables.table(overrides, "json"))["scores"]
    with lock(folder / ".lock"):
        kept = folder / "sweep.json"
        if kept.exists() and read_json(kept)["table"] == key(lines):
            return

        def make() -> tuple[list[dict[str, Any]], list[Path]]:
            shown = [o for o in overrides if not o.lstrip("+").startswith("table.cells=")]
            try:
                figures.main([*shown, f"--to={folder / 'figures'}"])
            except BadInput as error:
                log.info("no figures for the tracker: %s", error)
            return lines, sorted((folder / "figures").glob("*.png"))

        words = [o for o in overrides if not o.startswith("root=")]
        made.start(name, {"words": words, "runs": [run_id(cfg) for cfg in configs]}, folder)  # type: ignore[attr-defined]
        made.sweep(make)
        where = made.finish({}, None, False)  # type: ignore[attr-defined]
        if not where.startswith("not logged"):
            log.info("the sweep's table at the tracker: %s", where)
            write_json(kept, {"table": key(lines), "tracker": where})
