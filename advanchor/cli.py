"""`advanchor key=value ...` runs one experiment, `-m` runs many, `advanchor table|plot ...` lays out what they left."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from advanchor.compose import CONF, expand, experiments, folders, validate
from advanchor.core import BadInput
from advanchor.progress import shown
from advanchor.report import table
from advanchor.run import run
from advanchor.store import lock

FAILED: dict[Path, str] = {}  # folder of a run -> what is said of it
log = logging.getLogger("advanchor.cli")  # also when run as `python -m`: the level is set for "advanchor"


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def job(cfg: DictConfig) -> None:
    """One run: its lock, its error.txt, its closing table. A failed run of a sweep lets the others go on."""
    out = Path(HydraConfig.get().runtime.output_dir).resolve()
    with lock(out / ".lock", block=False) as mine:
        if not mine:
            log.info("%s is running in another process: left to it.", out)
            return
        try:
            result = run(cfg, out)
        except BadInput as error:
            (out / "error.txt").write_text(f"{error}\n")
            FAILED[out] = str(error)
        except Exception as error:
            (out / "error.txt").write_text(traceback.format_exc())
            FAILED[out] = crash(f"{type(error).__name__}: {error}")
        else:
            (out / "error.txt").unlink(missing_ok=True)
            print(f"\n{table(result)}\n")


def main() -> None:
    """Entry point. Exit code 1 and one sentence for anything the user can mend."""
    if sys.argv[1:2] in (["table"], ["plot"]):
        from advanchor import plots, tables

        try:
            print((tables if sys.argv[1] == "table" else plots).main(sys.argv[2:]))
        except BadInput as error:
            sys.exit(f"advanchor: {error}")
        return
    if "--version" in sys.argv[1:]:
        print(f"advanchor {importlib.metadata.version('advanchor')}")
        return
    flags = [a for a in sys.argv[1:] if a.startswith("-")]
    overrides = [a for a in sys.argv[1:] if not a.startswith("-")]
    if set(flags) <= {"-m", "--multirun"}:
        sys.argv[1:] = [*flags, *overrides]  # argparse takes `a=1 -m b=2,3` only with the flag at one end
        try:
            validate(overrides)
            runs = expand(overrides)
        except BadInput as error:
            sys.exit(f"advanchor: {error}")
        if len(runs) > 1:
            logging.basicConfig(format="%(message)s")
            logging.getLogger("advanchor").setLevel(logging.INFO)
            places = folders(runs)
            with shown(places):
                for command in experiments(overrides):
                    sys.argv[1:] = [*flags, *command]
                    job()
            for out in (place.resolve() for place in places):  # also what failed in a launcher's workers
                if (out / "error.txt").exists() and out not in FAILED:
                    said = (out / "error.txt").read_text().strip()
                    FAILED[out] = crash(said.splitlines()[-1]) if said.startswith("Traceback") else said
        else:
            sys.argv[1:] = [*flags, *experiments(overrides)[0]]
            job()
    else:
        job()
    sys.exit("\n".join(f"advanchor: {out}: {said}" for out, said in FAILED.items()) or None)


def crash(reason: str) -> str:
    """What is said of an error that nobody foresaw."""
    return f"failed ({(reason.splitlines() or [''])[0]}); the traceback is in its error.txt, and the same command goes on from where it was."


if __name__ == "__main__":
    main()
