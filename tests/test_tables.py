"""A table is exactly the sweep's runs: averaged over what is neither row nor column, never mixed with others."""

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from advanchor.compose import compose, expand
from advanchor.core import BadInput
from advanchor.tables import main

SWEEP = ["anchor=superclass,empty", "seed=0,1", "table.cells=[clip/keep]"]


@pytest.fixture
def swept(tiny: Any, tmp_path: Path) -> tuple[list[str], dict[tuple[str, int], float]]:
    """Overrides of a sweep of four, of which the last run is missing, and the scores of the others."""
    scores = {}
    for anchor, seed in (("superclass", 0), ("superclass", 1), ("empty", 0)):
        scores[anchor, seed] = tiny(f"anchor={anchor}", f"seed={seed}", "metric=[clip]")["scores"]["clip/keep"]["value"]
    return [*TINY, f"root={tmp_path}", *SWEEP], scores


def test_seeds_are_averaged_with_their_deviation_and_a_missing_run_leaves_the_others(swept: Any) -> None:
    overrides, scores = swept
    head, line, first, second, _, note = main(overrides).splitlines()
    assert head == "| method | anchor | fox clip/keep ↑ |"
    assert set(line) <= set("| -")
    both = [scores["superclass", 0], scores["superclass", 1]]
    assert first == f"| ac | superclass | {statistics.mean(both):.3f} ± {statistics.stdev(both):.3f} |"
    assert second == f"| ac | empty | {scores['empty', 0]:.3f} |"
    assert note.startswith("3 of 4 runs; n clip/keep 12; commit ")


def test_csv_and_json_hold_the_same_cells(swept: Any) -> None:
    overrides, _ = swept
    markdown = [[c.strip() for c in line.strip("| ").split(" | ")] for line in main(overrides).splitlines()[2:4]]
    assert list(csv.reader(io.StringIO(main([*overrides, "--format=csv"]))))[1:] == markdown
    read = json.loads(main([*overrides, "--format=json"]))
    assert [list(row.values()) for row in read["rows"]] == markdown
    assert len(read["missing"]) == 1


def test_strict_names_the_command_that_fills_the_hole_and_that_command_fills_it(swept: Any, tiny: Any) -> None:
    overrides, _ = swept
    with pytest.raises(BadInput, match=r"1 of 4 runs are missing; the first is made by `advanchor .*anchor=empty seed=1"):
        main([*overrides, "--strict"])
    tiny("anchor=empty", "seed=1", "metric=[clip]")
    assert "—" not in main([*overrides, "--strict"])


def test_scores_of_different_n_are_not_averaged(swept: Any, tmp_path: Path) -> None:
    overrides, _ = swept
    record = next(f for f in tmp_path.glob("*/result.json") if json.loads(f.read_text())["config"]["seed"] == 1)
    result = json.loads(record.read_text())
    result["scores"]["clip/keep"]["n"] = 7
    record.write_text(json.dumps(result))
    with pytest.raises(BadInput, match="differ in"):
        main(overrides)


def test_any_setting_can_be_a_row_and_a_wrong_one_is_refused(swept: Any) -> None:
    overrides, _ = swept
    assert "| 0 | superclass |" in main([*overrides, "table.rows=[seed,anchor]"])
    with pytest.raises(BadInput, match=r"no setting 'anchr.name' to lay out"):
        main([*overrides, "table.rows=[anchr.name]"])
    with pytest.raises(BadInput, match="does not know --formt=csv"):
        main([*overrides, "--formt=csv"])


def test_what_a_run_reports_beside_its_scores_can_stand_in_a_table(swept: Any) -> None:
    overrides, _ = swept
    head, _, first = main([*overrides, "table.cells=[anchor/cosine_span,cost/seconds]"]).splitlines()[:3]
    assert head == "| method | anchor | fox anchor/cosine_span | fox cost/seconds ↓ |"
    assert " ± " in first


def test_several_experiments_make_one_table_with_their_runs_one_after_the_other() -> None:
    first, second = expand(["experiment=methods"]), expand(["experiment=methods_fixed"])
    both = expand(["seed=0", "experiment=methods,methods_fixed"])
    assert len(both) == len(first) // 3 + len(second)
    assert both[0][-1] == "experiment=methods"
    assert both[-1][-1] == "experiment=methods_fixed"
    assert all(compose(choice).sample.erase == 10 for choice in (both[0], both[-1]))
