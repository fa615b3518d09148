"""Rows are compared where they have erased equally much, training by training, and nothing is made up between them."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

import advanchor
from advanchor import cli
from advanchor.compose import compose_all
from advanchor.core import BadInput
from advanchor.results.cells import Cell, Value
from advanchor.results.curves import Curve, Front, Read, hypervolume
from advanchor.results.front import budgets_of, collect, main, page
from advanchor.results.sweep import Sweep


def curve(*points: tuple[float, float], **how: Any) -> Curve:
    """Found and kept at budgets 0, 1, 2, ..."""
    budgets = [float(i) for i in range(len(points))]
    return Curve(budgets, [x for x, _ in points], {"keep/hit": [y for _, y in points]}, **how)


def test_a_score_is_read_on_the_line_to_the_first_budget_that_leaves_so_little() -> None:
    one = curve((1.0, 0.9), (0.5, 0.8), (0.1, 0.6), (0.2, 0.7), (0.0, 0.1))
    assert one.read("keep/hit", 0.5) == 0.8
    assert one.read("keep/hit", 0.2) == pytest.approx(0.65)  # and not 0.7, to which a longer training comes back
    assert one.read("keep/hit", 0.05) == pytest.approx(0.25)  # from the budget just before
    assert one.read("keep/hit", 0.0) == 0.1


def test_nothing_is_read_beyond_the_budgets() -> None:
    assert curve((1.0, 0.9), (0.3, 0.8)).read("keep/hit", 0.2) is None
    assert curve((0.1, 0.8), (0.0, 0.7)).read("keep/hit", 0.2) is None  # no unedited model to come from
    holed = Curve([0.0, 1.0], [1.0, 0.0], {"fid/keep": [None, 4.0]})  # of which nothing was measured before
    assert holed.read("fid/keep", 0.5) is None
    assert holed.read("fid/keep", 0.0) == 4.0


@given(
    st.integers(1, 3).flatmap(
        lambda d: st.lists(st.tuples(*[st.integers(0, 4)] * d), min_size=1, max_size=5)  # fifths: a grid is exact
    )
)
def test_the_hypervolume_is_the_volume_of_what_some_point_is_not_less_than(points: list[tuple[int, ...]]) -> None:
    d = len(points[0])
    inside = [
        any(all(corner[i] < point[i] for i in range(d)) for point in points)
        for corner in itertools.product(range(4), repeat=d)
    ]
    assert hypervolume(np.array(points, np.float64) / 4) == pytest.approx(sum(inside) / 4**d)


def test_the_volume_counts_the_erased_and_turns_what_is_better_lower() -> None:
    assert curve((1.0, 1.0), (0.25, 0.5)).volume() == pytest.approx(0.375)
    assert curve((0.25, 0.5), better={"keep/hit": "lower"}).volume() == pytest.approx(0.375)
    assert curve((0.5, 60.0)).volume() is None  # a CLIP score is no share


def test_there_is_a_comparable_mean_only_of_all_trainings_and_a_difference_only_of_pairs() -> None:
    whole = Read.of({(s, c): 0.5 + s / 10 for s in (0, 1) for c in ("fox", "car")})
    holed = Read.of({(0, "fox"): 0.4, (1, "fox"): 0.5, (0, "car"): 0.2, (1, "car"): None})
    assert whole.spread is not None
    assert whole.spread.mean == pytest.approx(0.55)
    assert {*whole.spread.parts} == {"seeds", "prompts"}
    assert holed.spread is None
    assert sorted(holed.there) == [0.2, 0.4, 0.5]
    apart = holed.minus(whole)
    assert apart is not None
    assert apart[1] == 1  # car is left out, for which a training is missing
    assert apart[0].mean == pytest.approx(-0.1)
    assert whole.minus(Read.of({(0, "fox"): 0.5})) is None  # other seeds


def swept(found: dict[str, list[float]], kept: float = 0.5) -> Sweep:
    """Rows with what is found after 10 and 20 steps, for two seeds; unedited 1.0, of which 0.9 are kept."""
    rows = [(name, steps) for name in found for steps in ("10", "20")]
    sweep = Sweep(rows, [("fox",)], {}, 2 * len(rows), [], {})
    for name, steps in rows:
        for seed in (0, 1):
            values = {
                "erasure/hit": found[name][int(steps) // 10 - 1], "erasure/hit@base": 1.0,
                "keep/hit": kept + seed / 10, "keep/hit@base": 0.9,
            }  # fmt: skip
            for score, value in values.items():
                cell = sweep.cells.setdefault(((name, steps), ("fox",), score), Cell())
                cell.better = "lower" if score.startswith("erasure") else "higher"
                cell.runs.append(Value(value, seed, "fox"))
    return sweep


def front_of(sweep: Sweep) -> Front:
    front = Front("judge 1", "erasure/hit", ["keep/hit"])
    collect(front, sweep, 1, {((row[0],), ("fox",)): "method.steps" for row in sweep.rows}, ["method.steps"])
    return front


def test_the_unedited_model_is_the_curve_at_no_steps() -> None:
    front = front_of(swept({"a": [0.6, 0.0]}))
    assert front.curves[("a",), ("fox",)][1, "fox"] == Curve(
        [0.0, 10.0, 20.0], [1.0, 0.6, 0.0], {"keep/hit": [0.9, 0.6, 0.6]}, front.better
    )


def test_a_page_says_how_many_trainings_begin_beyond_a_level() -> None:
    sweep = swept({"a": [0.6, 0.0]})
    front = front_of(sweep)
    for one in front.curves[("a",), ("fox",)].values():  # as of UCE, whose curves have no unedited model
        one.budgets, one.found = one.budgets[1:], one.found[1:]
        one.scores = {name: ys[1:] for name, ys in one.scores.items()}
    said = page([front], sweep, [0.7, 0.2]).splitlines()
    assert said[2].startswith("| a | (0 of 2, 2 begin beyond) | 0.550 [")


def test_a_page_says_how_many_trainings_come_so_far_and_how_far_rows_are_apart() -> None:
    sweep = swept({"a": [0.6, 0.0], "b": [0.9, 0.5], "c": [0.2, 0.1]})
    sweep.cells[("b", "20"), ("fox",), "erasure/hit"].runs[1] = Value(0.1, 1, "fox")
    said = page([front_of(sweep)], sweep, [0.2]).splitlines()
    assert said[0] == "| fox judge 1 | keep/hit ↑ at 0.2 | volume ↑ |"
    assert said[2].startswith("| a | 0.550 [")
    assert said[3].startswith("| b | 0.600 (1 of 2) | ")
    assert "12 of 12 runs." in said
    apart = page([front_of(sweep)], sweep, [0.2], "a").splitlines()
    assert [line.split(" | ")[:2] for line in apart[2:4]] == [["| b", "—"], ["| c", "0.000 [0.000, 0.000]"]]
    with pytest.raises(BadInput, match="--against=z is no row of this table: take one of a; b; c"):
        page([front_of(sweep)], sweep, [0.2], "z")


def configs(*several: str) -> list[Any]:
    return compose_all([["model=random", "concept=emoji/butterfly", *one.split()] for one in several])


def test_a_rows_budget_is_the_one_setting_that_differs_within_it() -> None:
    runs = configs(
        "method=ac anchor=empty method.steps=1", "method=ac anchor=empty method.steps=2 seed=1",
        "method=uce anchor=empty method.erase_scale=0.5", "method=uce anchor=empty method.erase_scale=1",
        "method=none anchor=concept",
    )  # fmt: skip
    assert {row: name for (row, _), name in budgets_of(runs, ["method", "anchor"], []).items()} == {
        ("ac", "empty"): "method.steps", ("uce", "empty"): "method.erase_scale", ("none", "concept"): "",
    }  # fmt: skip
    kinds = configs("concept=emoji/owl method.lr=1e-4", "concept=emoji/noto method.lr=1e-3")
    assert {*budgets_of(kinds, ["method"], ["concept.kind"]).values()} == {""}  # each kind has settings of its own
    with pytest.raises(BadInput, match=r"method\.steps and method\.lr differ within ac, .* name the others in"):
        budgets_of(configs("method.steps=1 method.lr=1e-4", "method.steps=2 method.lr=1e-3"), ["method"], [])
    with pytest.raises(BadInput, match=r"method\.scope=attn2 is no budget, which is a number"):
        budgets_of(configs("method.scope=attn2", "method.scope=attn2.kv"), ["method"], [])


def test_front_reads_the_runs_back_with_every_seed_and_computes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*TINY, f"root={tmp_path / 'runs'}", "metric=[erasure]", "anchor=empty,superclass", "seed=0,1"]
    for steps in (1, 2):
        for anchor, seed in itertools.product(("empty", "superclass"), (0, 1)):
            advanchor.erase(*asked[:-2], f"anchor={anchor}", f"seed={seed}", f"method.steps={steps}")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("*") if file.is_file()}
    laid = ["table.columns=[concept.kind]", "table.cells=[erasure/hit,keep/hit,erasure/hit2,keep/hit2]"]
    cli.command(["front", *asked, "method.steps=1,2", *laid, "--at=0.5", f"--to={tmp_path / 'to'}"])
    said = capsys.readouterr().out
    assert "| object judge 1 | keep/hit ↑ at 0.5 | volume ↑ |" in said
    assert "| object judge 2 | keep/hit2 ↑ at 0.5 | volume ↑ |" in said
    assert "8 of 8 runs." in said
    read = json.loads((tmp_path / "to/front.json").read_text())
    assert [(one["judge"], one["row"]) for one in read["rows"]] == [
        (judge, ["ac", anchor]) for judge in ("judge 1", "judge 2") for anchor in ("empty", "superclass")
    ]
    for one, judge in ((read["rows"][0], ""), (read["rows"][2], "2")):
        for shown in one["curves"]:
            runs = [
                advanchor.erase(*asked[:-2], "anchor=empty", f"seed={shown['seed']}", f"method.steps={k}")
                for k in (1, 2)
            ]
            names = (f"erasure/hit{judge}", f"keep/hit{judge}")
            assert shown["budget"] == [0, 1, 2]
            for name in names:
                before_it = runs[0]["scores"][f"{name}@base"]["value"]
                assert shown[name] == [before_it, *(run["scores"][name]["value"] for run in runs)]
    assert {*before} == {file for file in (tmp_path / "runs").rglob("*") if file.is_file()}
    assert sorted(f.suffix for f in (tmp_path / "to").iterdir()) == [".json", ".pdf", ".png"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--at=many"], "--at=many will not do: write shares between 0 and 1"),
        (["--at=1.5"], "--at=1.5 will not do"),
        (["--up"], "front does not know --up: it takes --at=<levels>"),
        (["table.cells=[keep/hit]"], "front compares at equal erasure: name erasure/hit in table.cells"),
        (["table.rows=[method.steps]"], "front compares at equal erasure"),
        (["anchor=empty"], "the run of this sweep is in|none of the|the run"),
    ],
)
def test_what_front_cannot_do_is_one_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=sentence):
        main([*TINY, f"root={tmp_path}", *words])


def test_an_interval_of_shares_stays_within_0_and_1_and_any_other_goes_where_it_must() -> None:
    values = {
        (s, c): y for (s, c), y in zip(itertools.product((0, 1), ("fox", "car")), (1.0, 0.6, 1.0, 0.9), strict=True)
    }
    low, high = Read.of(values, share=True).bounds or (0.0, 0.0)
    assert low < 0.875 < high == 1
    assert (Read.of(values).bounds or (0.0, 0.0))[1] > 1
