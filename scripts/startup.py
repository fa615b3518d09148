"""How long a person waits before anything happens: CPU seconds of commands that need no network, best of several.

    python scripts/startup.py            # two minutes on two cores; the table in docs/performance.md

CPU seconds are those of the process and its children, user and system; `first line` is the wall time until there is
one, on either output. To be measured on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = [
    *("model=random", "tracker=none", "sample.erase=1", "sample.keep=1", "sample.steps=1", "metric=[erasure]"),
    *("concept.evaluate=['a {}']", "concept.evaluate_cross=[]", "method=none", "anchor=concept"),
]
COMMANDS = {  # what is asked: its arguments, and the CPU seconds that it may take
    "--help": (["--help"], 1.0),
    "table --help": (["table", "--help"], 1.0),
    "--cfg job": (["--cfg", "job"], 1.0),
    "a wrong name": (["concept=emoji/foxx"], 1.5),
    "a wrong value": (["method.lr=-1"], 1.5),
    "a finished run again": (SMALL, 1.5),
    "table of 150 finished runs": (["table", *SMALL, "seed=range(0,150)"], 3.0),
}


def measured(arguments: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds of a command, and the seconds until its first line."""
    before, begun = os.times(), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "advanchor.cli", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    process.stdout.readline()
    first = time.monotonic() - begun
    process.stdout.read()
    process.wait()
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        subprocess.run(
            [sys.executable, "-m", "advanchor.cli", "-m", *SMALL, "seed=range(0,150)"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        print("| command | CPU s | at most | first line s |\n| --- | --- | --- | --- |")
        missed = False
        for name, (arguments, most) in COMMANDS.items():
            times = [measured(arguments, folder) for _ in range(options.repeat)]
            cpu, first = (min(one[i] for one in times) for i in (0, 1))
            missed |= cpu > most
            print(f"| {name} | {cpu:.2f} | {most} | {first:.2f} |")
        unfinished = [measured([*SMALL, f"root=fresh{i}"], folder)[1] for i in range(options.repeat)]
        print(f"| a run's first line | | | {min(unfinished):.2f} (at most 1) |")
    sys.exit(int(missed or min(unfinished) > 1))


if __name__ == "__main__":
    main()
