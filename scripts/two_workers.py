"""How much sooner two workers finish a sweep of 24 emoji runs than one, on one thread each.

    python scripts/two_workers.py        # about ten minutes on two cores with nothing else to do

Both sweeps start from an empty folder and go through the same launcher; only the number of workers differs. Prints both
times and their ratio; exit code 1 if it is below 1.7.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SWEEP = [
    "tracker=none",
    "metric=[erasure,clip,fid]",
    "concept=emoji/fox,emoji/car",
    "method=ac,esd",
    "anchor=superclass,empty,adversarial",
    "seed=0,1",
    "sample.steps=10",
    "sample.erase=3",
    "method.steps=20",
    "hydra/launcher=workers",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def seconds(workers: int) -> float:
    """Of the whole command, start to end, for a sweep that finds nothing computed."""
    with tempfile.TemporaryDirectory() as place:
        begun = time.monotonic()
        command = [sys.executable, "-m", "advanchor.cli", "-m", *SWEEP, f"hydra.launcher.n_jobs={workers}"]
        subprocess.run(
            command, cwd=place, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        taken = time.monotonic() - begun
        assert len(list(Path(place).glob("outputs/*/result.json"))) == 24, "the sweep did not finish"
    return taken


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    one, two = seconds(1), seconds(2)
    print(f"24 runs: one worker {one:.0f} s, two workers {two:.0f} s, ratio {one / two:.2f}")
    sys.exit(0 if one / two >= 1.7 else 1)


if __name__ == "__main__":
    main()
