"""Several budgets cost one training: the longer goes on where the shorter ended, with the bits of one that did not."""

import concurrent.futures
import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from test_conf import options
from test_every_method import METHODS, NO_ANCHOR, TRAINED

import advanchor
from advanchor import cli, provenance
from advanchor.build import build
from advanchor.commands import launch
from advanchor.commands.budgets import ascending
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.erasing import erased
from advanchor.identity import key
from advanchor.methods.ac import AblatingConcepts
from advanchor.store import read_json, write_json
from advanchor.training import loop

Learn = Callable[..., dict[str, Any]]


@pytest.fixture
def learn(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Learn:
    """The edit of a config on the random model, as a run makes it: what it is, and at how many steps it began."""
    monkeypatch.setattr(model, "shelf", tmp_path / "latents")

    def call(root: str, *overrides: str, track: Any = lambda i, **s: None) -> dict[str, Any]:
        cfg = compose(["model=random", "concept=emoji/butterfly", f"root={tmp_path / root}", *overrides])
        name = key(cfg.model, cfg.concept, cfg.anchor, cfg.method, cfg.seed)
        edits = tmp_path / root / "store" / "edits"
        _, diagnostics, code = erased(cfg, model, build(cfg.concept, "concept"), edits, name, track)
        files = {f.name: f.read_bytes() for f in (edits / name).iterdir() if f.suffix in (".safetensors", ".jsonl")}
        costs = {k: diagnostics.pop(k) for k in list(diagnostics) if k.startswith("cost/")}
        return {"made": {**files, "diagnostics": diagnostics, "code": code}, **costs}

    return call


def ends(root: Path) -> list[str]:
    """How long the trainings were whose ends are kept."""
    return sorted(f.name.rpartition("-")[2] for f in root.glob("store/trails/*") if f.is_dir())


def both_ways(learn: Learn, *overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """An edit of four steps by itself, and one after an edit of two."""
    learn("on", *overrides, "method.steps=2", "longest=4")
    return learn("alone", *overrides, "method.steps=4"), learn("on", *overrides, "method.steps=4", "longest=4")


def test_every_method_with_steps_promises_that_none_of_them_knows_the_total() -> None:
    every = {name: compose([f"method={name}", "anchor=published"]).method for name in METHODS}
    promise = {name for name, cfg in every.items() if getattr(build(cfg, "method"), "open_ended", False)}
    assert promise == {name for name, cfg in every.items() if "steps" in cfg} == set(TRAINED)


def rest(name: str, *usual: str) -> tuple[Any, ...]:
    """The mark of what is not usual."""
    return () if name in usual else (pytest.mark.slow,)


@pytest.mark.parametrize("method", [pytest.param(m, marks=rest(m, "ac", "esd", "spm", "mace")) for m in TRAINED])
def test_an_edit_that_goes_on_from_a_shorter_one_has_the_bits_of_one_that_does_not(
    method: str, learn: Learn, tmp_path: Path
) -> None:
    alone, on = both_ways(learn, f"method={method}", "anchor=published")
    assert on["made"] == alone["made"]
    assert on["cost/steps_shared"] == 2
    assert "cost/steps_shared" not in alone
    assert ends(tmp_path / "on") == []


@pytest.mark.parametrize("method", [pytest.param(m, marks=rest(m, "ac", "spm")) for m in TRAINED])
def test_also_of_two_concepts_whose_anchors_learn(method: str, learn: Learn) -> None:
    anchor = "concept" if method in NO_ANCHOR else "adversarial"
    alone, on = both_ways(learn, f"method={method}", f"anchor={anchor}", "concept=emoji/fox_and_car")
    assert on["made"] == alone["made"]
    assert on["cost/steps_shared"] == 2


LEARNING = [a for a in options("anchor") if a != "published" and "schedule" in compose([f"anchor={a}"]).anchor]
SCHEDULES = [(a, s) for a in LEARNING for s in ("sequential", "cyclical")]
ANCHORS = [*((a, "") for a in options("anchor")), *SCHEDULES]
USUAL = ("superclass", "adversarial", "similarity", "learned")


@pytest.mark.parametrize(("anchor", "schedule"), [pytest.param(*one, marks=rest(one[0], *USUAL)) for one in ANCHORS])
def test_an_anchor_that_learns_the_longer_before_the_first_step_the_more_will_follow_is_trained_by_itself(
    anchor: str, schedule: str, learn: Learn, tmp_path: Path
) -> None:
    of = [f"anchor.schedule={schedule}", *(["anchor.batches=0"] if anchor == "similarity" else [])]
    overrides = ["method=ac", f"anchor={anchor}", *(of if schedule else [])]
    alone, on = both_ways(learn, *overrides)
    assert on["made"] == alone["made"]
    assert on.get("cost/steps_shared") == (None if schedule else 2)
    assert ends(tmp_path / "on") == []


def test_a_method_that_promises_nothing_is_trained_by_itself(learn: Learn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(AblatingConcepts, "open_ended")
    alone, on = both_ways(learn, "anchor=superclass")
    assert on["made"] == alone["made"]
    assert "cost/steps_shared" not in on


def test_only_the_missing_steps_are_trained_from_the_longest_that_fits(
    learn: Learn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[None] = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *a, **k: updates.append(None) or step(self, *a, **k))
    made = []
    for steps in (1, 5, 3, 2, 4):
        before = len(updates)
        learn("out", "anchor=superclass", f"method.steps={steps}", "longest=6")
        made.append(len(updates) - before)
    assert made == [1, 4, 3, 2, 1]  # 5 from 1, which is not needed by then; 4 from 3
    assert ends(tmp_path / "out") == ["4", "5"]  # whoever wants more than 4 has them
    learn("out", "anchor=superclass", "method.steps=6", "longest=6")
    assert len(updates) == sum(made) + 1
    assert ends(tmp_path / "out") == []


def test_nothing_is_kept_unless_a_longer_one_is_to_come(learn: Learn, tmp_path: Path) -> None:
    learn("out", "anchor=superclass", "method.steps=2")
    learn("out", "anchor=superclass", "method.steps=3", "longest=0")
    learn("out", "anchor=superclass", "method.steps=6", "longest=4")
    learn("out", "anchor=superclass", "method.steps=4", "longest=6")  # that one is there
    assert ends(tmp_path / "out") == []
    assert "cost/steps_shared" not in learn("out", "anchor=superclass", "method.steps=4")
    with pytest.raises(BadInput, match="longest=-1 will not do: it must be a number of steps"):
        compose(["longest=-1"])


@pytest.mark.parametrize("other", ["seed=1", "method.lr=1e-3", "anchor=empty", "concept=emoji/fox", "code", "method"])
def test_what_another_training_ended_with_is_not_gone_on_from(
    other: str, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn("out", "anchor=superclass", "method.steps=2", "longest=4")
    if other == "code":
        sources = {k: v + b"# later" if k == "advanchor.training.loop" else v for k, v in provenance.SOURCES.items()}
        monkeypatch.setattr(provenance, "SOURCES", sources)
    more = {"code": "anchor=superclass", "method": "method=ac_faithful"}.get(other, other)
    assert "cost/steps_shared" not in learn("out", "anchor=superclass", more, "method.steps=4")


class Killed(Exception): ...


@pytest.mark.parametrize("anchor", ["superclass", "adversarial"])
def test_one_that_went_on_and_was_killed_ends_with_the_same_bits_and_no_cost(
    anchor: str, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "WRITING", float("inf"))

    def kill(i: int, **scalars: float) -> None:
        if i == 3:
            raise Killed

    learn("on", f"anchor={anchor}", "method.steps=2", "longest=5")
    with pytest.raises(Killed):
        learn("on", f"anchor={anchor}", "method.steps=5", track=kill)
    on, alone = learn("on", f"anchor={anchor}", "method.steps=5"), learn("alone", f"anchor={anchor}", "method.steps=5")
    assert on["made"] == alone["made"]
    assert on["cost/steps_shared"] == 2
    assert "cost/seconds" not in on


def test_a_kill_at_any_file_that_gets_its_name_changes_nothing(
    learn: Learn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = learn("alone", "anchor=adversarial", "method.steps=2")["made"]
    replace = os.replace
    for moment in count(1):
        calls = iter(range(moment - 1))

        def rename(source: Any, target: Any) -> None:
            if next(calls, None) is None:
                raise Killed
            replace(source, target)

        root = f"on{moment}"
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", rename)
            try:
                for steps in (1, 2):
                    learn(root, "anchor=adversarial", f"method.steps={steps}", "longest=2")
                break
            except Killed:
                pass
        for steps in (1, 2):
            made = learn(root, "anchor=adversarial", f"method.steps={steps}", "longest=2")["made"]
        assert made == alone
        assert ends(tmp_path / root) == []
        assert not list((tmp_path / root).rglob("*.gone"))
    assert moment > 10


def test_the_scores_are_the_same_and_the_cost_is_that_of_the_whole_training(tiny: Any, tmp_path: Path) -> None:
    alone = tiny("method.steps=4", root=tmp_path / "alone")
    first = tiny("method.steps=2", "longest=4")
    (end,) = tmp_path.glob("store/trails/*/end.json")
    about = read_json(end)
    assert about == {"steps": 2, "seconds": first["diagnostics"]["cost/seconds"]}
    write_json(end, {**about, "seconds": 1000.0})
    on = tiny("method.steps=4", "longest=4")
    assert on["run"] == alone["run"]
    assert on["scores"] == alone["scores"]
    assert 1000 < on["diagnostics"]["cost/seconds"] < 1000 + 2 * alone["diagnostics"]["cost/seconds"] + 5
    assert "2 of the 4 steps of erasing made before, by a shorter training" in advanchor.table(on)
    assert "made before" not in advanchor.table(alone)


def test_without_the_cost_of_the_first_part_there_is_none_of_the_whole(learn: Learn, tmp_path: Path) -> None:
    learn("out", "anchor=superclass", "method.steps=2", "longest=4")
    (end,) = (tmp_path / "out").glob("store/trails/*/end.json")
    write_json(end, {"steps": 2, "seconds": None})
    assert "cost/seconds" not in learn("out", "anchor=superclass", "method.steps=4")


@pytest.mark.parametrize("name", ["checkpoint.pt", "train.jsonl", "end.json", "fisher.safetensors", "name"])
def test_a_damaged_end_is_named_with_the_folder_whose_deletion_mends_it(
    name: str, learn: Learn, tmp_path: Path
) -> None:
    learn("on", "method=sa", "anchor=superclass", "method.steps=2", "longest=4")
    (file,) = (tmp_path / "on").glob(f"store/trails/*/{name}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(BadInput, match=f"damaged: delete the folder {file.parent} and run"):
            learn("on", "method=sa", "anchor=superclass", "method.steps=4")
    shutil.rmtree(file.parent)
    on, alone = (learn(root, "method=sa", "anchor=superclass", "method.steps=4") for root in ("on", "alone"))
    assert on["made"] == alone["made"]


def one_of(what: tuple[str, int]) -> dict[str, Any]:
    torch.set_num_threads(1)
    result = advanchor.erase(*TINY, f"root={what[0]}", "metric=[erasure]", f"method.steps={what[1]}", "longest=4")
    return {"scores": result["scores"], "run": result["run"]}


@pytest.mark.slow
def test_processes_that_train_budgets_at_the_same_time_all_end_with_the_right_numbers(tmp_path: Path) -> None:
    asked = [(str(tmp_path / "both"), steps) for steps in (1, 4, 2, 3)]
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as pool:
        found = list(pool.map(one_of, asked))
        alone = list(pool.map(one_of, [(str(tmp_path / str(steps)), steps) for _, steps in asked]))
    assert found == alone
    assert ends(tmp_path / "both") == []


def test_a_sweep_trains_the_shortest_first_whatever_order_is_written_and_leaves_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, "metric=[erasure]", "anchor=superclass", "-m"]
    table = ["table.rows=[method.steps]", "table.cells=[erasure/hit,cost/steps_shared]"]
    with caplog.at_level(logging.INFO, "advanchor"):
        cli.command([*words, f"root={tmp_path / 'one'}", "method.steps=4,1,2", "seed=0,1", *table])
    said = [line.partition(" of 6: ")[2].partition(": ")[0] for line in caplog.messages if " of 6: " in line]
    assert said == [f"method.steps={steps} seed={seed}" for seed in (0, 1) for steps in (1, 2, 4)]
    assert ends(tmp_path / "one") == []
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert [row.split("|")[1].strip() for row in rows] == ["4", "1", "2"]  # as it is written
    shared = {}
    for file in (tmp_path / "one").glob("*/result.json"):
        result = json.loads(file.read_text())
        shared[result["config"]["method"]["steps"]] = result["diagnostics"].get("cost/steps_shared")
        steps, seed = (
            f"{k}={v}"
            for k, v in (("method.steps", result["config"]["method"]["steps"]), ("seed", result["config"]["seed"]))
        )
        again = advanchor.erase(*words[:-1], f"root={tmp_path / 'alone'}", steps, seed)
        assert (again["run"], again["scores"]) == (result["run"], result["scores"])
    assert shared == {1: None, 2: 1, 4: 2}
    caplog.clear()
    with caplog.at_level(logging.INFO, "advanchor"):
        cli.command([*words, f"root={tmp_path / 'one'}", "method.steps=4,1,2", "seed=0,1"])
    assert caplog.text.count("nothing to compute") == 6


def test_runs_that_differ_from_no_other_in_steps_alone_stay_where_they_are() -> None:
    def order(*runs: str, done: int = 0) -> tuple[list[int], list[Any]]:
        configs = [compose(run.split()) for run in runs]
        found = ascending(configs, [i < done for i in range(len(runs))])
        return found, [cfg.longest for cfg in configs]

    assert order("seed=1 method.steps=9", "seed=0 method.steps=3") == ([0, 1], [None, None])
    steps = ("method.steps=9", "seed=1", "method.steps=3", "method=uce anchor=empty", "method.steps=5")
    assert order(*steps) == ([2, 4, 0, 1, 3], [9, None, 9, None, 9])
    assert order(*steps, done=1)[1] == [5, None, 5, None, 5]  # for the longest that is yet to come
    assert order(*(f"{run} longest=0" for run in steps))[1] == [0] * 5
    assert order("sample.steps=3", "sample.steps=4", "seed=1 sample.steps=3") == ([0, 1, 2], [None] * 3)


def test_a_launchers_workers_are_told_what_is_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(launch, "hydra_main", asked.append)
    for more in ([], ["longest=0"]):
        words = [*TINY, "method.steps=30,4,15", "hydra/launcher=workers", f"root={tmp_path}", *more]
        cli.command(["-m", *words])
    assert [w for w in asked[0] if w.startswith(("method.steps", "longest"))] == ["method.steps=4,15,30", "longest=30"]
    assert [w for w in asked[1] if w.startswith("longest")] == ["longest=0"]
