"""One honest interval for every number: it covers the truth and a mark is rarely false, in the closing table, a sweep's
table, its JSON and its figures alike.
"""

import json
import random
import re
import statistics
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, script
from scipy import stats

from advanchor import report
from advanchor.core import share
from advanchor.intervals import Table, ahead, bounds, half, p_value, spread
from advanchor.prompts import Prompt
from advanchor.results.cells import Cell, Value
from advanchor.results.differences import compared
from advanchor.results.sweep import Sweep
from advanchor.results.tables import main, marked
from advanchor.units import table, with_interval


@pytest.fixture(scope="module")
def coverage() -> Any:
    return script("coverage")


def one(*values: float) -> Table:
    """Of several seeds one number each, no mean of images."""
    return Table(np.array(values)[:, None], np.ones(1))


@pytest.mark.parametrize("skew", ["alike", "skewed"])
@pytest.mark.parametrize(("seeds", "deviation"), [(1, 0.0), (2, 0.07), (3, 0.03), (3, 0.13), (10, 0.07)])
def test_an_interval_covers_the_truth_in_at_least_92_of_100_experiments(
    coverage: Any, seeds: int, deviation: float, skew: str
) -> None:
    rng, given = np.random.default_rng(0), {"seeds": seeds, "deviation": deviation, "skew": skew}
    for prompts, rate in product((5, 10, 200), (0.05, 0.5, 0.97)):
        each = [
            coverage.coverage(rng, experiments=400, concepts=concepts, prompts=prompts, share=rate, **given)
            for concepts in (1, 3)
        ]
        assert statistics.mean(each) >= 0.92, (prompts, rate, each)


@pytest.mark.parametrize(("rows", "behind"), [(2, 0), (4, 0), (4, 2)])
@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_a_mark_is_false_in_at_most_6_of_100_experiments(coverage: Any, seeds: int, rows: int, behind: int) -> None:
    rng, given = np.random.default_rng(0), {"seeds": seeds, "skew": "alike", "experiments": 300, "rows": rows}
    for deviation, rate in product((0.0, 0.07, 0.13), (0.05, 0.5)):
        each = [
            coverage.false_marks(rng, behind, concepts=k, prompts=p, deviation=deviation, share=rate, **given)
            for p, k in ((10, 1), (200, 1), (10, 3))
        ]
        assert statistics.mean(each) <= 0.06, (deviation, rate, each)


def test_methods_that_differ_by_a_tenth_are_told_apart_by_three_seeds() -> None:
    rng = np.random.default_rng(0)
    prompts, seeds = rng.normal(0, 0.2, (50, 1, 10)), rng.normal(0, 0.01, (2, 50, 3, 1))
    a, b = (Table(0.5 + prompts + seeds[i] + 0.1 * i, np.full(10, 20.0)) for i in range(2))
    assert ahead([b], [[a]]).mean() == 1
    assert ahead([a], [[b]], -1).mean() == 1
    assert ahead([a], [[b]]).mean() == 0


def test_what_is_no_mean_of_images_has_students_interval_over_seeds_and_one_seed_has_none() -> None:
    values = (1.0, 2.0, 4.0)
    low, high = bounds(spread([one(*values)])) or (0.0, 0.0)
    assert (float(low), float(high)) == pytest.approx(stats.t.interval(0.95, 2, np.mean(values), stats.sem(values)))
    assert bounds(spread([one(1.0)])) is None
    assert Cell([Value(1.0)]).bounds is None
    assert Cell([Value(v, i) for i, v in enumerate(values)]).bounds == pytest.approx((float(low), float(high)))


def test_of_one_seed_an_interval_is_students_over_prompts_and_of_a_share_wilsons() -> None:
    values = [0.1, 0.4, 0.5, 0.9, 0.6, 0.3]
    texts = [f"p{i}" for i in range(6)]
    low, high = bounds(spread([table([values], texts)])) or (0.0, 0.0)
    assert (float(low), float(high)) == pytest.approx(stats.t.interval(0.95, 5, np.mean(values), stats.sem(values)))
    for right, n, wilson in ((0, 10, (0, 0.27753)), (10, 10, (0.72247, 1))):  # any table of the score interval
        each = [[1.0] * right + [0.0] * (n - right)]
        found = bounds(spread([table(each, [str(i) for i in range(n)])]), share=True) or (0.0, 0.0)
        assert (float(found[0]), float(found[1])) == pytest.approx(wilson, abs=1e-5)
    many = bounds(spread([table([[1.0, 0.0] * 500], [str(i) for i in range(1000)])]), share=True) or (0.0, 0.0)
    assert (float(many[0]), float(many[1])) == pytest.approx((0.4691, 0.5309), abs=2e-4)


def test_an_interval_is_within_the_range_of_a_share_and_around_its_mean() -> None:
    rng = np.random.default_rng(0)
    for seeds, prompts in product((1, 2, 3), (1, 4, 5, 30)):
        for rate in (0.0, 0.02, 0.5, 1.0):
            texts = [f"p{i % prompts}" for i in range(60)]
            one = spread([table((rng.random((seeds, 60)) < rate).astype(float).tolist(), texts)])
            low, high = bounds(one, share=True) or (0.0, 0.0)
            assert 0 <= low <= min(one.mean, 1) <= high <= 1
            assert low < high  # also where all images agree


def test_images_of_one_prompt_prove_less_than_those_of_many_and_more_of_them_never_widen_an_interval() -> None:
    def width(prompts: int, images: int, seeds: int = 1) -> float:
        texts = [f"p{i % prompts}" for i in range(prompts * images)]
        low, high = bounds(spread([table([[1.0] * len(texts)] * seeds, texts)]), share=True) or (0.0, 0.0)
        return float(high - low)

    assert width(10, 20) > 2 * width(200, 1)
    assert width(10, 1) > width(10, 5) > width(10, 20) > width(10, 20, seeds=3)
    assert width(10, 10_000) > 0.06  # ten prompts remain ten prompts


def test_the_p_value_is_the_level_whose_interval_ends_at_0_and_students_where_there_is_one_part() -> None:
    rng = np.random.default_rng(3)
    both = spread([Table(rng.normal(0.3, 1, (3, 8)), np.ones(8)) for _ in range(2)])
    assert half(both, p_value(both)) == pytest.approx(abs(both.mean), rel=1e-6)
    assert set(both.parts) == {"prompts", "seeds"}
    assert 2 < float(both.parts["seeds"][1]) <= 4  # of two concepts with two degrees of freedom each
    values = rng.normal(1, 1, 6)
    assert float(p_value(spread([one(*values)]))) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6)
    assert float(p_value(spread([one(0.0, 0.0)]))) == pytest.approx(1)


def test_rows_are_told_apart_together_and_not_one_by_one() -> None:
    """Holm: of three p-values of 0.03 each, none is below the level together with the others."""
    others = [[one(0.0, 0.0, 0.0, 0.0)]] * 3
    first = [one(1.0, 2.0, 3.0, 0.8)]
    assert 0.0167 < float(p_value(spread(first))) < 0.05
    assert ahead(first, others[:1])
    assert not ahead(first, others)


def test_the_closing_table_the_table_of_that_run_and_its_json_have_one_interval_for_one_number(
    tiny: Any, tmp_path: Path
) -> None:
    result = tiny("anchor=superclass", "metric=[erasure,clip,anchor]", "sample.erase=4")
    names = [name for name, score in result["scores"].items() if "low" in score]
    assert {"erasure/hit", "erasure/hit@base", "keep/hit", "clip/keep", "clip/erase@base", "anchor/hit"} <= {*names}
    command = [*TINY, f"root={tmp_path}", "anchor=superclass", "sample.erase=4", f"table.cells=[{','.join(names)}]"]
    for line in json.loads(main([*command, "--format=json"]))["scores"]:
        score = result["scores"][line["score"]]
        assert (line["mean"], line["low"], line["high"]) == pytest.approx((score["value"], score["low"], score["high"]))
    closing, read = report.table(result), main(command)
    for name in ("erasure/hit", "keep/hit", "anchor/hit"):
        assert report.cell(result["scores"], name) in closing
        assert report.cell(result["scores"], name) in read
    said = "how far other seeds' trainings differ is unknown"
    assert said in closing
    assert said in read


def test_a_score_without_images_or_with_other_images_than_its_prompts_has_no_interval() -> None:
    prompts = {"erase": [Prompt("a fox", i, "object", "fox") for i in range(4)]}
    whole = with_interval(prompts, "erasure/hit", share([True, False, True, True], "lower"))
    assert whole.keys() == {"value", "n", "better", "low", "high"}
    assert "low" not in with_interval(prompts, "erasure/hit", share([True, False], "lower"))
    assert "low" not in with_interval(prompts, "fid/erase", {"value": 1.0, "n": 4, "better": "lower"})


def test_a_cell_of_several_concepts_has_the_deviation_of_its_seeds_and_not_of_its_concepts() -> None:
    runs = [
        Value(v, seed, concept)
        for concept, values in (("fox", (0.1, 0.3)), ("car", (0.7, 0.9)))
        for seed, v in enumerate(values)
    ]
    assert Cell(runs).text() == "0.500 ± 0.141"
    assert Cell([runs[0], runs[3]], wanted=4).text() == "0.500 (2 of 4 runs)"  # no seed has both concepts
    assert (
        Cell(runs[:3]).text() == "0.400"
    )  # the second seed of the car is missing, so the two seeds are not means of the same
    assert Cell(runs[:3]).mean == pytest.approx(0.4)  # the same number wherever it is shown


def test_units_of_an_interval_are_the_prompts_of_each_concept_or_single_images_where_there_are_few_prompts() -> None:
    many, few = [f"a {i // 2}" for i in range(20)], ["a fox"] * 20
    values = [float(i % 4 == 0) for i in range(20)]
    prompts = Cell(
        [
            Value(0.25, seed, name, values, many, (), True)
            for seed, name in ((0, "fox"), (1, "fox"), (0, "car"), (1, "car"))
        ]
    )
    assert {concept: one.means.shape for concept, one in prompts.tables.items()} == {"fox": (2, 10), "car": (2, 10)}
    assert set(prompts.tables["fox"].means.ravel()) == {0.0, 0.5}
    images = Cell([Value(0.25, 0, "fox", values, few, (), True)])
    assert images.tables["fox"].means.shape == (1, 20)
    low, high = images.bounds or (0.0, 0.0)
    assert 0.05 <= low < 0.25 < high < 0.5
    assert Cell([Value(0.25, 0, "fox", values, few), Value(0.25, 1, "fox")]).tables["fox"].means.shape == (2, 1)
    unequal = table([[1.0] * 10 + [0.0] * 4], ["a"] * 10 + list("bcde"))  # the mean of the images, as the score is
    assert float(spread([unequal]).mean) == pytest.approx(10 / 14)


def cell(*seeds: list[float], better: str = "higher") -> Cell:
    prompts = [f"prompt {i // 2}" for i in range(len(seeds[0]))]
    return Cell([Value(statistics.mean(s), i, "fox", s, prompts) for i, s in enumerate(seeds)], better=better)


def test_best_and_second_are_marked_only_where_the_paired_difference_is_sure() -> None:
    rng = random.Random(0)
    hard = [rng.random() for _ in range(40)]  # prompts differ far more than methods: only pairs can tell
    rows = {
        "a": cell([h + 0.2 for h in hard]),
        "b": cell([h + 0.1 for h in hard]),
        "c": cell(hard),
        "d": cell([h + rng.uniform(-0.05, 0.05) for h in hard]),
    }
    one = Sweep([(r,) for r in rows], [("x",)], {((r,), ("x",), "s"): c for r, c in rows.items()}, 4, [], {})
    assert marked(one, ("x",), "s") == {}  # of a single training nobody knows how far another would be
    rows = {r: cell(*[list(c.runs[0].images)] * 2) for r, c in rows.items()}
    sweep = Sweep([(r,) for r in rows], [("x",)], {((r,), ("x",), "s"): c for r, c in rows.items()}, 4, [], {})
    assert marked(sweep, ("x",), "s") == {(("a",), ("x",), "s"): "best", (("b",), ("x",), "s"): "second"}
    del rows["a"], rows["b"]
    sweep = Sweep([(r,) for r in rows], [("x",)], {((r,), ("x",), "s"): c for r, c in rows.items()}, 2, [], {})
    assert marked(sweep, ("x",), "s") == {}
    down = {r: cell(*[list(c.runs[0].images)] * 2, better="lower") for r, c in rows.items()} | {
        "e": cell(*[[h - 0.3 for h in hard]] * 2, better="lower")
    }
    sweep = Sweep([(r,) for r in down], [("x",)], {((r,), ("x",), "s"): c for r, c in down.items()}, 3, [], {})
    assert marked(sweep, ("x",), "s") == {(("e",), ("x",), "s"): "best"}


def test_nothing_is_marked_where_rows_have_other_seeds_prompts_or_a_single_seed() -> None:
    rng = random.Random(1)
    low = [[rng.uniform(0, 0.1) for _ in range(20)] for _ in range(3)]
    high = [[0.5 + v for v in values] for values in low]

    def marks(**rows: Cell) -> dict[Any, str]:
        cells = {((r,), ("x",), "s"): c for r, c in rows.items()}
        return marked(Sweep([(r,) for r in rows], [("x",)], cells, 4, [], {}), ("x",), "s")

    assert marks(a=cell(*high), b=cell(*low)) == {(("a",), ("x",), "s"): "best"}
    assert marks(a=cell(*high), b=cell(*low), c=cell(low[0])) == {}  # far behind, and nobody knows how far next time
    assert marks(a=cell(*high), b=cell(*low[:2])) == {}
    other = cell(*low)
    other.runs = [Value(r.value, r.seed, r.concept, r.images, [f"{t}!" for t in r.prompts]) for r in other.runs]
    assert marks(a=cell(*high), b=other) == {}
    partly = cell(*low)
    partly.wanted = 4  # of which runs are missing: passed over
    assert marks(a=cell(*high), b=cell(*low), c=partly) == {(("a",), ("x",), "s"): "best"}
    numbers = Cell([Value(v, i) for i, v in enumerate((9.0, 9.1, 9.2))], better="lower")
    fewer = Cell([Value(v, i) for i, v in enumerate((1.0, 1.1, 1.3))], better="lower")
    assert marks(a=numbers, b=fewer) == {(("b",), ("x",), "s"): "best"}  # a distance, say


def test_a_difference_is_over_the_same_seeds_and_prompts_and_starred_only_where_all_of_a_column_leave_out_0() -> None:
    rng = random.Random(2)
    hard = [rng.random() for _ in range(40)]
    noise = [[rng.uniform(-0.02, 0.02) for _ in hard] for _ in range(3)]
    first = cell(*[[h + n for h, n in zip(hard, each, strict=True)] for each in noise])
    ahead_by = cell(*[[h + 0.1 + n for h, n in zip(hard, each, strict=True)] for each in reversed(noise)])
    same = cell(*[[h + n for h, n in zip(hard, each, strict=True)] for each in reversed(noise)])
    one_seed = cell([h + 0.1 for h in hard])
    better, equal, fewer, missing = compared(first, [ahead_by, same, one_seed, None])
    assert re.fullmatch(r"\+0\.100 \[\+0\.0\d+, \+0\.1\d+\] \*", better)
    assert equal.startswith("0.000 [")
    assert "*" not in equal
    assert (fewer, missing) == ("—", "—")
    (alone,) = compared(cell(hard), [one_seed])
    assert alone.startswith("+0.100 [")
    assert "*" not in alone  # of a single training nobody knows how far another would be


def test_a_distance_of_nothing_has_no_width() -> None:
    prompts = [f"prompt {i // 2}" for i in range(20)]
    assert Cell([Value(-1e-9, 0, "fox", [0.0] * 20, prompts)]).text() == "0.000 [0.000, 0.000]"


def test_the_mean_of_a_cell_is_in_the_middle_of_its_interval_however_many_runs_a_concept_has() -> None:
    values = {"fox": (0.1, 0.3, 0.2), "car": (0.7, 0.9, 1.0)}
    runs = [Value(v, seed, name) for name, own in values.items() for seed, v in enumerate(own)]
    more = Cell([*runs, *(Value(run.value + 0.1, run.seed, "fox") for run in runs[:3])])  # two anchors, say
    low, high = more.bounds or (0.0, 0.0)
    assert more.mean == pytest.approx((low + high) / 2)
    assert more.mean == pytest.approx((0.25 + 2.6 / 3) / 2)


def test_shares_of_other_prompts_are_numbers_of_their_seeds_alone() -> None:
    def run(seed: int, text: str) -> Value:
        return Value(0.5, seed, "fox", [0.0, 1.0], [text] * 2, (), True)

    assert Cell([run(0, "a"), run(1, "b")]).bounds == pytest.approx((0.5, 0.5))
    assert Cell([run(0, "a"), run(1, "a")]).bounds != pytest.approx((0.5, 0.5))


def test_a_correlation_given_what_is_erased_is_that_of_what_erasing_does_not_explain() -> None:
    distance, rng = script("distance"), np.random.default_rng(0)
    found, own = rng.random((2, 400))
    kept, close = found + 0.1 * rng.random(400), found + 0.1 * rng.random(400)
    assert distance.partial(close, kept, None) > 0.9
    assert abs(distance.partial(close, kept, found)) < 0.2
    assert distance.partial(close + own, kept + own, found) > 0.8
    expected = stats.spearmanr(close, kept).statistic
    assert distance.partial(close, kept, None) == pytest.approx(expected)
    assert distance.partial([1.0] * 9, list(range(9)), None) is None
    assert distance.partial([1.0, 2.0], [1.0, 2.0], None) is None


def test_the_page_of_the_distance_study_has_the_numbers_of_its_runs() -> None:
    distance, folder = script("distance"), Path(__file__).parents[1] / "docs/results"
    runs = json.loads((folder / "distance/runs.json").read_text())
    page = (folder / "README.md").read_text()
    for line in distance.lacking(runs)[2:]:
        assert line.replace("erasure/hit2", "judge 2").replace("erasure/hit", "judge 1") in page
