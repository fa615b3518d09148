"""`advanchor key=value ...` runs one experiment, `-m` runs many, `advanchor table|plot ...` lays out what they left.

The runs of a sweep are made one after the other in this process, or by Hydra where a launcher is named. Hydra writes nothing into a run's folder.
"""

from __future__ import annotations

import errno
import itertools
import logging
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput

if TYPE_CHECKING:
    from omegaconf import DictConfig

FAILED: dict[Path, str] = {}  # folder of a run -> what is said of it
FREE = 20e6  # bytes on the disk: what a small run needs
PRINTING = (
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--hydra-help",
    "--shell-completion",
    "-sc",
    "--resolve",
    "--package",
    "-p",
)  # Hydra's flags that run nothing
VALUED = (
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--shell-completion",
    "-sc",
    "--package",
    "-p",
)  # of these the next word may be the value
log = logging.getLogger("advanchor.cli")  # also when run as `python -m`: the level is set for "advanchor"


def main() -> None:
    """Entry point. Exit code 1 and one sentence for anything the user can mend; 130 after Ctrl-C and 143 after SIGTERM, with one line."""
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
    """What the words ask for; returns what is to be said of runs that failed.

    Raises:
        BadInput: the words make no command, or a setting will not do.
    """
    verb = words[0] if words[:1] in (["table"], ["plot"]) else ""
    words, folder = configs_of(words[1:] if verb else words)
    flags, plain = [w for w in words if w.startswith("-")], [w for w in words if not w.startswith("-")]
    if verb:
        from advanchor.compose import read
        from advanchor.results import figures as plots
        from advanchor.results import tables

        asked = {"-h", "--help"} & set(flags)  # which needs nothing to be right
        print((tables if verb == "table" else plots).main([*flags, *([] if asked else read([*folder, *plain]))]))
        return None
    if {"-h", "--help"} & set(flags):
        print(help_text(folder))
        return None
    if "--version" in flags:
        from importlib.metadata import version

        print(f"advanchor {version('advanchor')}")
        return None
    if any(w.partition("=")[0] in PRINTING for w in flags):
        printed(words, folder)
        return None
    if unknown := [w for w in flags if w not in ("-m", "--multirun")]:
        raise BadInput(
            f"{unknown[0]} is no flag of advanchor: there are -m, --config-dir=<folder>, --cfg job, --help and --version; settings are key=value."
        )
    return runs_of([*folder, *plain], bool(flags))


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


def runs_of(words: Sequence[str], many: bool) -> str | None:
    """One run with its closing table, or a sweep with a line for each run and its own table.

    Args:
        many: was -m given?

    Raises:
        BadInput: a mistake in the words, or `root` cannot be written; nothing has been loaded.
    """
    from advanchor.compose import axis, compose, compose_all, expand, folders, launching, read, validate
    from advanchor.results.progress import shown
    from advanchor.results.report import table
    from advanchor.run import finished

    overrides = read(words)
    runs, (alone, by) = expand(overrides), launching(overrides)
    many = many or alone
    if not many and len(runs) > 1:
        several = next((o for o in overrides if len(axis(o, overrides)) > 1), "the experiment")
        raise BadInput(
            f"{several} names several values: add -m for a sweep of {len(runs)} runs, or quote the value if it is one text."
        )
    if not many and by != "basic":
        raise BadInput(f"hydra/launcher={by} launches the runs of a sweep: add -m.")
    validate(overrides)
    speak()
    configs = compose_all(runs) if many else [compose(runs[0])]
    places = folders(configs)
    results = [finished(cfg) for cfg in configs]
    if not all(results):
        writable(Path(configs[0].root))
    if not many:
        if result := results[0]:
            log.info("%s is complete: nothing to compute.", places[0])
        else:
            result = attempt(configs[0], places[0])
        if not result and not FAILED:
            log.info("%s is running in another process: left to it.", places[0])
        if result:
            print(f"\n{table(result)}\n")
        return said()
    with shown(places):
        if by != "basic" and not all(results):
            launched(overrides, str(configs[0].root))
        else:
            common = set.intersection(*map(set, runs)) if len(runs) > 1 else set()
            for i, (choice, cfg, out) in enumerate(zip(runs, configs, places, strict=True), 1):
                start, before = time.monotonic(), finished(cfg)
                after = before or attempt(cfg, out)
                state = (
                    "complete, nothing to compute"
                    if before
                    else f"done in {time.monotonic() - start:.0f} s"
                    if after
                    else "failed"
                    if out in FAILED
                    else "running in another process, left to it"
                )
                log.info(
                    "%d of %d: %s: %s", i, len(runs), " ".join(o for o in choice if o not in common) or out.name, state
                )
    for out in places:  # also what failed in a launcher's workers
        if out not in FAILED and not (out / "result.json").exists() and (out / "error.txt").exists():
            FAILED[out] = (out / "error.txt").read_text().splitlines()[0]
    again = [
        o if not o.startswith("config_dir=") else f"--config-dir={o.partition('=')[2]}"
        for o in overrides
        if not o.startswith("hydra")
    ]
    if any((out / "result.json").exists() for out in places):
        from advanchor.results import tables

        try:
            print(f"\n{tables.table(overrides)}\n")
        except BadInput as error:  # the runs are there, whatever keeps them from standing side by side
            print(f"\nno table: {error}\n")
        print(f"advanchor table {shlex.join(again)}".rstrip())
    return said()


def said() -> str | None:
    """Of every run that failed its folder and why."""
    return "\n".join(f"advanchor: {out}: {why}" for out, why in FAILED.items()) or None


def speak() -> None:
    """Our own lines go to the standard output, other libraries' only if they warn."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.WARNING)
    logging.getLogger("advanchor").setLevel(logging.INFO)


def attempt(cfg: DictConfig, out: Path) -> dict[str, Any] | None:
    """One run under its lock; if it fails, why stands in FAILED and in its error.txt. None also if another process has it."""
    from advanchor.run import run
    from advanchor.store import lock

    try:
        with lock(out / ".lock", block=False) as mine:
            if not mine:
                return None
            try:
                result = run(cfg, out)
                (out / "error.txt").unlink(missing_ok=True)
                return result
            except Exception as error:
                FAILED[out] = reason(error, out, f"in {out / 'error.txt'}")
                (out / "error.txt").write_text(
                    FAILED[out] + "\n" + ("" if isinstance(error, BadInput) else f"\n{traceback.format_exc()}")
                )
    except OSError as error:
        if out not in FAILED:
            FAILED[out] = reason(error, out, "above")
        if "report it" in FAILED[out]:  # its traceback has no other place
            traceback.print_exc()
    return None


def reason(error: Exception, out: Path, where: str) -> str:
    """What is said of an error of a run in `out`: what to do, or for one that nobody foresaw `where` the traceback is."""
    number = error.errno if isinstance(error, OSError) else None
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, BadInput):
        return str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return f"there is no space left where {out.parent} is: free some, or choose another root=<folder>; the same command goes on from where it was."
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{getattr(error, 'filename', None) or out} cannot be read or written ({os.strerror(number)}): allow it, or choose another root=<folder>."
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return "memory does not suffice: lower batch, method.batch or sample.erase, or take another device; the same command goes on from where it was."
    what = f"failed ({type(error).__name__}: {text}), which nobody foresaw"
    return f"{what}: the traceback is {where}, please report it with the command; the same command goes on from where it was."


def writable(root: Path) -> None:
    """Raises: BadInput if nothing can be written at `root`, or the disk is full."""
    there = next(p for p in (root, *root.absolute().parents) if p.exists())
    if not os.access(there, os.W_OK):
        raise BadInput(f"root={root} cannot be written: choose another, such as root=~/advanchor.")
    if shutil.disk_usage(there).free < FREE:
        raise BadInput(f"there is no space left where root={root} is: free some, or choose another.")


# --- Hydra ------------------------------------------------------------------------------------------------------------


def job(cfg: DictConfig) -> None:
    """One run of a sweep in a launcher's worker."""
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to workers too: who started them ends them
    from advanchor.compose import folders
    from advanchor.run import finished

    speak()
    (out,) = folders([cfg])
    if not finished(cfg):
        log.info("%s: %s", out, "done" if attempt(cfg, out.absolute()) else "no result")


def hydra_main(words: Sequence[str]) -> None:
    """Hydra's command line. Its errors reach us as they are."""
    import hydra

    from advanchor.compose import CONF

    sys.argv[1:] = list(words)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(version_base="1.3", config_path=CONF, config_name="config")(job)()


def launched(overrides: Sequence[str], root: str) -> None:
    """The runs of a sweep by the launcher that the command names."""
    from advanchor.compose import experiments, hydras, quoted, sweep

    for one in experiments(overrides):
        axes = [
            values
            if len(values) == 1
            else [f"{values[0].partition('=')[0]}={','.join(v.partition('=')[2] for v in values)}"]
            for values in sweep(one)
        ]
        lines = [line for (line,) in axes if not line.startswith("root=")]
        try:
            hydra_main(["-m", *hydras(lines), f"root={quoted(root)}"])
        except Exception as error:
            FAILED[Path(root)] = (
                f"the launcher failed ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}): look at its settings, hydra.launcher.*"
            )


def printed(words: Sequence[str], folder: Sequence[str]) -> None:
    """What Hydra prints without running anything: a config, its options, the completion of a shell. The command is checked as that of a run."""
    from advanchor.compose import expand, hydras, read, validate

    flags: list[str] = []
    plain: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        (flags if word.startswith("-") else plain).append(word)
        if (
            word in VALUED
            and left
            and "=" not in left[0].removeprefix("query=").removeprefix("install=").removeprefix("uninstall=")
        ):
            flags.append(left.pop(0))
    if unknown := [w for w in flags if w.startswith("-") and w.partition("=")[0] not in PRINTING]:
        raise BadInput(f"{unknown[0]} does not go with {flags[0]}: leave one of them out.")
    if {"--shell-completion", "-sc"} & {w.partition("=")[0] for w in flags}:
        if line := os.environ.get("COMP_LINE"):  # `advanchor table conc` is completed as `advanchor conc`
            os.environ["COMP_LINE"] = re.sub(r"^(\s*\S+\s+)(table|plot)\s+", r"\1", line)
        return hydra_main([*flags, *plain])
    for flag, value in itertools.pairwise([*(part for w in flags for part in w.split("=", 1)), ""]):
        if flag in ("--cfg", "-c") and value not in ("job", "hydra", "all"):
            raise BadInput(f"{flag} {value}".strip() + " prints nothing: write --cfg job, or hydra, or all.")
    overrides = read([*folder, *plain])
    validate(overrides)
    runs = expand(overrides)
    if len(runs) > 1:
        print(f"advanchor: the first of {len(runs)} runs:", file=sys.stderr)
    return hydra_main([*flags, *hydras(runs[0])])


# --- help -------------------------------------------------------------------------------------------------------------

USAGE = """\
advanchor key=value ...                  one run
advanchor key=value other=a,b,c ... -m   a sweep over some values; an experiment may be one by itself
advanchor table key=value ...            what a sweep left, as a table; `advanchor table --help`
advanchor plot key=value ...             and as figures; `advanchor plot --help`
advanchor --config-dir=<folder> ...      with options of your own beside these, in a folder laid out like conf/
advanchor --cfg job key=value ...        every setting of a run, without running
advanchor --version"""


def help_text(folder: Sequence[str] = ()) -> str:
    """Every option of every group with the first line of its yaml, and the settings that belong to none. Composes nothing."""
    from advanchor.compose import CONF, groups, names, own_folders, read

    overrides = read(folder)
    found = [USAGE]
    for group in groups():
        lines: list[str] = []
        bare: dict[str, list[str]] = {}
        for name in names(group, overrides):
            file = next(
                f for base in (CONF, *own_folders(overrides)) if (f := Path(base) / group / f"{name}.yaml").exists()
            )
            if about := about_of(file):
                lines.append(f"  {name:<22} {about}")
            else:
                bare.setdefault(name.rpartition("/")[0], []).append(name)
        for sub, options in bare.items():
            listed = f"{sub + '/' if sub else ''}" + "{" + ", ".join(o.rpartition("/")[2] for o in options) + "}"
            lines.append(
                textwrap.fill(listed, 110, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
            )
        found.append("\n".join([f"{group}=", *lines]))
    settings = (Path(CONF) / "config.yaml").read_text().partition("\nseed:")[2].partition("\nhydra:")[0].strip()
    found.append(
        "settings, as they are by default (a setting of an option is <group>.<setting>, such as method.steps=60)\n  "
        + f"seed: {settings}".replace("\n", "\n  ")
    )
    return "\n\n".join(found)


def about_of(file: Path) -> str:
    """The first sentence of the comment that a config begins with, up to a command that shows its use."""
    lines = [line for line in file.read_text().splitlines()[:4] if not line.startswith("# @package")]
    comment = (
        " ".join(line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
        .partition(":  ")[0]
        .partition("  ")[0]
    )
    return re.split(r"(?<=[.;])\s", comment)[0].rstrip(":;")


if __name__ == "__main__":
    main()
