"""A line for a sweep: how many of its runs are done, running, failed and left, whoever runs them, and how long the rest
will take.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from advanchor.store import held

log = logging.getLogger("advanchor")
SECONDS = 2.0  # between looks at the folders


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
