"""Progress at Weights & Biases. result.json is the record: a server that fails is said once and costs no run."""

from __future__ import annotations

import logging
import netrc
import os
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from advanchor.core import Rate, Scores, option

log = logging.getLogger(__name__)
# In the environment once W&B did not answer: neither this process nor one that it starts waits for it again.
UNREACHED = "ADVANCHOR_WANDB_UNREACHED"
ONLINE, OFFLINE = ("online", "run", "shared"), ("offline", "dryrun")  # what WANDB_MODE can be; also "disabled"
MODES = {**dict.fromkeys(ONLINE, "online"), **dict.fromkeys(OFFLINE, "offline"), "disabled": "disabled"}


@option("tracker")
class WandB:
    """Weights & Biases through its client: online if logged in, else offline (`wandb sync <folder>` uploads it later).

    A server that does not answer in `wait` seconds is said and done without: the run is logged offline, and so are all
    that follow in this process and in the workers that it starts. A run that the caller has open stays open and
    untouched. All files of the run lie in its folder.

    Attributes:
        project, group: where the run appears; job_type is the method's name. Of group and job_type the first 128
            characters count. The runs of a sweep share a group (commands/tracked.py).
        mode: auto decides as above; WANDB_MODE in the environment wins over auto.
        wait: seconds for the server to answer, at the start and for what is left to upload at the end.
        page: make the run's page of pictures (`advanchor gallery`) and keep it as an artifact; it takes seconds.
    """

    name: str
    project: str
    group: str
    job_type: str
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    wait: Rate = 15.0
    page: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^/\\#?%:]{1,128}", self.project) or not self.project.strip():
            rule = "must be a name of at most 128 characters without / \\ # ? % and :, which W&B refuses"
            raise ValueError(f"project {self.project!r} {rule}")
        if (given := os.environ.get("WANDB_MODE", "")) and given not in MODES:
            remedy = "set it to online, offline or disabled, or remove it"
            raise ValueError(f"WANDB_MODE={given} in the environment is no mode of Weights & Biases: {remedy}")

    def start(self, run: str, config: dict[str, Any], out: Path) -> None:
        """Open the run. From here on a failure of W&B is logged once and the tracker goes quiet."""
        mode, because = self._chosen()
        object.__setattr__(self, "_run", None)
        object.__setattr__(self, "_where", f"not logged ({because})" if mode == "disabled" else "not logged")
        if mode == "disabled":
            return
        name, unreached = run, ""
        if mode == "online":
            unreached = "it did not answer before" if UNREACHED in os.environ else self._unreached()
        if mode == "online" and not unreached:
            try:
                self._open(run, run, config, out, "online")
                return
            except Exception as error:
                unreached, name = _line(error), f"{run}-offline"  # W&B's process holds the first one until ours ends
        if unreached:
            os.environ[UNREACHED] = "1"
        try:
            self._open(name, run, config, out, "offline")
            if unreached:
                where = self._where  # type: ignore[attr-defined]
                log.warning("Weights & Biases (%s) cannot be reached: %s.", _server(), unreached)
                log.warning("Logged offline: `wandb sync %s` uploads it later.", where)
        except Exception as error:
            log.warning("Weights & Biases could not be started (%s): the run goes on without it.", _line(error))

    def _unreached(self) -> str:
        """Why the server gives no answer of any kind within `wait` seconds; nothing if it does.

        Its client would be silent for a minute and a half.
        """
        log.info("asking Weights & Biases (%s), for at most %g seconds", _server(), self.wait)
        said: list[str] = []

        def ask() -> None:
            try:
                urllib.request.urlopen(_server(), timeout=self.wait).close()
                said.append("")
            except urllib.error.HTTPError:
                said.append("")
            except (OSError, ValueError) as error:
                reason = getattr(error, "reason", error)
                trusted = isinstance(reason, ssl.SSLError)  # somebody answered; the client has certificates of its own
                said.append("" if trusted else str(reason) or type(reason).__name__)

        asking = threading.Thread(target=ask, daemon=True)  # a name server's own time limit is longer
        asking.start()
        asking.join(self.wait)
        return said[0] if said else "no answer"

    def _chosen(self) -> tuple[str, str]:
        """The mode, and what says so."""
        if self.mode != "auto":
            return self.mode, f"tracker.mode={self.mode}"
        if given := os.environ.get("WANDB_MODE"):
            return MODES[given], f"WANDB_MODE={given}"
        return ("online" if _logged_in() else "offline"), ""

    def _open(self, run: str, shown: str, config: dict[str, Any], out: Path, mode: Any) -> None:
        import wandb

        limits = {"init_timeout": self.wait, "finish_timeout": self.wait} if mode == "online" else {}
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, **limits)
        opened = wandb.init(
            project=self.project, group=self.group[:128] or None, job_type=self.job_type[:128], id=run, name=shown,
            resume="allow", reinit="create_new", config=config, dir=str(out), mode=mode, settings=settings,
        )  # fmt: skip
        opened.define_metric("train_step")
        for prefix in ("train/*", "anchor/*"):
            opened.define_metric(prefix, step_metric="train_step")
        object.__setattr__(self, "_run", opened)
        object.__setattr__(self, "_where", str(Path(opened.dir).parent) if opened.offline else opened.url)

    def log(self, step: int, **scalars: float) -> None:
        self._try(lambda run: run.log({"train_step": step, **scalars}))

    def show(self, make: Callable[[], str]) -> None:
        """The run's page of pictures as its artifact. A page that cannot be made is said and costs no run.

        It lies with what W&B keeps of the run, which takes it from there, also later, when the run is synchronised.
        """
        if self._run is None or not self.page:  # type: ignore[attr-defined]
            return
        try:
            html = make()
        except Exception as error:
            log.warning("The page of pictures could not be made (%s): the run goes on without it.", _line(error))
            return

        def send(run: Any) -> None:
            import wandb

            file = Path(run.dir) / "gallery.html"
            file.write_text(html, encoding="utf-8")
            artifact = wandb.Artifact(f"gallery-{run.id}", type="gallery")
            artifact.add_file(str(file), policy="immutable")  # as it is: W&B's own copy would lie in the home folder
            run.log_artifact(artifact)

        self._try(send)

    def sweep(self, make: Callable[[], tuple[list[dict[str, Any]], list[Path]]]) -> None:
        """A sweep's table, a line for every score, and its figures; asked for only if they are kept."""
        if self._run is None:  # type: ignore[attr-defined]
            return
        try:
            lines, figures = make()
        except Exception as error:
            log.warning("The sweep's table could not be made (%s).", _line(error))
            return

        def send(run: Any) -> None:
            import wandb

            table = wandb.Table(columns=list(lines[0]), data=[list(line.values()) for line in lines])
            run.log({"table": table, **{f"figures/{file.stem}": wandb.Image(str(file)) for file in figures}})

        if ours := "WANDB_DATA_DIR" not in os.environ:  # a copy of the table would lie in the home folder
            os.environ["WANDB_DATA_DIR"] = str(Path(self._run.dir).parent / "data")  # type: ignore[attr-defined]
        self._try(send)
        if ours:
            os.environ.pop("WANDB_DATA_DIR")

    def finish(self, scores: Scores, grid: Path | None, failed: bool) -> str:
        """Scores into the summary, the grid as an image; returns where the run is, or why it is nowhere."""

        def end(run: Any) -> None:
            import wandb

            if grid is not None:
                run.log({"grid": wandb.Image(str(grid))})
            run.summary.update({name: score["value"] for name, score in scores.items()})

        self._try(end)
        self._try(lambda run: run.finish(exit_code=int(failed)))
        return str(self._where)  # type: ignore[attr-defined]

    def _try(self, call: Any) -> None:
        run = self._run  # type: ignore[attr-defined]
        if run is None:
            return
        try:
            call(run)
        except Exception as error:
            log.warning("Weights & Biases failed (%s): the run goes on without it.", _line(error))
            object.__setattr__(self, "_run", None)


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def _logged_in() -> bool:
    """True if the W&B client would find a key without asking."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(_server()).hostname or "") is not None
    except (OSError, ValueError, netrc.NetrcParseError):
        return False


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
