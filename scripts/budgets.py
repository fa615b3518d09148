"""What six budgets of one training cost, each going on from the one before, and each trained by itself.

    python scripts/budgets.py <empty folder>

AC towards the superclass on the emoji model, 15 to 480 steps, few images. Both sweeps are made in this process, one
after the other, in an empty folder. The images to learn from are drawn before, by a run of one step. Printed are the
process's CPU seconds in making each edit, which other work on the machine changes least, and whether all scores are
the same.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from advanchor import cli, run
from advanchor.erasing import erased

STEPS = (15, 30, 60, 120, 240, 480)
ASKED = ["anchor=superclass", "metric=[erasure]", "sample.erase=1", "sample.steps=5", "tracker=none", "-m"]


def main(root: Path) -> None:
    seconds: dict[int, float] = {}

    def timed(cfg: DictConfig, *how: Any) -> Any:
        begun = time.process_time()
        made = erased(cfg, *how)
        seconds[cfg.method.steps] = time.process_time() - begun
        return made

    run.erased = timed
    spent, scores = {}, {}
    for name, more in (("together", []), ("alone", ["longest=0"])):
        for steps in ("1", ",".join(map(str, STEPS))):
            cli.command([*ASKED, f"root={root / name}", f"method.steps={steps}", *more])
        results = [json.loads(file.read_text()) for file in (root / name).glob("*/result.json")]
        scores[name] = {result["config"]["method"]["steps"]: result["scores"] for result in results}
        spent[name], seconds = seconds, {}
    print("steps  together s  alone s  the same scores")
    for n in STEPS:
        same = scores["together"][n] == scores["alone"][n]
        print(f"{n:5d}  {spent['together'][n]:10.1f}  {spent['alone'][n]:7.1f}  {same}")
    together, alone = (sum(spent[name][n] for n in STEPS) for name in ("together", "alone"))
    print(f"  all  {together:10.1f}  {alone:7.1f}  ratio {together / alone:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
