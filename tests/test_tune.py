"""A search asks, runs answer: it resumes, several processes share it, and what is told is what was measured."""

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from advanchor import cli
from advanchor.commands import studies, tune
from advanchor.commands.search import Search, distribution, searched, space
from advanchor.core import BadInput

SPACE = ["method.lr=tag(log,interval(1e-5,1e-3))", "method.steps=choice(1,2,3)"]
ASKED = ["model=random", "tracker=none", "anchor=empty", *SPACE, "tune.trials=6"]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("a=interval(0,2.5)", FloatDistribution(0, 2.5)),
        ("a=tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("a=int(interval(1,5))", IntDistribution(1, 5)),
        ("a=range(30,121,30)", IntDistribution(30, 120, step=30)),
        ("a=range(30,120,30)", IntDistribution(30, 90, step=30)),
        ("a=range(0.0,1.0,0.25)", CategoricalDistribution([0.0, 0.25, 0.5, 0.75])),
        ("a=choice(1,b,'c d',true)", CategoricalDistribution([1, "b", "c d", True])),
    ],
)
def test_hydras_words_say_what_is_searched(line: str, wanted: Any) -> None:
    assert searched(line)
    assert distribution(line) == wanted


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("a=interval(2,1)", "is no span: give two numbers, the second above the first"),
        ("a=tag(log,interval(0,1))", "is no span: give two numbers, the first above 0"),
        ("a=tag(lag,interval(0,1))", "has a tag that means nothing here"),
        ("a=tag(log,choice(1,2))", "has a tag that means nothing here"),
        ("a=range(5,1,-1)", "is no span|goes down"),
        ("a=choice([1,2],3)", r"choice\(\[1, 2\], ...\) will not do"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        distribution(line)


def test_commas_are_no_choice_and_a_command_comes_after_its_experiment(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params: {seed: '0,1', anchor.lr: 'interval(0,1)', "
        "method.steps: 'choice(1,2)'}\n"
    )
    folder = f"config_dir={tmp_path}"
    found, rest = space([folder, "experiment=mine", "concept=emoji/fox,emoji/car", "method.steps=choice(3,4)"])
    assert found == {
        "anchor.lr": FloatDistribution(0, 1), "method.steps": CategoricalDistribution([3, 4]),
    }  # fmt: skip
    assert rest == [folder, "experiment=mine", "concept=emoji/fox,emoji/car"]
    with pytest.raises(BadInput, match=r"nothing is to be searched: give a setting as 'method.lr="):
        space(["seed=0,1"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tune.trials=0"], "tune.trials=0 will not do: it must be a whole number, at least 1"),
        (["tune.minimise=[a]"], "there is no setting 'tune.minimise'|tune.minimise"),
        (["tune.minimize=erasure/hit"], r"tune.minimize=erasure/hit will not do: it must be a list"),
        (["tune.minimize=[]", "tune.maximize=[]"], "name a score twice, or none"),
        (["tune.replicas=[a]"], r"tune.replicas=\['a'\] will not do: it must be a list, such as \[1,2\]"),
        (["sample.half=report"], "sample.half=report is what is reported on, and nothing is chosen there"),
        (["concept=emoji/rose"], "rose is a concept to report on, and sample.half=choose"),
        (["table.rows=[anchor,method.lr]"], "method.lr is searched, and cannot tell rows apart"),
        (["method.lrr=interval(0,1)"], "lrr"),
        (["method.batch=interval(-1.5,-0.5)"], "method.batch=-1.5"),
    ],
)
def test_a_mistake_is_said_before_anything_is_written(words: list[str], sentence: str, tmp_path: Path) -> None:
    names = {word.partition("=")[0] for word in words}
    rest = [word for word in ASKED if word.partition("=")[0] not in names]
    with pytest.raises(BadInput, match=sentence):
        tune.main([*rest, f"root={tmp_path / 'runs'}", *words])
    assert not (tmp_path / "runs").exists()


def of(root: Path, *words: str) -> Search:
    (search,), _ = tune.searches([*ASKED, f"root={root}", *words])
    return search


def fake(search: Search, params: Mapping[str, Any]) -> tuple[list[float] | None, str]:
    """Scores of a trial, without a run."""
    return [params["method.lr"] * 1000, params["method.steps"] / 3, 1 - params["method.steps"] / 4], ""


def told(search: Search) -> list[tuple[int, str, dict[str, Any], Sequence[float] | None]]:
    return [(t.number, t.state.name, t.params, t.values) for t in search.study().get_trials()]


def test_a_study_that_is_killed_goes_on_and_ends_like_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "scored", fake)
    assert tune.made(of(tmp_path / "whole", "tune.trials=13")) is None

    def killed(search: Search, params: Mapping[str, Any]) -> Any:
        monkeypatch.setattr(tune, "scored", fake)
        raise KeyboardInterrupt

    for trials in (2, 5, 12):  # the last beyond those that are drawn at random
        assert tune.made(of(tmp_path / "killed", f"tune.trials={trials}")) is None
        monkeypatch.setattr(tune, "scored", killed)
        with pytest.raises(KeyboardInterrupt):
            tune.made(of(tmp_path / "killed", "tune.trials=13"))
    assert tune.made(of(tmp_path / "killed", "tune.trials=13")) is None
    whole, again = told(of(tmp_path / "whole")), told(of(tmp_path / "killed"))
    assert [state for _, state, _, _ in whole] == ["COMPLETE"] * 13
    assert again == whole
    monkeypatch.setattr(tune, "scored", killed)
    assert tune.made(of(tmp_path / "whole", "tune.trials=13")) is None  # as many as are asked for are there


def share(root: Path) -> None:
    tune.scored = fake
    assert tune.made(of(root, "tune.trials=9")) is None


def test_several_processes_share_a_study_and_make_no_trial_twice(tmp_path: Path) -> None:
    several = [multiprocessing.get_context("fork").Process(target=share, args=(tmp_path,)) for _ in range(3)]
    for one in several:
        one.start()
    for one in several:
        one.join()
        assert one.exitcode == 0
    assert [(number, state) for number, state, _, _ in told(of(tmp_path))] == [(n, "COMPLETE") for n in range(9)]


def test_a_failed_trial_is_told_as_failed_and_replaced_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = iter(range(100))
    monkeypatch.setattr(tune, "scored", lambda s, p: (None, "no memory") if next(count) == 1 else fake(s, p))
    search = of(tmp_path, "tune.trials=3")
    assert tune.made(search) is None
    assert [state for _, state, _, _ in told(search)] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    monkeypatch.setattr(tune, "scored", lambda s, p: (None, "no memory"))
    why = tune.made(of(tmp_path, "tune.trials=30"))
    assert why == "ac + empty: 3 trials failed one after the other; the last: no memory"
    assert len(told(search)) == 7


def test_a_study_belongs_to_its_row_space_scores_and_runs(tmp_path: Path) -> None:
    usual = of(tmp_path).file
    assert of(tmp_path, "device=cpu", "batch=7").file == usual
    for words in (["tune.seed=1"], ["seed=3"], ["tune.maximize=[keep/hit]"], ["sample.half=all"], ["sample.erase=3"]):
        assert of(tmp_path, *words).file != usual
    several, _ = tune.searches(["model=random", *SPACE, "anchor=empty,superclass", "method=ac,esd", f"root={tmp_path}"])
    assert {search.row for search in several} == {(m, a) for m in ("ac", "esd") for a in ("empty", "superclass")}
    assert len({search.file for search in several}) == 4
    assert [len(search.runs({"method.lr": 1e-4, "method.steps": 1})) for search in several] == [1] * 4


def test_an_experiments_half_and_seeds_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine/experiment").mkdir(parents=True)
    for half in ("all", "report"):
        (tmp_path / f"mine/experiment/{half}.yaml").write_text(
            "# @package _global_\nhydra:\n  sweeper:\n    params: {seed: '4,5', method.steps: 'choice(1,2)'}\n"
            f"sample: {{half: {half}}}\n"
        )
    words = ["model=random", "anchor=empty", f"root={tmp_path}", f"config_dir={tmp_path / 'mine'}"]
    with pytest.raises(BadInput, match=r"sample\.half=report is what is reported on"):
        tune.searches([*words, "experiment=report"])
    (search,), cfg = tune.searches([*words, "experiment=all"])
    assert cfg.sample.half == "choose"
    assert [run.seed for run in search.runs({"method.steps": 1})] == [4, 5]
    assert search.again({"method.steps": 1}, [5, 6])[-1] == "seed=4,5,6"


def test_trials_are_runs_whose_scores_it_is_told_and_only_the_best_have_further_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        *TINY, f"root={tmp_path / 'runs'}", "anchor=empty", "metric=[erasure]", "method.steps=choice(1,2)",
        "tune.trials=3", "tune.minimize=[erasure/hit]", "tune.maximize=[keep/hit]", "tune.replicas=[1]",
        f"--to={tmp_path / 'to'}", "seed=0",
    ]  # fmt: skip
    cli.command(["tune", *asked])
    first = capsys.readouterr().out
    assert first.startswith("ac + empty: 3 of 3 trials finished; those that no other beats:")
    results = [json.loads(file.read_text()) for file in (tmp_path / "runs").glob("*/result.json")]
    by = {(one["config"]["method"]["steps"], one["config"]["seed"]): one["scores"] for one in results}
    (file,) = (tmp_path / "to").glob("*.json")
    told_of = json.loads(file.read_text())
    for trial in told_of["trials"]:
        scores = by[trial["params"]["method.steps"], 0]
        assert trial["values"] == [scores[name]["value"] for name in ("erasure/hit", "keep/hit")]
    best = {told_of["trials"][one["number"]]["params"]["method.steps"] for one in told_of["best"]}
    assert {steps for steps, seed in by if seed == 1} == best
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "runs").rglob("*") if f.name != "ask.lock"}
    cli.command(["tune", *asked])
    assert capsys.readouterr().out == first
    assert {f for f in (tmp_path / "runs").rglob("*") if f.is_file()} <= {*before, *(tmp_path / "runs").rglob("*.lock")}
    assert all(one["config"]["sample"]["half"] == "choose" for one in results)


def test_a_score_that_no_run_has_is_one_sentence(tmp_path: Path) -> None:
    words = [*TINY, f"root={tmp_path}", "metric=[erasure]", "method.steps=choice(1,2)", "tune.trials=1"]
    with pytest.raises(BadInput, match=r"the runs have no score 'content/hat': correct tune.minimize or tune.maximize"):
        tune.main([*words, "anchor=empty", "tune.maximize=[content/hat]"])


def test_one_score_alone_has_its_figure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "scored", lambda s, p: ([p["method.lr"]], ""))
    search = of(tmp_path / "runs", "tune.maximize=[]", "tune.trials=3")
    assert tune.made(search) is None
    monkeypatch.setattr(studies, "cells", lambda *a: {})
    written = studies.written([search], [], str(tmp_path / "to"))
    assert [Path(file).suffix for file in written] == [".png", ".pdf", ".json"]
