"""The story that a command tells while it works, on the standard error: tables stand on the standard output.

A run says what it is, where it goes and which stage it is at; a sweep how many of its runs are done, running, failed
and left, whoever runs them, and how long the rest will take. What can be counted has a bar (tqdm) below these lines.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from advanchor.store import held

log = logging.getLogger("advanchor")
SECONDS = 2.0  # between looks at the folders


class Above(logging.Handler):
    """Lines above whatever bar is shown; one that repeats the last is left out."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        if (line := self.format(record)) != self.last:
            self.last = line
            tqdm.write(line, file=sys.stderr)


def speak(stages: bool) -> None:
    """Let our own lines be read, other libraries' only if they warn.

    Args:
        stages: also those of a run's stages (machine.stage), which are too many for a sweep.
    """
    logging.basicConfig(format="%(message)s", handlers=[Above()], level=logging.WARNING)
    logging.getLogger("advanchor").setLevel(logging.INFO)
    logging.getLogger("advanchor.machine").setLevel(logging.INFO if stages else logging.WARNING)


def title(cfg: DictConfig) -> str:
    """A run in words: what is erased, towards which anchor, by which method."""
    return f"{cfg.concept.name}, {cfg.anchor.name} in {cfg.method.name}, seed {cfg.seed}"


@dataclass(frozen=True)
class State:
    """How many runs of a sweep are in which state."""

    done: int
    running: int
    failed: int
    left: int


def state(folders: Sequence[Path]) -> State:
    """What the runs' folders say: a result, a lock that somebody holds, an error, or nothing yet."""
    done = [f for f in folders if (f / "result.json").exists()]
    rest = [f for f in folders if f not in done]
    running = [f for f in rest if held(f / ".lock")]
    failed = [f for f in rest if f not in running and (f / "error.txt").exists()]
    return State(len(done), len(running), len(failed), len(rest) - len(running) - len(failed))


def line(now: State, first: State, seconds: float) -> str:
    """The state in words; the estimate is from the runs that were finished in the `seconds` since `first`."""
    total = now.done + now.running + now.failed + now.left
    words = f"sweep: {now.done} of {total} done, {now.running} running, {now.failed} failed, {now.left} left"
    finished = now.done - first.done
    if finished and now.left + now.running:
        minutes = seconds / finished * (now.left + now.running / 2) / 60  # runs under way are half done on average
        words += f", about {minutes:.0f} min" if minutes >= 1 else ", less than a minute"
    return words


@contextmanager
def shown(folders: Sequence[Path]) -> Iterator[None]:
    """Log the line whenever it changes, while the sweep goes on in this process, in its workers or elsewhere."""
    first, start, over = state(folders), time.monotonic(), threading.Event()
    log.info(line(first, first, 0.0))

    def watch() -> None:
        before = first
        while not over.wait(SECONDS):
            if (now := state(folders)) != before:
                before = now
                log.info(line(now, first, time.monotonic() - start))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        log.info(line(state(folders), first, time.monotonic() - start))
