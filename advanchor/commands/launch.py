"""What Hydra does by itself: it prints configs and completions, and its launchers start the runs of a sweep elsewhere.

Hydra writes nothing into a run's folder.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from advanchor.core import BadInput
from advanchor.verbs import VERBS

if TYPE_CHECKING:
    from omegaconf import DictConfig

VALUED = ("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--package", "-p")  # the next word may be a value
PRINTING = (*VALUED, "--hydra-help", "--resolve")  # Hydra's flags that run nothing
log = logging.getLogger("advanchor.commands.launch")


def job(cfg: DictConfig) -> None:
    """One run of a sweep in a launcher's worker."""
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to workers too: who started them ends them
    from hydra.core.hydra_config import HydraConfig

    from advanchor.commands.attempts import attempt
    from advanchor.compose import folders
    from advanchor.results.progress import speak
    from advanchor.run import finished

    speak(stages=False)
    (out,) = folders([cfg])
    if not finished(cfg):
        log.info(
            "%s: %s", out, "done" if attempt(cfg, out.absolute(), {}, HydraConfig.get().overrides.task) else "no result"
        )


def hydra_main(words: Sequence[str]) -> None:
    """Hydra's command line. Its errors reach us as they are."""
    import hydra

    from advanchor.compose import CONF

    sys.argv[1:] = list(words)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(version_base="1.3", config_path=CONF, config_name="config")(job)()


def launched(overrides: Sequence[str], root: str, longest: int) -> str:
    """The runs of a sweep by the launcher that the command names; returns what is to be said if it failed.

    Args:
        longest: the most `method.steps` that a shorter training of the sweep is gone on with to; 0 for none.
    """
    from advanchor.compose.by_hydra import hydras
    from advanchor.compose.sweeps import experiments, sweep
    from advanchor.compose.writing import quoted

    said = ""
    for one in experiments(overrides):
        lines: list[str] = []
        for values in sweep(one):
            name = values[0].partition("=")[0]
            if name == "method.steps" and longest:
                values = sorted(values, key=lambda value: float(value.partition("=")[2]))
            several = f"{name}={','.join(value.partition('=')[2] for value in values)}"
            lines.append(values[0] if len(values) == 1 else several)
        lines = [line for line in lines if not line.startswith("root=")]
        if longest and not any(line.startswith("longest=") for line in lines):
            lines.append(f"longest={longest}")
        try:
            hydra_main(["-m", *hydras(lines), f"root={quoted(root)}"])
        except Exception as error:
            what = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            said = f"the launcher failed ({what}): look at its settings, hydra.launcher.*"
    return said


def printed(words: Sequence[str], folder: Sequence[str]) -> None:
    """What Hydra prints without running anything: a config, its options, the completion of a shell. The command is
    checked as that of a run.

    Raises:
        BadInput: the words make no command, or a setting will not do.
    """
    from advanchor.compose import expand, read, validate
    from advanchor.compose.by_hydra import hydras

    flags, plain = sorted_out(words)
    if unknown := [w for w in flags if w.startswith("-") and w.partition("=")[0] not in PRINTING]:
        raise BadInput(f"{unknown[0]} does not go with {flags[0]}: leave one of them out.")
    if not {w.partition("=")[0] for w in flags if w.startswith("-")} - {"--package", "-p", "--resolve"}:
        raise BadInput(f"{flags[0]} says how --cfg prints: write --cfg job {flags[0]}.")
    if {"--shell-completion", "-sc"} & {w.partition("=")[0] for w in flags}:
        if line := os.environ.get("COMP_LINE"):  # `advanchor table conc` is completed as `advanchor conc`
            os.environ["COMP_LINE"] = re.sub(rf"^(\s*\S+\s+)({'|'.join(VERBS)})\s+", r"\1", line)
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


def sorted_out(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and the other words. `query=bash` is the value of -sc, `seed=1` of no flag."""
    flags: list[str] = []
    plain: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        (flags if word.startswith("-") else plain).append(word)
        if word in VALUED and left and "=" not in re.sub(r"^(query|install|uninstall)=", "", left[0]):
            flags.append(left.pop(0))
    return flags, plain
