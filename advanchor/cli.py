"""`advanchor key=value ...` runs one experiment, `-m` runs many, `advanchor table|plot ...` lays out what they left.

The runs of a sweep are made one after the other in this process, or by Hydra where a launcher is named. Tables and
whatever else is asked for stand on the standard output, the story of how they came about on the standard error.
"""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advanchor.commands.attempts import assisted, attempt, reason, writable
from advanchor.commands.launch import PRINTING, launched, printed
from advanchor.core import BadInput
from advanchor.verbs import PLACED, VERBS, is_place

if TYPE_CHECKING:
    from omegaconf import DictConfig

FLAGS = "-m, --config-dir=<folder>, --cfg job, --help and --version"
log = logging.getLogger("advanchor.cli")  # also when run as `python -m`: the level is set for "advanchor"


def main() -> None:
    """Entry point. Exit code 1 and one sentence for anything the user can mend; 130 after Ctrl-C and 143 after SIGTERM,
    with one line.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as a shell starts what goes on in the background
            signal.signal(number, stop)
    try:
        code: int | str | None = command(sys.argv[1:])
    except BadInput as error:
        code = f"advanchor: {error}"
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        print("\nadvanchor: stopped; what is computed stays, and the same command goes on from there.", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + number)  # whatever else would wait for threads, networks and workers
    except BrokenPipeError:  # `advanchor --help | head`
        os._exit(128 + signal.SIGPIPE)
    except Exception as error:
        code = f"advanchor: {reason(error, Path(), 'above')}"
        if "report it" in code:
            traceback.print_exc()
    sys.exit(code)


def stop(number: int, frame: Any) -> None:
    """The first signal lets the run close its tracker; the second ends it at once."""
    signal.signal(number, lambda *_: os._exit(128 + number))
    raise KeyboardInterrupt(number)


def command(words: Sequence[str]) -> str | None:
    """What the words ask for; returns what is to be said of runs that failed, or of what a command found wrong.

    Raises:
        BadInput: the words make no command, or a setting will not do.
    """
    verb = words[0] if words and words[0] in VERBS else ""
    words, folder = configs_of(words[1:] if verb else words)
    flags, plain = [w for w in words if w.startswith("-")], [w for w in words if not w.startswith("-")]
    helped = bool({"-h", "--help"} & set(flags))  # which needs nothing else to be right
    if verb:
        return by_verb(verb, flags, [] if helped else [*folder, *plain])
    elif helped:
        from advanchor.commands.help import help_text
        from advanchor.compose import read

        print(help_text(read(folder)))
    elif "--version" in flags:
        from importlib.metadata import version

        print(f"advanchor {version('advanchor')}")
    elif any(w.partition("=")[0] in PRINTING for w in flags):
        printed(words, folder)
    elif unknown := [w for w in flags if w not in ("-m", "--multirun")]:
        raise BadInput(f"{unknown[0]} is no flag of advanchor: there are {FLAGS}; settings are key=value.")
    else:
        return runs_of([*folder, *plain], bool(flags))
    return None


def configs_of(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words without --config-dir, and the user's folder of configs as an override."""
    rest, found, left = [], [], iter(words)
    for word in left:
        flag, equals, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            found.append(f"config_dir={value if equals else next(left, '')}")
        else:
            rest.append(word)
    return rest, found


def by_verb(verb: str, flags: Sequence[str], words: Sequence[str]) -> str | None:
    """Print what `advanchor table` and the like say; returns what is to be said of what they found wrong."""
    from advanchor.compose import read
    from advanchor.results.progress import speak

    speak(stages=verb != "tune")
    places = [w for w in words if verb in PLACED and is_place(w)]
    said = importlib.import_module(VERBS[verb]).main([*flags, *places, *read([w for w in words if w not in places])])
    text, wrong = said if isinstance(said, tuple) else (said, None)
    print(text)
    return wrong


def runs_of(words: Sequence[str], many: bool) -> str | None:
    """One run with its closing table, or a sweep with a line for each run and its own table.

    Args:
        many: was -m given?

    Raises:
        BadInput: a mistake in the words, or `root` cannot be written; nothing has been loaded.
    """
    from advanchor.compose import compose, compose_all, expand, launching, read, validate
    from advanchor.compose.sweeps import axis
    from advanchor.results.progress import speak

    overrides = read(words)
    runs, (alone, by) = expand(overrides), launching(overrides)
    many = many or alone
    if not many and len(runs) > 1:
        several = next((o for o in overrides if len(axis(o, overrides)) > 1), "the experiment")
        remedy = f"add -m for a sweep of {len(runs)} runs, or quote the value if it is one text."
        raise BadInput(f"{several} names several values: {remedy}")
    if not many and by != "basic":
        raise BadInput(f"hydra/launcher={by} launches the runs of a sweep: add -m.")
    if judging := [o for o in overrides if o.startswith(("gate=", "gate."))]:
        raise BadInput(f"{judging[0]} is for finished runs: leave it out, and say `advanchor gate ...` afterwards.")
    speak(stages=not many)
    if not many:
        return alone_of(compose(runs[0]), runs[0])
    validate(overrides)
    return sweep_of(overrides, runs, compose_all(runs), by)


def alone_of(cfg: DictConfig, words: Sequence[str]) -> str | None:
    """One run, and its table on the standard output."""
    from advanchor.compose import by_itself
    from advanchor.identity import run_id
    from advanchor.report import table
    from advanchor.results.progress import title
    from advanchor.run import finished
    from advanchor.store import held

    out = Path(cfg.root) / run_id(cfg)
    failed: dict[Path, str] = {}
    result = finished(cfg)
    if result:
        log.info("%s -> %s is complete: nothing to compute.", title(cfg), out)
    else:
        writable(Path(cfg.root))
        log.info("%s -> %s: loading ...", title(cfg), out)
        result = attempt(cfg, out, failed, by_itself(words))
        if not result and not failed:
            log.info("%s is running in another process: drawing with it ...", out)
            assisted(cfg, out)
            if held(out / ".lock"):
                log.info("%s: its images are drawn, the rest is left to it.", out)
            else:  # it has finished, or died
                result = finished(cfg) or attempt(cfg, out, failed, by_itself(words))
    if result:
        print(f"\n{table(result)}\n")
    return said(failed)


def sweep_of(
    overrides: Sequence[str], runs: Sequence[Sequence[str]], configs: Sequence[DictConfig], by: str
) -> str | None:
    """The runs of a sweep, and the table of those that are there.

    Args:
        by: the launcher; `basic` is this process.

    Raises:
        BadInput: the table cannot be laid out as the config says, or `root` cannot be written.
    """
    from advanchor.commands.budgets import ascending
    from advanchor.commands.tracked import gathered, grouped
    from advanchor.compose import folders
    from advanchor.results import tables
    from advanchor.results.progress import shown
    from advanchor.results.sweep import check
    from advanchor.run import finished

    check(configs[0].table, configs)
    places, failed = folders(configs), dict[Path, str]()
    complete = [bool(finished(cfg)) for cfg in configs]
    order, group = ascending(configs, complete), grouped(configs)
    if not all(complete):
        writable(Path(configs[0].root))
    with shown(places):
        if by != "basic" and not all(complete):
            own = [f"tracker.group={group}"] if group else []
            longest = max(cfg.get("longest") or 0 for cfg in configs)
            if why := launched([*overrides, *own], str(configs[0].root), longest):
                failed[Path(configs[0].root)] = why
        else:
            one_by_one(runs, configs, places, failed, complete, order)
    for out in places:  # also what failed in a launcher's workers
        if out not in failed and not (out / "result.json").exists() and (out / "error.txt").exists():
            failed[out] = (out / "error.txt").read_text().splitlines()[0]
    if any((out / "result.json").exists() for out in places):
        try:
            print(f"\n{tables.table(overrides)}\n")
        except BadInput as error:  # the runs are there, whatever keeps them from standing side by side
            print(f"\nno table: {error}\n")
        else:
            gathered(overrides, configs)
        print(f"advanchor table {shlex.join(again(overrides))}".rstrip())
    return said(failed)


def one_by_one(
    runs: Sequence[Sequence[str]],
    configs: Sequence[DictConfig],
    places: Sequence[Path],
    failed: dict[Path, str],
    complete: Sequence[bool],
    order: Sequence[int],
) -> None:
    """The runs of a sweep in this process, in this order, with a line for each."""
    from advanchor.compose import by_itself
    from advanchor.run import finished
    from advanchor.store import held

    common = set.intersection(*map(set, runs)) if len(runs) > 1 else set()
    elsewhere: list[int] = []
    for n, i in enumerate(order, 1):
        start, out = time.monotonic(), places[i]
        if complete[i]:
            state = "complete, nothing to compute"
        elif attempt(configs[i], out, failed, by_itself(runs[i])):
            state = f"done in {time.monotonic() - start:.0f} s"
        else:
            state = "failed" if out in failed else "running in another process, left to it"
            elsewhere += [] if out in failed else [i]
        named = " ".join(o for o in runs[i] if o not in common) or out.name
        log.info("%d of %d: %s: %s", n, len(runs), named, state)
    for i in elsewhere:  # nothing else is left to do
        if held(places[i] / ".lock"):
            log.info("%s: drawing with the process that has it ...", places[i])
            assisted(configs[i], places[i])
        if not held(places[i] / ".lock") and not finished(configs[i]):
            log.info("%s: the process that had it is gone, and it is not finished: going on with it.", places[i])
            attempt(configs[i], places[i], failed, by_itself(runs[i]))


def again(overrides: Sequence[str]) -> list[str]:
    """The words of the command that makes the same table once more."""
    kept = [o for o in overrides if not o.startswith("hydra")]
    return [f"--config-dir={o.partition('=')[2]}" if o.startswith("config_dir=") else o for o in kept]


def said(failed: dict[Path, str]) -> str | None:
    """Of every run that failed its folder and why."""
    return "\n".join(f"advanchor: {out}: {why}" for out, why in failed.items()) or None


if __name__ == "__main__":
    main()
