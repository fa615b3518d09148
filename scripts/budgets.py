"""What six budgets of one training cost, each going on from the one before, and each trained by itself.

    python scripts/budgets.py /tmp/budgets

AC towards the superclass on the emoji model, 15 to 480 steps, few images. Both sweeps are made in this process, one
after the other, from nothing; printed are the seconds of erasing, drawing the images to learn from included, and
whether all scores are the same. A second call on the same folder only prints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from advanchor import cli

STEPS = (15, 30, 60, 120, 240, 480)
ASKED = ["anchor=superclass", "metric=[erasure]", "sample.erase=1", "sample.steps=5", "tracker=none", "-m"]


def main(root: Path) -> None:
    found = {}
    for name, more in (("together", []), ("alone", ["longest=0"])):
        cli.command([*ASKED, f"root={root / name}", f"method.steps={','.join(map(str, STEPS))}", *more])
        results = [json.loads(file.read_text()) for file in (root / name).glob("*/result.json")]
        found[name] = {result["config"]["method"]["steps"]: result for result in results}
    print("steps  together s  alone s  the same scores")
    total = dict.fromkeys(found, 0.0)
    for steps in STEPS:
        each = {name: results[steps] for name, results in found.items()}
        seconds = {name: result["stages"]["erase"]["seconds"] for name, result in each.items()}
        total = {name: total[name] + spent for name, spent in seconds.items()}
        same = each["together"]["scores"] == each["alone"]["scores"]
        print(f"{steps:5d}  {seconds['together']:10.1f}  {seconds['alone']:7.1f}  {same}")
    print(f"  all  {total['together']:10.1f}  {total['alone']:7.1f}  ratio {total['together'] / total['alone']:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
