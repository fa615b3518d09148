"""A tracker shows what a run does and costs it nothing: no silence, no hold on the caller's own, no other's file."""

import json
import logging
import math
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from advanchor import cli
from advanchor.build import build
from advanchor.commands.tracked import grouped, named
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.identity import run_id
from advanchor.trackers.jsonl import JsonLines
from advanchor.trackers.wandb import MODES, UNREACHED, WandB


def wandb_tracker(**changes: Any) -> WandB:
    settings = {
        "_target_": "advanchor.trackers.wandb.WandB",
        "name": "wandb",
        "project": "p",
        "group": "g",
        "job_type": "j",
        "wait": 1,
        **changes,
    }
    made: WandB = build(OmegaConf.create(settings), "tracker")
    return made


@pytest.fixture
def logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A key, and a server that is not there."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv(UNREACHED, raising=False)
    yield
    os.environ.pop(UNREACHED, None)


# --- Weights & Biases -------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_asked_once_and_the_runs_are_logged_offline(
    logged_in: None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    start = time.monotonic()
    places = []
    for run in ("one", "two"):
        tracker = wandb_tracker()
        (tmp_path / run).mkdir()
        tracker.start(run, {"seed": 0}, tmp_path / run)
        tracker.log(0, **{"train/loss": math.nan, "anchor/norm": math.inf})
        places.append(tracker.finish({"score": {"value": math.nan}}, None, failed=False))
    assert time.monotonic() - start < 15
    assert [Path(place).parents[1] for place in places] == [tmp_path / "one", tmp_path / "two"]
    assert all(list(Path(place).glob("*.wandb")) for place in places)
    said = [r.getMessage() for r in caplog.records]
    assert sum("asking Weights & Biases (http://127.0.0.1:9), for at most 1 seconds" in line for line in said) == 1
    assert all(sum(f"`wandb sync {place}` uploads it later" in line for line in said) == 1 for place in places)


def test_a_server_that_takes_the_call_and_says_nothing_is_waited_for_no_longer_than_the_limit(
    logged_in: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert wandb_tracker(wait=0.3)._unreached()
        assert time.monotonic() - start < 3


def test_a_server_that_refuses_the_key_does_not_stop_the_run_from_being_logged_offline(
    logged_in: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    import wandb

    asked: list[dict[str, Any]] = []

    def init(**settings: Any) -> Any:
        asked.append(settings)
        if settings["mode"] == "online":
            raise wandb.Error("401: the key is wrong")
        ours = {"offline": True, "dir": str(tmp_path / "x/files"), "define_metric": lambda *a, **k: None}
        return type("Run", (), ours)()

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr(WandB, "_unreached", lambda self: "")
    wandb_tracker().start("one", {}, tmp_path)
    assert [(s["mode"], s["name"], s["reinit"]) for s in asked] == [
        ("online", "one", "create_new"),
        ("offline", "one", "create_new"),
    ]
    assert asked[0]["id"] == "one" != asked[1]["id"]  # W&B's process still holds the first


def test_a_run_of_the_callers_stays_open_and_ours_holds_nothing_of_it(tmp_path: Path) -> None:
    import wandb

    own = wandb.init(mode="offline", project="mine", dir=str(tmp_path), settings=wandb.Settings(silent=True))
    try:
        own.log({"mine": 1})
        for _ in range(2):  # the second, of the same run, as a further metric asks for
            tracker = wandb_tracker()
            tracker.start("ours", {"seed": 0}, tmp_path)
            tracker.log(0, **{"train/loss": 0.5})
            assert tracker.finish({"score": {"value": 1.0}}, None, failed=False) != str(Path(own.dir).parent)
            assert wandb.run is own
        own.log({"mine": 2})
        assert own.summary["mine"] == 2
        assert {"train/loss", "train_step", "score"}.isdisjoint(own.summary.keys())
        assert "seed" not in own.config
    finally:
        own.finish()
    assert len(list(tmp_path.rglob("*.wandb"))) >= 2


@pytest.mark.parametrize(("by", "value"), [("WANDB_MODE", "disabled"), ("tracker.mode", "disabled")])
def test_a_tracker_that_is_switched_off_says_by_what(
    by: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("wandb.init", lambda **_: pytest.fail("asked"))
    if by == "WANDB_MODE":
        monkeypatch.setenv(by, value)
    tracker = wandb_tracker(**({"mode": value} if by == "tracker.mode" else {}))
    tracker.start("one", {}, tmp_path)
    tracker.log(0, loss=1.0)
    assert tracker.finish({}, None, failed=False) == f"not logged ({by}={value})"
    assert not list(tmp_path.iterdir())


def test_a_mode_that_is_none_gets_a_sentence_before_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    with pytest.raises(
        BadInput,
        match=r"tracker: WANDB_MODE=nonsense in the environment is no mode .*: set it to online, offline or disabled",
    ):
        compose(["model=random", "tracker=wandb"])
    for mode in MODES:
        monkeypatch.setenv("WANDB_MODE", mode)
        assert wandb_tracker()._chosen() == (MODES[mode], f"WANDB_MODE={mode}")


@pytest.mark.parametrize("project", ["", " ", "a/b", "a\\b", "a#b", "a?b", "100%", "a:b", "x" * 129])
def test_a_project_that_wandb_refuses_is_refused_before_anything(project: str) -> None:
    with pytest.raises(BadInput, match=r"tracker: project '.*' must be a name of at most 128 characters"):
        wandb_tracker(project=project)


def test_a_group_of_any_words_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for run, group in enumerate(["<script>/..\\:#?%" * 20, ""]):
        tracker = wandb_tracker(group=group, project="a project & more")
        tracker.start(f"run{run}", {"concept": {"name": "AC/DC"}}, tmp_path)
        assert Path(tracker.finish({}, None, failed=False)).is_relative_to(tmp_path)
    assert not [r for r in caplog.records if r.name == "advanchor.trackers.wandb"]


# --- JSON lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    ["../../escape.jsonl", "/tmp/x.jsonl", "", ".", "..", ".jsonl", "stages.json", "result.json", "error.txt",
     "grid.png", ".hydra", ".lock", "metrics/x.jsonl", "a\\b.jsonl", "a b.jsonl",
     "x.jsonl\n", "-x.jsonl", "x" * 200 + ".jsonl", "wandb", "x.jsonl/"],
)  # fmt: skip
def test_a_file_of_the_tracker_is_a_plain_name_of_its_own(file: str) -> None:
    with pytest.raises(BadInput, match=r"tracker: file '.*' must be a plain name that ends in \.jsonl"):
        build(
            OmegaConf.create({"_target_": "advanchor.trackers.jsonl.JsonLines", "name": "jsonl", "file": file}),
            "tracker",
        )


@pytest.mark.parametrize("file", ["progress.jsonl", "my-run_2.v1.jsonl", "größe.jsonl"])
def test_json_lines_are_json_whatever_is_logged(file: str, tmp_path: Path) -> None:
    tracker = JsonLines(name="jsonl", file=file)
    tracker.start("one", {"x": [1, math.inf]}, tmp_path)
    tracker.log(0, **{"train/loss": math.nan, "anchor/norm": 0.5})
    assert tracker.finish({"s": {"value": -math.inf}}, None, failed=True) == str(tmp_path / file)

    def never(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    events = [json.loads(line, parse_constant=never) for line in (tmp_path / file).read_text().splitlines()]
    assert [e["event"] for e in events] == ["start", "step", "finish"]
    assert events[1] == {"event": "step", "step": 0, "train/loss": None, "anchor/norm": 0.5}


def test_a_folder_that_cannot_be_written_costs_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = JsonLines(name="jsonl")
    tracker.start("one", {}, tmp_path / "gone")
    tracker.log(0, loss=1.0)
    assert tracker.finish({}, None, failed=False) == "not logged"
    assert len(caplog.records) == 1
    assert "the run goes on without it" in caplog.text


# --- a sweep ------------------------------------------------------------------------------------------------------

SMALL = ["model=random", "tracker=wandb", "tracker.page=false", "sample.erase=1", "sample.keep=1", "sample.near=1"]
SMALL += ["sample.steps=1", "metric=[erasure]", "method=none", "anchor=concept", "concept.evaluate=['a {}']"]
SMALL += ["concept.evaluate_cross=[]"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What W&B is told, in the place of its client: each run's settings, its logs, and `page` where one was made."""
    found: list[Any] = []

    class Run:
        offline, dir, summary = True, "x/files", dict[str, Any]()

        def __init__(self, **settings: Any) -> None:
            self.id = settings["id"]
            self.logged: dict[str, Any] = {}
            found.append((settings, self.logged))

        def define_metric(self, *_: Any, **__: Any) -> None: ...

        def log(self, what: dict[str, Any]) -> None:
            self.logged |= what

        def finish(self, exit_code: int) -> None: ...

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("wandb.init", lambda **settings: Run(**settings))
    monkeypatch.setattr("wandb.Table", lambda columns, data: (columns, data))
    monkeypatch.setattr("wandb.Image", lambda file: Path(file).name)
    monkeypatch.setattr("advanchor.results.figures.painted", lambda _, folder: (folder / "trade-off.png").touch() or [])
    return found


def test_the_runs_of_a_sweep_share_a_group_and_its_table_is_logged_in_it_once(told: list[Any], tmp_path: Path) -> None:
    words = ["-m", *SMALL, "seed=0,1", f"root={tmp_path}"]
    assert cli.command(words) is None
    (group,) = {settings["group"] for settings, _ in told}
    assert re.fullmatch(r"sweep-[0-9a-f]{12}", group)
    assert [settings["job_type"] for settings, _ in told] == ["none", "none", "sweep"]
    settings, logged = told[-1]
    assert settings["id"] == group
    columns, data = logged["table"]
    assert {line[columns.index("score")] for line in data} == {"erasure/hit", "keep/hit"}
    assert all(line[columns.index("seeds")] == 2 for line in data)
    assert logged["figures/trade-off"] == "trade-off.png"
    assert cli.command(words) is None
    assert cli.command([*words[:-2], "seed=1,0", words[-1]]) is None  # the same sweep in other words
    assert len(told) == 3


def test_a_sweep_that_is_not_finished_is_not_logged_and_one_with_another_table_goes_to_the_same_run(
    told: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*SMALL, f"root={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr("advanchor.trackers.wandb.WandB.start", lambda *_: 1 / 0)
        assert cli.command(["-m", *words, "seed=0,1"]) is not None
    assert cli.command([*words, "seed=0"]) is None
    assert told[-1][0]["group"] == "base"  # a run alone
    assert cli.command(["-m", *words, "seed=0,1"]) is None
    assert cli.command(["-m", *words, "seed=0,1", "table.cells=[erasure/hit]"]) is None
    sweeps = [settings["id"] for settings, _ in told if settings["job_type"] == "sweep"]
    assert len(sweeps) == 2
    assert len({*sweeps}) == 1


def test_a_group_that_the_command_or_an_experiment_names_stays_and_none_renames_a_run() -> None:
    def sweep(*words: str) -> list[Any]:
        return [compose([*SMALL, *words, f"seed={seed}"]) for seed in (0, 1)]

    for words, group in ((["tracker.group=mine"], "mine"), (["study=trial"], "trial")):
        configs = sweep(*words)
        assert grouped(configs) == ""
        assert {cfg.tracker.group for cfg in configs} == {group}
    configs, names = sweep(), [run_id(cfg) for cfg in sweep()]
    assert grouped(configs) == configs[0].tracker.group == named(configs[::-1])
    assert [run_id(cfg) for cfg in configs] == names
    assert grouped(sweep()[:1]) == ""
    assert grouped([compose([*SMALL[:1], "tracker=none", f"seed={seed}"]) for seed in (0, 1)]) == ""


def test_a_table_that_is_logged_offline_lies_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    tracker = wandb_tracker()
    (tmp_path / "out").mkdir()
    tracker.start("sweep-x", {}, tmp_path / "out")
    tracker.sweep(lambda: ([{"score": "a", "low": None}, {"score": "b", "low": 0.5}], []))
    where = Path(tracker.finish({}, None, failed=False))
    assert where.is_relative_to(tmp_path / "out")
    assert list(where.rglob("table_*.table.json"))
    assert not list((tmp_path / "home").rglob("staging/*"))
    assert "WANDB_DATA_DIR" not in os.environ


def test_the_page_of_pictures_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert compose(["model=random", "tracker=wandb"]).tracker.page is True
    for page in (True, False):
        made: list[str] = []
        (tmp_path / str(page)).mkdir()
        tracker = wandb_tracker(page=page)
        tracker.start(f"run-{page}", {}, tmp_path / str(page))
        tracker.show(lambda made=made: made.append("page") or "<html>")
        tracker.finish({}, None, failed=False)
        assert made == ["page"] * page
