"""A table is exactly the sweep's runs: averaged over what is neither row nor column, never mixed with others."""

import csv
import io
import json
import re
import shlex
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from omegaconf import OmegaConf

import advanchor
from advanchor import provenance
from advanchor.compose import compose, expand
from advanchor.core import BadInput
from advanchor.identity import run_id
from advanchor.results import attacked, painters, points
from advanchor.results import figures as plots
from advanchor.results.cells import Cell, Value
from advanchor.results.correlations import correlations
from advanchor.results.differences import signed
from advanchor.results.forms import clean, latex
from advanchor.results.sweep import Sweep, check, label
from advanchor.results.tables import main, notes
from advanchor.store import write_json

SWEEP = ["anchor=superclass,empty", "seed=0,1", "table.cells=[clip/keep]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, int], float]]:
    root, scores = tmp_path_factory.mktemp("swept"), {}
    for anchor, seed in (("superclass", 0), ("superclass", 1), ("empty", 0)):
        scores[anchor, seed] = advanchor.erase(
            *TINY, f"root={root}", f"anchor={anchor}", f"seed={seed}", "metric=[clip]"
        )["scores"]["clip/keep"]["value"]
    return root, scores


@pytest.fixture
def swept(
    made: tuple[Path, dict[tuple[str, int], float]], tmp_path: Path
) -> tuple[list[str], dict[tuple[str, int], float]]:
    """Overrides of a sweep of four, of which the last run is missing, and the scores of the others."""
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    return [*TINY, f"root={tmp_path}", *SWEEP], made[1]


def test_seeds_are_averaged_with_their_deviation_and_a_missing_run_leaves_the_others(swept: Any) -> None:
    overrides, scores = swept
    head, line, first, second, _, note, spread, why, deviation = main(overrides).splitlines()
    assert head == "| method | anchor | fox clip/keep ↑ |"
    assert set(line) <= set("| -")
    both = [scores["superclass", 0], scores["superclass", 1]]
    assert first == f"| ac | superclass | {statistics.mean(both):.3f} ± {statistics.stdev(both):.3f} |"
    assert second.startswith(f"| ac | empty | {scores['empty', 0]:.3f} [")  # one seed has an interval
    assert note.startswith("3 of 4 runs; images: clip/keep 12; code: erased by ")
    assert re.search(r"over the prompts of one training .* other seeds' trainings differ is unknown", spread)
    assert why == "Nothing is marked best or second where a row has one seed."
    assert deviation == "± is the standard deviation over seeds."


def test_against_shows_how_far_each_other_row_is_from_one_and_refuses_what_is_no_row(swept: Any) -> None:
    overrides, scores = swept
    whole = [o if not o.startswith("seed=") else "seed=0" for o in overrides]
    head, _, line, *rest = main([*whole, "--against=ac,superclass"]).splitlines()
    assert head == "| method | anchor | fox clip/keep ↑ |"
    apart = scores["empty", 0] - scores["superclass", 0]
    assert line.startswith(f"| ac | empty | {signed(apart)} [")
    assert any(text.startswith("Difference from ac,superclass") for text in rest)
    with pytest.raises(BadInput, match="--against=ac is no row of this table: take one of ac,superclass; ac,empty"):
        main([*whole, "--against=ac"])
    with pytest.raises(BadInput, match="--against has no --format=csv"):
        main([*whole, "--against=ac,superclass", "--format=csv"])


def test_csv_and_json_have_a_line_for_every_score_with_its_interval(swept: Any) -> None:
    overrides, scores = swept
    lines = list(csv.DictReader(io.StringIO(main([*overrides, "--format=csv"]))))
    read = json.loads(main([*overrides, "--format=json"]))
    assert [(x["method"], x["anchor"], x["concept"], x["score"], x["seeds"], x["n"]) for x in lines] == [
        ("ac", a, "fox", "clip/keep", s, "12") for a, s in (("superclass", "2"), ("empty", "1"))
    ]
    for line, same, anchor in zip(lines, read["scores"], ("superclass", "empty"), strict=True):
        own = [v for (a, _), v in scores.items() if a == anchor]
        assert float(line["mean"]) == pytest.approx(statistics.mean(own))
        assert float(line["low"]) < float(line["mean"]) < float(line["high"])
        assert same["low"] == pytest.approx(float(line["low"]))
        assert same["df_seeds"] == (1 if len(own) == 2 else None)
        assert same["df_prompts"] == 11
    assert len(read["missing"]) == 1


def test_latex_is_a_booktabs_table_with_everything_escaped(swept: Any) -> None:
    overrides, _ = swept
    text = main([*overrides, "table.cells=[clip/keep,anchor/cosine_span]", "--format=latex"])
    assert text.startswith(
        "\\begin{tabular}{llrr}\n\\toprule\nmethod & anchor & fox clip/keep $\\uparrow$ & fox anchor/cosine\\_span"
    )
    assert "$\\pm$" in text
    assert "\\bottomrule" in text
    assert clean("latex", "100 % of $x_1$ & #1 ^ ~") == "100 \\% of \\$x\\_1\\$ \\& \\#1 \\^{} \\~{}"
    assert clean("latex", "{a}\\b") == "\\{a\\}\\textbackslash{}b"
    assert clean("markdown", "a|b\\*c*<i>\n`d`") == "a\\|b\\\\\\*c\\*&lt;i> \\`d\\`"
    assert latex(["a"], [["[1]"]], 1).splitlines()[4] == "{}[1] \\\\"  # not an argument of the line before


def test_a_name_with_signs_of_the_form_breaks_no_row(swept: Any) -> None:
    overrides, _ = swept
    odd = "a|{b}\\ *c*"
    for form, wanted in (("markdown", "a\\|{b}\\\\ \\*c\\*"), ("latex", "a$|$\\{b\\}\\textbackslash{} *c*")):
        text = main(
            [
                *overrides,
                "+paper.source='a\nb'",
                "+paper.values=[]",
                "study='" + odd + "'",
                "table.rows=[study,anchor]",
                f"--format={form}",
            ]
        )
        assert wanted in text


def test_published_numbers_stand_beside_ours_with_the_difference(swept: Any) -> None:
    overrides, scores = swept
    entry = "{row: [ac, empty], column: [fox], score: clip/keep, value: 1.5}"
    text = main([*overrides, "+paper.source=Somebody 2020", f"+paper.values=[{entry}]"])
    assert "Published in Somebody 2020:" in text
    assert f"| 1.500 | {scores['empty', 0]:.3f}" in text
    assert f"| {scores['empty', 0] - 1.5:+.3f} |" in text
    assert "Somebody" not in main(
        [*overrides, "+paper.source=Somebody", f"+paper.values=[{entry.replace('fox', 'ox')}]"]
    )  # a place that a narrower table does not have
    assert (
        json.loads(main([*overrides, "+paper.source=Somebody 2020", f"+paper.values=[{entry}]", "--format=json"]))[
            "paper"
        ][0]["paper"]
        == 1.5
    )
    assert (
        main([*overrides, "+paper.source=Somebody 2020", f"+paper.values=[{entry}]", "--format=latex"]).count(
            "\\begin{tabular}"
        )
        == 2
    )
    for wrong in (entry.replace("column: [fox], ", ""), entry.replace("1.5", "much"), "7"):
        with pytest.raises(BadInput, match="paper needs a source and values such as"):
            main([*overrides, "+paper.source=Somebody", f"+paper.values=[{wrong}]"])
    with pytest.raises(BadInput, match=r"the score clip/kept, which is not in table.cells"):
        main([*overrides, "+paper.source=Somebody", f"+paper.values=[{entry.replace('clip/keep', 'clip/kept')}]"])


def test_strict_names_the_command_that_fills_the_hole_and_that_command_fills_it(swept: Any, tiny: Any) -> None:
    overrides, _ = swept
    with pytest.raises(
        BadInput, match=r"1 of 4 runs are missing; the first is made by `advanchor .*anchor=empty seed=1"
    ):
        main([*overrides, "--strict"])
    tiny("anchor=empty", "seed=1", "metric=[clip]")
    assert "—" not in main([*overrides, "--strict"])
    tiny("anchor=empty", "seed=1", "metric=[erasure]")
    with pytest.raises(
        BadInput, match="ac / superclass / fox: 0 of 2 runs have keep/hit; add the metric that gives it"
    ):
        main([*overrides, "table.cells=[keep/hit]", "--strict"])
    with pytest.raises(BadInput, match=r"no run of this sweep has the score 'keep/hits': .* there are .*clip/keep"):
        main([*overrides, "table.cells=[keep/hits]"])
    with pytest.raises(BadInput, match="no run of this sweep has the score 'clip/keep'"):
        main([*overrides, "judge=none"])  # whose scores these are not


def test_the_command_for_one_missing_run_makes_that_run_alone() -> None:
    (one,) = expand(["experiment=ablation_budget", "concept=emoji/fox", "anchor.steps=3", "seed=0", "sweeps=[]"])
    assert compose(one).anchor.steps == 3
    assert len(expand(["concept=emoji/fox", "sweeps=[{seed: '0,1'},{anchor: empty}]"])) == 3
    assert expand(["anchor=glob(s*)"]) == [["anchor=sibling"], ["anchor=similarity"], ["anchor=superclass"]]
    with pytest.raises(BadInput, match=r"anchor=glob\(z\*\) matches no option"):
        expand(["anchor=glob(z*)"])
    assert expand(["sweeps=[{anchor.bound: null}]"]) == [["anchor.bound=null", "sweeps=[{anchor.bound: null}]"]]
    with pytest.raises(BadInput, match="sweeps must be a list of settings"):
        expand(["sweeps=3"])


CODE = {"edit": "erased", "images": "drawn", "images@base": "drawn before", "measured": "measured"}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("n", "same cell"),
        ("extractor", "another row"),
        *((stage, "same cell") for stage in CODE),
        *((stage, "another row") for stage in ("images", "measured")),
    ],
)
def test_what_was_made_or_counted_differently_is_not_mixed(swept: Any, tmp_path: Path, change: str, where: str) -> None:
    overrides, _ = swept
    for file in tmp_path.glob("*/result.json"):
        result = json.loads(file.read_text())
        (memo,) = file.parent.glob("metrics/clip-*.json")
        measured = json.loads(memo.read_text())
        other = (
            (result["config"]["seed"] == 1) if where == "same cell" else (result["config"]["anchor"]["name"] == "empty")
        )
        if change in result["provenance"]:
            result["provenance"][change] = "another" if other else "one"
        elif change == "measured":
            measured["clip/keep"]["code"] = "another" if other else "one"
        elif change == "extractor" or other:
            measured["clip/keep"][change] = 7 if other else "one"
        write_json(file, result)
        write_json(memo, measured)
    said = f"differ in code: .* was {CODE[change]} by another and by one" if change in CODE else f"differ in .*{change}"
    with pytest.raises(BadInput, match=said):
        main(overrides)


def test_each_method_and_anchor_has_its_own_sources_and_what_is_drawn_under_the_anchor_concerns_its_own_score_alone(
    swept: Any, tmp_path: Path
) -> None:
    overrides, _ = swept
    for i, file in enumerate(sorted(tmp_path.glob("*/result.json"))):
        result = json.loads(file.read_text())
        result["provenance"] |= {"edit": result["config"]["anchor"]["name"], "images@anchor": str(i)}
        write_json(file, result)
    assert "erased by empty, superclass" in main(overrides)


def test_a_sweep_of_which_no_run_is_there_says_which_command_makes_it(swept: Any) -> None:
    overrides, _ = swept
    with pytest.raises(
        BadInput,
        match=r"none of the 4 runs of this sweep is in .*: "
        r"`advanchor -m .*anchor=superclass,empty seed=0,1 method.steps=2` makes them",
    ) as said:
        main([*overrides, "method.steps=2"])
    command = shlex.split(str(said.value).partition("`")[2].partition("`")[0])
    assert expand(command[2:]) == expand([o for o in [*overrides, "method.steps=2"] if not o.startswith("table.")])
    with pytest.raises(BadInput, match=r"the run of this sweep is in .*: `advanchor experiment=smoke .*` makes it"):
        main([*overrides, "anchor=random", "seed=3"])


@pytest.mark.parametrize("axis", ["rows", "columns", "cells"])
def test_what_a_table_cannot_be_laid_out_by_is_said_in_a_sentence(axis: str) -> None:
    cfg = compose([])
    wrong: list[tuple[Any, str]] = [
        (given, "must be a list of words, such as")
        for given in ([3], [None], [["seed"]], [{"a": "b"}], [""], [True], None, "seed", 7)
    ]
    wrong.append((["seed", "seed"], "names seed twice"))
    if axis != "columns":  # no columns: the mean over all
        wrong.append(([], "leaves nothing to show: name at least one"))
    if axis != "cells":  # whether a score is there only the runs say
        wrong += [
            ([name], f"there is no setting '{name}' to lay out") for name in ("seed..x", "a.b.c", ".", "[", "sead")
        ]
        wrong += [
            ([name], f"'{name}' is several settings and has no value of its own")
            for name in ("sample", "metric", "concept.keep")
        ]
    for given, said in wrong:
        with pytest.raises(BadInput, match=re.escape(said)):
            check(
                OmegaConf.create({"rows": ["method"], "columns": ["seed"], "cells": ["keep/hit"], axis: given}), [cfg]
            )
    check(OmegaConf.create({"rows": ["method"], "columns": [], "cells": ["keep/hit"]}), [cfg])


def test_help_has_a_line_for_every_option_and_an_unknown_flag_gets_a_sentence(tmp_path: Path) -> None:
    for command, words, own in (
        ("table", main, ["--format=csv", "--strict", "table.rows="]),
        ("plot", plots.main, ["--to=<folder>", "table.columns="]),
    ):
        lines = words(["--help", "what=ever"]).splitlines()
        assert all(any(line.startswith(option) for line in lines) for option in (*own, "--help", "root="))
        for wrong in ("-m", "--formt=csv", "--format", "--strict=1", "--to", "--to=", "--help=1", "-x"):
            with pytest.raises(BadInput, match=f"{command} does not know {wrong}: it takes .*--help"):
                words([wrong])
        with pytest.raises(BadInput, match=f"{command} was given --help twice"):
            words(["--help", "--help"])
    with pytest.raises(BadInput, match=r"leave table.cells=.* out"):
        plots.main(["table.cells=[clip/keep]"])


def test_a_note_says_whose_counts_differ() -> None:
    facts = {"fox": {"n": 160}, "car": {"n": 210}, "twemoji": {"n": 160}}
    cells = {(("a",), (concept,), "keep/hit"): Cell([Value(0.5)], {concept: facts[concept]}) for concept in facts}
    (note,) = notes(
        Sweep([("a",)], [(c,) for c in facts], cells, 3, [], {"erased": {"y", "x"}}),
        OmegaConf.create({"cells": ["keep/hit"]}),
    )
    assert note == "3 of 3 runs; images: keep/hit 160 (fox, twemoji) and 210 (car); code: erased by x, y."


def test_what_is_not_of_a_whole_set_has_an_interval_too(tiny: Any, tmp_path: Path) -> None:
    tiny("anchor=superclass", "metric=[anchor,unlearncanvas]", "sample.erase=4")
    overrides = [*TINY, f"root={tmp_path}", "anchor=superclass", "sample.erase=4", "--format=json"]
    found = json.loads(
        main([*overrides, "table.cells=[anchor/hit,unlearncanvas/ua,unlearncanvas/ira,unlearncanvas/cra]"])
    )["scores"]
    assert len(found) == 4
    assert all(one["low"] <= one["mean"] <= one["high"] and one["low"] < one["high"] for one in found)


def test_any_setting_can_be_a_row_and_a_wrong_one_is_refused(swept: Any) -> None:
    overrides, _ = swept
    assert "| 0 | superclass |" in main([*overrides, "table.rows=[seed,anchor]"])
    assert "| ac | — |" in main(
        [*overrides, "anchor=superclass,empty,adversarial", "table.rows=[method,anchor.lr]"]
    )  # words have no learning rate
    for wrong in ("anchr.name", "metod", "method.stpes"):
        with pytest.raises(BadInput, match=f"no setting '{wrong}' to lay out"):
            main([*overrides, f"table.rows=[{wrong}]"])
    for wrong in ("table.rows=anchor", "table.columns=null"):
        with pytest.raises(BadInput, match=r"must be a list, such as \[method,anchor\]"):
            main([*overrides, wrong])
    with pytest.raises(BadInput, match="does not know --formt=csv"):
        main([*overrides, "--formt=csv"])


def test_what_a_run_reports_beside_its_scores_can_stand_in_a_table(swept: Any) -> None:
    overrides, _ = swept
    head, _, first = main([*overrides, "table.cells=[anchor/cosine_span,cost/seconds]"]).splitlines()[:3]
    assert head == "| method | anchor | fox anchor/cosine_span | fox cost/seconds ↓ |"
    assert " ± " in first


def test_several_experiments_make_one_table_with_their_runs_one_after_the_other() -> None:
    first, second = expand(["experiment=anchors"]), expand(["experiment=three_concepts"])
    both = expand(["seed=1", "experiment=anchors,three_concepts"])
    assert len(both) == len(first) + len(second)
    assert "experiment=anchors" in both[0]
    assert "experiment=three_concepts" in both[-1]
    assert [compose(choice).seed for choice in (both[0], both[-1])] == [1, 1]


def test_an_experiment_of_several_sweeps_makes_each_run_once_and_yields_to_the_command_line() -> None:
    runs = expand(["experiment=anchor_study"])
    assert len({run_id(compose(run)) for run in runs[:3] + runs[-3:]}) == 6
    assert len(runs) == 8 * (3 * 3 + 8)
    assert len(expand(["experiment=anchor_study", "seed=1"])) == 8 * 11
    assert len(expand(["experiment=anchor_study", "seed=0", "anchor=empty"])) == 8  # both sweeps have become the same
    with pytest.raises(BadInput, match="there is no experiment=anchor_studies: did you mean anchor_study"):
        expand(["experiment=anchor_studies"])


def test_the_figures_of_a_sweep_are_written_and_an_empty_sweep_or_a_wrong_flag_is_refused(
    tiny: Any, tmp_path: Path
) -> None:
    for anchor in ("superclass", "empty"):
        tiny(f"anchor={anchor}", "metric=[erasure]")
    sweep = [*TINY, f"root={tmp_path}", "anchor=superclass,empty"]
    written = plots.main([*sweep, f"--to={tmp_path / 'figures'}"]).splitlines()
    figures = [
        f"{n}.{e}" for n in ("trade-off", "similarity", "concepts", "interference") for e in ("png", "pdf")
    ]  # nothing was drawn under the anchors
    assert sorted(Path(f).name for f in written) == sorted([*figures, "correlations.json"])
    assert all(Path(f).stat().st_size > 5000 for f in written if not f.endswith("json"))
    with pytest.raises(BadInput, match=r"none of the 2 runs of this sweep is in .*: `advanchor -m "):
        plots.main([*sweep, "method.steps=2"])
    with pytest.raises(BadInput, match="does not know --too=x"):
        plots.main([*sweep, "--too=x"])
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"figures cannot be written to .*file .*name another folder"):
        plots.main([*sweep, f"--to={tmp_path / 'file'}"])


def test_a_share_in_a_figure_is_0_or_1_only_if_it_is() -> None:
    assert [painters.rate(v) for v in (0.0, 1e-5, 0.995, 0.9996, 1.0)] == ["0.000", "0.001", "0.995", "0.999", "1.000"]


@pytest.mark.parametrize("n", [1, 2, pytest.param(50, marks=pytest.mark.slow)])
def test_the_labels_of_every_figure_of_few_and_of_many_rows_are_inside_it_and_no_two_keys_are_alike(n: int) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    rows, columns = [("method", f"anchor number {i}") for i in range(n)], [("fox",), ("car",)]
    attacks = [f"attack/{one}/{what}" for one in ("relearn", "noise") for what in ("asr", "never", "excess")]
    doses = [f"attack/relearn/{what}:{dose}" for what in ("hit", "never") for dose in (0, 5)]
    distances = [f"reference/{one}{which}" for one in attacked.DISTANCES for which in ("", *attacked.OTHERS)]
    names = [*points.BEFORE, *points.BEFORE.values(), points.COSINE, points.DRAWN, *attacks, *doses, *distances]
    shown = {name: "fox" if name.startswith("erasure") else "dog" for name in names}
    cells = {
        (row, column, name): Cell([Value(0.5, 0, column[0], [0.5], ["a"], [shown[name]])])
        for row in rows
        for column in columns
        for name in names
    }
    sweep = Sweep(rows, columns, cells, n, [], {}, scores={*names})
    drawn = []
    for name, paint, size in plots.figures(sweep):
        figure = pyplot.figure(figsize=size, layout="constrained")
        paint(figure)
        figure.canvas.draw()
        for axes in figure.axes:
            box = axes.get_tightbbox()
            assert min(box.x0, box.y0) >= -1, name
            assert box.x1 <= figure.bbox.x1 + 1, name
            assert box.y1 <= figure.bbox.y1 + 1, name
            if name in ("similarity", "lacking"):
                keys = [
                    (h.get_marker(), h.get_color(), h.get_markerfacecolor()) for h in axes.get_legend().legend_handles
                ]
                assert len({*keys[:8]}) == len(keys[:8])  # shapes come again after a while
                assert all(marker in ("None", "", None) for marker, *_ in keys[-2:])  # a colour is no shape
        drawn.append(name)
        pyplot.close(figure)
    assert drawn == [
        "trade-off", "similarity", "lacking", "concepts", "interference",
        *(f"{name}-{column}" for column in ("fox", "car") for name in ("attacks", "doses", "reference")),
    ]  # fmt: skip


def test_a_trade_off_in_which_no_row_has_runs_in_every_column_is_not_drawn_empty() -> None:
    rows, columns = [("ac", "superclass"), ("ac", "empty")], [("fox",), ("car",)]

    def drawn(there: list[tuple[str, ...]]) -> list[str]:
        cells = {(row, c, n): Cell([Value(0.5, 0, *c)]) for row in rows for c in there for n in points.BEFORE}
        return [name for name, *_ in plots.figures(Sweep(rows, columns, cells, 4, [], {}, scores={*points.BEFORE}))]

    assert drawn(columns)[0] == "trade-off"
    assert "trade-off" not in drawn(columns[:1])


def test_a_cell_knows_its_means_by_concept() -> None:
    one = Cell(
        [
            Value(0.5, images=images, labels=["fox", "fox", "car", "car"])
            for images in ([1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0])
        ]
    )
    assert one.by_label() == {"fox": 0.5, "car": 0.5}


def test_what_is_erased_can_be_held_fixed_in_a_correlation() -> None:
    erased, similar, kept = (0.0, 0.1, 0.2, 0.3, 0.4), (0.1, 0.3, 0.2, 0.5, 0.4), (0.2, 0.1, 0.4, 0.3, 0.5)
    cells: dict[Any, Cell] = {}
    for i, values in enumerate(zip(erased, similar, kept, strict=True)):
        names = ("erasure/hit", "anchor/cosine_span", "keep/hit")
        cells |= {((str(i),), ("fox",), name): Cell([Value(v)]) for name, v in zip(names, values, strict=True)}
    found = correlations(Sweep([(str(i),) for i in range(5)], [("fox",)], cells, 5, [], {}))
    xy, xz, yz = 0.3, 0.8, 0.8  # 1 - 6 sum d^2 / (n (n^2 - 1))
    assert found["similarity_keeping/all"]["rho"] == pytest.approx(xy, abs=1e-6)
    wanted = (xy - xz * yz) / ((1 - xz**2) * (1 - yz**2)) ** 0.5
    # torchmetrics adds a little to each variance
    assert found["similarity_keeping/given"]["rho"] == pytest.approx(wanted, abs=1e-4)
    assert "drawn_erased/given" not in found


def test_correlations_are_within_concepts_and_leave_out_the_concept_itself() -> None:
    cells: dict[Any, Cell] = {}
    for concept, start in (
        ("fox", 0.0),
        ("car", 0.5),
    ):  # within each concept similarity lowers keeping; over both it would seem to raise it
        for anchor, step in (("a", 0.0), ("b", 0.1), ("c", 0.2), ("itself", 1.0)):
            values = {
                "anchor/cosine_span": 1.0 if anchor == "itself" else start + step,
                "keep/hit": start + (1.0 if anchor == "itself" else 0.3 - step),
                "anchor/hit": step,
                "erasure/hit": step,
            }
            cells |= {((anchor,), (concept,), name): Cell([Value(v)]) for name, v in values.items()}
    found = correlations(Sweep([(a,) for a in ("a", "b", "c", "itself")], [("fox",), ("car",)], cells, 8, [], {}))
    assert (found["similarity_keeping/all"]["rho"], found["similarity_keeping/all"]["concepts"]) == (
        pytest.approx(-1, abs=1e-5),
        2,
    )
    assert found["drawn_erased/all"]["rho"] == pytest.approx(1, abs=1e-5)
    assert "similarity_fid/all" not in found  # nothing was measured there
    assert found["similarity_keeping/all"]["high"] < 0
    for anchor in ("a", "b", "c"):
        cells[(anchor,), ("car",), "keep/hit"] = Cell([Value(0.5)])
    found = correlations(Sweep([(a,) for a in ("a", "b", "c", "itself")], [("fox",), ("car",)], cells, 8, [], {}))
    assert found["similarity_keeping/all"]["each"] == [
        pytest.approx(-1, abs=1e-5)
    ]  # one that is the same under every anchor has no rank
    assert found["similarity_keeping/all"]["low"] is None  # of one concept nobody knows how far others are


def test_a_sweep_of_one_number_at_a_time_has_a_centre_and_a_panel_for_each_setting_and_a_grid_has_none(
    tmp_path: Path,
) -> None:
    rows = [("1", "none"), ("10", "none"), ("30", "none"), ("10", "0.3"), ("10", "1e-1"), ("10", "2")]
    one = Sweep(
        rows,
        [("fox",)],
        {(row, ("fox",), name): Cell([Value(0.5)]) for row in rows for name in ("erasure/hit", "keep/hit")},
        6,
        [],
        {},
        ["steps", "bound"],
    )
    assert [points.label(one, row) for row in rows] == [
        "steps 1",
        "centre",
        "steps 30",
        "bound 0.3",
        "bound 1e-1",
        "bound 2",
    ]
    assert {name: [value for value, _ in values] for name, values in points.varied(one).items()} == {
        "steps": ["1", "10", "30"],
        "bound": ["1e-1", "0.3", "2", "none"],
    }
    figure = pytest.importorskip("matplotlib.figure").Figure(layout="constrained")
    painters.settings(figure, one)
    assert [axes.get_xlabel() for axes in figure.axes] == ["steps", "bound"]
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["1e-1", "0.3", "2", "none"]
    grid = Sweep([(a, b) for a in ("1", "2") for b in ("3", "4")], [("fox",)], {}, 4, [], {}, ["steps", "bound"])
    assert not points.varied(grid)
    assert points.label(grid, ("1", "3")) == "1 + 3"
    for others in (
        [("ac", "a"), ("ac", "b"), ("ac", "c")],
        [("ac", "a"), ("ac", "b"), ("esd", "a")],
        [("1", "2"), ("2", "1"), ("2", "2")][:2],
    ):  # names; the centre is not there
        assert points.centre(Sweep(others, [("fox",)], {}, 3, [], {}, ["method", "anchor"])) is None


def test_a_setting_in_a_row_is_written_in_its_shortest_form() -> None:
    cfg = compose(["anchor=adversarial", "anchor.lr=2e-2", "method.preserve=10.0"])
    assert [
        label(cfg, name) for name in ("anchor.lr", "method.preserve", "anchor.bound", "anchor.steps", "anchor")
    ] == ["0.02", "10", "none", "10", "adversarial"]


def test_a_finished_run_that_another_code_measures_says_so_and_one_that_another_code_draws_is_measured_anew(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny("anchor=empty", "metric=[clip]")
    overrides = [*TINY, f"root={tmp_path}", "anchor=empty"]

    def changed(module: str) -> None:
        monkeypatch.setattr(
            provenance, "SOURCES", {**provenance.SOURCES, module: provenance.SOURCES[module] + b"\nx = 1"}
        )

    changed("advanchor.metrics.erasure")
    second = tiny("anchor=empty", "metric=[erasure]")
    assert second["provenance"] == first["provenance"]  # who made the images
    assert {"clip/keep", "keep/hit"} <= second["scores"].keys()
    assert "keep/hit" in main([*overrides, "table.cells=[keep/hit]"])
    assert "measured by" in main([*overrides, "table.cells=[keep/hit,clip/keep]"])  # two metrics are two pieces of code
    changed("advanchor.images")
    third = tiny("anchor=empty", "metric=[fid]")
    assert third["provenance"]["images"] != first["provenance"]["images"]
    assert third["provenance"]["edit"] == first["provenance"]["edit"]
    assert not {"clip/keep", "keep/hit"} & third["scores"].keys()
