"""Where progress is shown: Weights & Biases, a JSON-lines file, or nowhere. result.json is the record; a tracker that fails costs no run."""

from __future__ import annotations

import json
import logging
import netrc
import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from advanchor.core import Scores, option

log = logging.getLogger(__name__)


@option("tracker")
class NoTracker:
    """Shows nothing."""

    name: str

    def start(self, run: str, config: dict[str, Any], out: Path) -> None:
        """Nothing to open."""

    def log(self, step: int, **scalars: float) -> None:
        """Nothing to write."""

    def finish(self, scores: Scores, grid: Path | None, failed: bool) -> str:
        return "none"


@option("tracker")
class JsonLines:
    """One line per event in <run folder>/<file>."""

    name: str
    file: str = "progress.jsonl"

    def start(self, run: str, config: dict[str, Any], out: Path) -> None:
        object.__setattr__(self, "path", out / self.file)
        self._write({"event": "start", "run": run, "config": config}, "w")

    def log(self, step: int, **scalars: float) -> None:
        self._write({"event": "step", "step": step, **scalars})

    def finish(self, scores: Scores, grid: Path | None, failed: bool) -> str:
        self._write({"event": "finish", "failed": failed, "scores": scores})
        return str(self.path)  # type: ignore[attr-defined]

    def _write(self, event: dict[str, Any], mode: str = "a") -> None:
        with self.path.open(mode) as f:  # type: ignore[attr-defined]
            f.write(json.dumps(event) + "\n")


@option("tracker")
class WandB:
    """Weights & Biases through its client: online if logged in, else offline (`wandb sync <folder>` uploads it later).

    Attributes:
        project, group: where the run appears; job_type is the method's name.
        mode: auto decides as above; WANDB_MODE in the environment wins over auto.
    """

    name: str
    project: str
    group: str
    job_type: str
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"

    def start(self, run: str, config: dict[str, Any], out: Path) -> None:
        """Open the run. From here on a failure of W&B is logged once and the tracker goes quiet."""
        object.__setattr__(self, "_run", None)
        try:
            import wandb

            mode: Any = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline") if self.mode == "auto" else self.mode
            settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
            opened = wandb.init(
                project=self.project, group=self.group, job_type=self.job_type, id=run, name=run, resume="allow", reinit="finish_previous",
                config=config, dir=str(out), mode=mode, settings=settings,
            )  # fmt: skip
            opened.define_metric("train_step")
            for prefix in ("train/*", "anchor/*"):
                opened.define_metric(prefix, step_metric="train_step")
            object.__setattr__(self, "_run", opened)
        except Exception as error:
            log.warning("Weights & Biases could not be started (%s): the run goes on without it.", _line(error))

    def log(self, step: int, **scalars: float) -> None:
        self._try(lambda run: run.log({"train_step": step, **scalars}))

    def finish(self, scores: Scores, grid: Path | None, failed: bool) -> str:
        """Scores into the summary, the grid as an image; returns where the run is."""

        def end(run: Any) -> None:
            import wandb

            if grid is not None:
                run.log({"grid": wandb.Image(str(grid))})
            run.summary.update({name: score["value"] for name, score in scores.items()})

        self._try(end)
        run = self._run  # type: ignore[attr-defined]
        where = "not logged" if run is None else str(Path(run.dir).parent) if run.offline else run.url
        self._try(lambda run: run.finish(exit_code=int(failed)))
        return where

    def _try(self, call: Any) -> None:
        run = self._run  # type: ignore[attr-defined]
        if run is None:
            return
        try:
            call(run)
        except Exception as error:
            log.warning("Weights & Biases failed (%s): the run goes on without it.", _line(error))
            object.__setattr__(self, "_run", None)


def _logged_in() -> bool:
    """True if the W&B client would find a key without asking."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
