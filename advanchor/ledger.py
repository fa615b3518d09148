"""The log of a store: `<root>/audit.jsonl`, to which each run adds a line when it begins and one when it ends.

A line is a JSON object that ends with `before`, the sha256 of the whole line before it (64 zeros for the first), and
`sum`, the sha256 of the line up to there. So a line that is changed, left out, moved or put in is found, and what every
line says hangs on all before it. Whoever may write the file can make all of it anew, or leave out its end: that shows
only beside a copy of the last line's digest, which `advanchor verify` prints.

Events: `opened` (the first; `runs` were finished before there was a log), `begin`, `done` (`result` is the sha256 of
result.json), `failed`, `stopped` (Ctrl-C, SIGTERM), `lost` (an earlier attempt at this run was killed) and `torn` (the
line before was cut off when its writer was killed, and stays as it is).
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import shlex
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from advanchor.core import BadInput
from advanchor.machine import environment
from advanchor.store import held, lock

LOG = "audit.jsonl"
LOCK = ".audit.lock"
FIRST = "0" * 64
HEADLINES = ("erasure/hit", "keep/hit")
SEAL = ', "sum": "'  # what stands before a line's own digest, at its end


@contextmanager
def told(root: Path, out: Path, words: Sequence[str], why: Callable[[Exception], str]) -> Iterator[None]:
    """Around a run in `out`, whose lock the caller holds: a line that it begins and one of how it ended.

    Args:
        words: of the command that makes it; none if nobody knows.
        why: what is said of an error.
    """
    command = {"command": shlex.join(["advanchor", *words])} if words else {}
    append(root, out.name, "begin", **here(), **command)
    try:
        yield
    except Exception as error:
        append(root, out.name, "failed", **here(), why=why(error))
        raise
    except BaseException as error:
        number = error.args[0] if error.args else signal.SIGINT  # as cli.stop raises it
        ended_by = signal.Signals(number).name if isinstance(error, KeyboardInterrupt) else type(error).__name__
        append(root, out.name, "stopped", **here(), why=ended_by)
        raise
    whole = (out / "result.json").read_bytes()
    scores = json.loads(whole)["scores"]
    found = {name: scores[name]["value"] for name in HEADLINES if name in scores}
    append(root, out.name, "done", **here(), result=hashlib.sha256(whole).hexdigest(), scores=found)


@cache
def here() -> dict[str, Any]:
    """Who runs what code, asked once in a process: git takes 40 ms."""
    code = environment("")
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    version = {"version": code["packages"]["advanchor"], "commit": code["commit"]}
    return {"who": f"{user}@{socket.gethostname()}", **version, **({"dirty": True} if code["dirty"] else {})}


def append(root: Path, run: str, event: str, **more: Any) -> None:
    """Add a line, and before it whatever must be said first; on the disk when it returns."""
    with lock(root / LOCK), (root / LOG).open("a+b") as file:
        file.seek(0)
        text = file.read()
        lines: list[dict[str, Any]] = []
        if not text:
            lines.append({"event": "opened", "runs": finished_in(root)})
        torn = bool(text) and not text.endswith(b"\n")
        if torn:
            lines.append({"event": "torn"})
        if event == "begin" and last_of(text, run) == "begin":  # whoever wrote that does not hold the run's lock now
            lines.append({"event": "lost", "run": run})
        lines.append({"event": event, "run": run, **more})
        before = hashlib.sha256(text.removesuffix(b"\n").rpartition(b"\n")[2]).hexdigest() if text else FIRST
        new = b"\n" if torn else b""
        for line in lines:
            raw = sealed({"time": datetime.now(UTC).isoformat(timespec="seconds"), **line, "before": before})
            new, before = new + raw + b"\n", hashlib.sha256(raw).hexdigest()
        file.write(new)
        file.flush()
        os.fsync(file.fileno())


def sealed(line: dict[str, Any]) -> bytes:
    """A line as it is written, with its own digest at its end."""
    text = json.dumps(line)
    return f'{text[:-1]}{SEAL}{hashlib.sha256(text.encode()).hexdigest()}"}}'.encode()


def opened(raw: bytes) -> dict[str, Any] | None:
    """What `sealed` wrote; None if it is nothing like that, or was changed."""
    text, seal, digest = raw.decode(errors="replace").rpartition(SEAL)
    if not seal or digest != hashlib.sha256(f"{text}}}".encode()).hexdigest() + '"}':
        return None
    try:
        line = json.loads(f"{text}}}")
    except ValueError:
        return None
    whole = isinstance(line, dict) and all(isinstance(line.get(name), str) for name in ("time", "event", "before"))
    return line if whole else None


def last_of(text: bytes, run: str) -> str | None:
    """The last event of a run, None if there is none."""
    for raw in reversed(text.split(b"\n")):
        if f'"run": "{run}"'.encode() in raw and (line := opened(raw)) and line.get("run") == run:
            return str(line["event"])
    return None


def finished_in(root: Path) -> list[str]:
    """The runs under `root` that have a result. Other folders may lie there too, exported models and records."""
    names = (file.parent.name for file in root.glob("*/result.json"))
    return sorted(name for name in names if re.fullmatch(r"[0-9a-f]{12}", name))


@dataclass
class Reading:
    """What a log says, read back.

    Attributes:
        lines: how many; `since` and `until` are the times of the first and the last.
        head: the last line's sha256.
        wrong: what cannot be as it should, a sentence each; `notes`: what happened, and is no contradiction.
    """

    lines: int = 0
    since: str = ""
    until: str = ""
    head: str = FIRST
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(root: Path) -> Reading:
    """Read a log back, and hold it against the results under its root. Nothing is written.

    Raises:
        BadInput: there is no log.
    """
    if not (root / LOG).is_file():
        raise BadInput(f"{root / LOG} is not there: name a root under which runs were made, or its {LOG}.")
    text, said = settled(root), Reading()
    *pieces, rest = text.split(b"\n")
    pieces += [rest] if rest else []
    told_of = [opened(raw) for raw in pieces]
    runs: dict[str, dict[str, Any]] = {}  # run -> its last line
    done: dict[str, str] = {}  # run -> sha256 of its last result
    earlier: list[str] = []
    for n, (raw, line) in enumerate(zip(pieces, told_of, strict=True), 1):
        if line is None:
            after = told_of[n] if n < len(pieces) else None
            if n == len(pieces) and rest:
                killed = "its writer was killed, or somebody cut it"
                said.wrong.append(f"line {n} is cut off: {killed}; the next run under {root} says so in a line")
            elif after and after["event"] == "torn":
                said.notes.append(f"line {n} was cut off when its writer was killed, before {after['time']}")
            else:
                said.wrong.append(f"line {n} is not as it was written")
        else:
            if line["before"] != said.head:
                what = f"line {n - 1}" if n > 1 else "the beginning"
                said.wrong.append(
                    f"line {n} does not follow {what}: a line there was changed, left out, moved or put in"
                )
            said.since, said.until = said.since or line["time"], line["time"]
            earlier += line.get("runs", [])
            if run := line.get("run"):
                runs[run] = line
                done |= {run: line.get("result", "")} if line["event"] == "done" else {}
                if line["event"] == "lost":
                    said.notes.append(f"run {run} was killed, and begun again at {line['time']}")
        said.lines, said.head = n, hashlib.sha256(raw).hexdigest()
    ended(root, runs, done, earlier, said)
    return said


def ended(root: Path, runs: dict[str, dict[str, Any]], done: dict[str, str], earlier: list[str], said: Reading) -> None:
    """Hold what the log says of runs against their folders."""
    there = finished_in(root)
    for run, line in runs.items():
        if held(root / run / ".lock"):
            said.notes.append(f"run {run} is under way")
            continue
        if line["event"] == "begin":
            since = f"run {run} began at {line['time']}, and no line says how it ended"
            if run in there and run not in done:
                said.wrong.append(f"{since}, but its result.json is there")
            else:
                said.notes.append(f"lost: {since}")
        if run in done and run not in there:
            said.wrong.append(f"run {run} was done, and its result.json is gone")
        elif run in done and hashlib.sha256((root / run / "result.json").read_bytes()).hexdigest() != done[run]:
            said.wrong.append(f"run {run} was done, and its result.json is no longer what it was")
    if untold := [run for run in there if run not in runs and run not in earlier]:
        said.wrong += [f"run {run} has a result.json, and no line tells of it" for run in untold]
    if old := [run for run in earlier if run in there and run not in done]:
        said.notes.append(f"results older than the log, of which it says nothing: {len(old)}")


def settled(root: Path) -> bytes:
    """The bytes of a log that nobody is writing to at this moment."""
    text = (root / LOG).read_bytes()
    while text and not text.endswith(b"\n"):
        writing = held(root / LOCK)
        again = (root / LOG).read_bytes()
        if again == text and not writing:
            break
        text = again
    return text
