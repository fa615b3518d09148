"""Kill a sweep of 24 runs again and again and see whether its table is that of an undisturbed one.

    python scripts/kill_sweep.py                      # ten kills, random weights, about four minutes on two cores
    python scripts/kill_sweep.py --kills=3 --seed=1

Prints when it was killed and how far it was; exit code 1 if a single digit differs. The moments depend on --seed, and
on how fast the machine is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SWEEP = [
    "experiment=smoke",
    "tracker=none",
    "metric=[erasure,clip,kid]",
    "method=ac,esd,spm",
    "anchor=superclass,adversarial",
    "seed=0,1,2,3",
    "table.rows=[method,anchor]",
    "table.cells=[erasure/hit,keep/hit,clip/keep,kid/keep,anchor/cosine_span]",
]


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The sweep in a process group of its own, so that all of it can be killed at once."""
    return subprocess.Popen(
        [sys.executable, "-m", "advanchor.cli", "-m", *SWEEP],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def working(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the sweep writes its first file: a kill before that would prove nothing."""
    begun = time.time()
    while process.poll() is None and not any(f.stat().st_mtime > begun for f in folder.rglob("*") if f.exists()):
        time.sleep(0.05)


def finished(folder: Path) -> int:
    return len(list(folder.glob("outputs/*/result.json")))


def table(folder: Path) -> str:
    """Every score of the sweep, with its interval."""
    command = [sys.executable, "-m", "advanchor.cli", "table", "--format=json", "--strict", *SWEEP]
    return json.dumps(
        json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout)["scores"],
        indent=1,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        calm, stormy = Path(place) / "calm", Path(place) / "stormy"
        for folder in (calm, stormy):
            folder.mkdir()
        process = start(calm)
        working(calm, process)
        begun = time.monotonic()
        assert process.wait() == 0, "the undisturbed sweep failed"
        work = time.monotonic() - begun
        print(f"undisturbed: {finished(calm)} runs in {work:.0f} s after the start", flush=True)
        for kill in range(options.kills):
            process = start(stormy)
            working(stormy, process)
            time.sleep(moments.uniform(0.0, 2.0) * work / options.kills)
            alive = process.poll() is None
            os.killpg(process.pid, signal.SIGKILL) if alive else None
            process.wait()
            print(
                f"kill {kill + 1}: {'killed' if alive else 'had already ended'} with {finished(stormy)} runs finished",
                flush=True,
            )
        assert start(stormy).wait() == 0, "the sweep failed after the kills"
        same = table(calm) == table(stormy)
    print("the tables are the same, digit by digit" if same else "THE TABLES DIFFER")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
