"""stage=anchor tries an anchor and touches no weight; whether it was run changes no number of the erasure after it."""

import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from test_every_method import AT_INFERENCE, METHODS

import advanchor
from advanchor import cli, stages
from advanchor.anchors.search import Search
from advanchor.build import build
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.erasing import erased
from advanchor.finding import found
from advanchor.identity import run_id
from advanchor.models.latent_diffusion import LatentDiffusion
from advanchor.run import edit_of
from advanchor.store import read_json
from advanchor.training import loop
from advanchor.training.pools import Pool

CLASSES = {compose([f"method={m}", "anchor=published"]).method._target_: m for m in reversed(METHODS)}
LEARN = [m for m in CLASSES.values() if m not in (*AT_INFERENCE, "fmn")]  # the others have no place for an anchor
SCHEDULES = [(m, "alternating") for m in (*LEARN, "spm_faithful")] + [
    (m, "sequential") for m in ("esd", "mace", "salun")
]
SMALL = [
    *("model=random", "tracker=none", "concept=emoji/butterfly", "judge=emoji", "sample.erase=1", "sample.keep=1"),
    *("sample.near=1", "sample.steps=1", "metric=[erasure,anchor]", "concept.evaluate=['a {}']"),
    "concept.evaluate_cross=[]",
]
SETTLED = ["anchor=adversarial", "anchor.schedule=sequential"]
Made = Callable[..., dict[str, Any]]


@pytest.fixture
def made(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """The edit of a config on the random model, or its anchors alone: all that is kept of it but what it cost."""
    monkeypatch.setattr(model, "shelf", tmp_path / "latents")

    def call(root: str, *overrides: str, alone: bool = False) -> dict[str, Any]:
        cfg = compose(["model=random", "concept=emoji/butterfly", f"root={tmp_path / root}", *overrides])
        place, concept = tmp_path / root / "store" / ("anchors" if alone else "edits"), build(cfg.concept, "concept")
        logged: list[Any] = []

        def track(i: int, **scalars: float) -> None:
            logged.append((i, scalars))

        (found if alone else erased)(cfg, model, concept, place, edit_of(cfg), track)
        folder = place / edit_of(cfg)
        about = read_json(folder / ("anchor.json" if alone else "edit.json"))
        about["diagnostics"] = {k: v for k, v in about["diagnostics"].items() if not k.startswith("cost/")}
        files = {f.name: f.read_bytes() for f in folder.iterdir() if f.suffix in (".safetensors", ".jsonl")}
        return {**files, "about": about, "logged": logged, "names": {f.name for f in folder.iterdir()}}

    return call


# A search ahead of the weights, in turns with them, and in a pool that the training draws; the others are marked slow.
USUAL = [("ac", "alternating"), ("esd", "sequential"), ("esd", "alternating"), ("uce", "alternating")]


@pytest.mark.parametrize(
    ("method", "schedule"),
    [pytest.param(*one, marks=() if one in USUAL else pytest.mark.slow) for one in SCHEDULES],
)
def test_anchors_that_are_found_alone_are_those_of_the_erasure_and_leave_it_as_it_is(
    method: str, schedule: str, made: Made
) -> None:
    words = [f"method={method}", "anchor=adversarial", f"anchor.schedule={schedule}"]
    tried, alone, after = made("on", *words, alone=True), made("alone", *words), made("on", *words)
    assert after == alone
    moves = compose(words).method.get("latents") == "training"  # what the weights draw is looked at
    if moves and schedule == "alternating":
        assert tried["about"]["then"] == "again"
        return
    assert tried["anchor.safetensors"] == alone["anchor.safetensors"]
    assert tried["about"]["diagnostics"] == alone["about"]["diagnostics"]
    assert tried["about"]["code"] == alone["about"]["code"]


@pytest.mark.parametrize(
    "anchor", ["superclass", "similarity", *(pytest.param(a, marks=pytest.mark.slow) for a in ("project", "learned"))]
)
def test_with_any_anchor_on_two_concepts_the_erasure_is_the_same_whether_it_was_tried_or_not(
    anchor: str, made: Made
) -> None:
    words = ["method=ac", f"anchor={anchor}", "concept=emoji/fox_and_car"]
    tried, alone, after = made("on", *words, alone=True), made("alone", *words), made("on", *words)
    assert after == alone
    assert tried["anchor.safetensors"] == alone["anchor.safetensors"]
    assert tried["about"]["diagnostics"] == alone["about"]["diagnostics"]


@pytest.mark.parametrize("words", [SETTLED, ["anchor=similarity"], ["anchor=learned", "method=uce"]])
def test_what_was_found_is_not_searched_again(words: list[str], made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made("on", *words, alone=True)["about"]["then"] == "settled"

    def refuse(*args: Any) -> None:
        raise AssertionError("the anchor is searched again")

    monkeypatch.setattr(Search, "descend", refuse)
    made("on", *words)


def test_no_weight_moves_and_none_is_kept(made: Made, model: Any) -> None:
    before = {name: w.clone() for name, w in model.weights("full").items()}
    names = made("on", *SETTLED, alone=True)["names"]
    assert all(torch.equal(w, before[name]) for name, w in model.weights("full").items())
    assert names == {"anchor.safetensors", "anchor.json", "rehearsed.pt", "train.jsonl", "name", "SHA256SUMS"}
    assert made("on", "anchor=superclass", alone=True)["names"] == names - {"rehearsed.pt", "train.jsonl"}


@pytest.mark.parametrize("schedule", ["alternating", "sequential"])
def test_a_search_that_is_killed_at_any_checkpoint_ends_with_the_same_anchor(
    schedule: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["anchor=adversarial", f"anchor.schedule={schedule}", "method.steps=2"]
    whole = made("whole", *words, alone=True)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "WRITING", float("inf"))
    rename = os.replace
    for n in count(1):
        seen: list[Any] = []

        def kill(source: Any, target: Any, at: int = n, seen: list[Any] = seen, **kw: Any) -> None:
            if str(target).endswith((".pt", "anchor.json")):
                seen.append(target)
                if len(seen) == at:
                    raise KeyboardInterrupt
            rename(source, target, **kw)

        monkeypatch.setattr(os, "replace", kill)
        try:
            made(f"killed-{n}", *words, alone=True)
            break
        except KeyboardInterrupt:
            monkeypatch.setattr(os, "replace", rename)
        again = made(f"killed-{n}", *words, alone=True)
        assert again["anchor.safetensors"] == whole["anchor.safetensors"], n
        assert again["train.jsonl"] == whole["train.jsonl"], n
    assert n == {"alternating": 4, "sequential": 5}[schedule]  # a checkpoint a step, and what the erasure begins with
    monkeypatch.setattr(os, "replace", rename)
    assert made("killed-2", *words) == made("alone", *words)


def test_anchors_that_other_code_found_are_not_gone_on_from(made: Made, tmp_path: Path) -> None:
    made("on", *SETTLED, alone=True)
    (file,) = (tmp_path / "on/store/anchors").glob("*/anchor.json")
    about = read_json(file) | {"made_by": ["other", "cpu", torch.__version__]}
    advanchor.finding.write_json(file, about)
    (file.parent / "rehearsed.pt").write_text("of no use")
    assert made("on", *SETTLED) == made("alone", *SETTLED)


def test_a_damaged_one_is_refused_with_what_to_delete(made: Made, tmp_path: Path) -> None:
    made("on", *SETTLED, alone=True)
    (file,) = (tmp_path / "on/store/anchors").glob("*/rehearsed.pt")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BadInput, match=f"damaged: delete the folder {file.parent}"):
        made("on", *SETTLED)


def test_a_method_that_trains_in_its_own_loop_is_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from advanchor.methods.ac import AblatingConcepts

    monkeypatch.setattr(AblatingConcepts, "erase", lambda *args: {"w": torch.zeros(1)})
    with pytest.raises(BadInput, match="trains in a loop of its own"):
        made("on", *SETTLED, alone=True)


def test_stage_erase_is_in_no_name_and_stage_anchor_has_a_folder_of_its_own() -> None:
    assert run_id(compose(["model=random"])) == run_id(compose(["model=random", "stage=erase"]))
    assert run_id(compose(["model=random"])) != run_id(compose(["model=random", "stage=anchor"]))
    assert run_id(compose([])) == "af86147ad687"  # as the README has it


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over anchors that were tried, by the command."""
    folder = tmp_path_factory.mktemp("tried")
    assert cli.command([*SMALL, "anchor=superclass,similarity", "stage=anchor", f"root={folder}", "-m"]) is None
    return folder


def words_of(root: Path, *more: str) -> list[str]:
    return [*SMALL, "anchor=superclass", f"root={root}", *more]


def test_it_leaves_no_edit_and_no_picture_of_an_edited_model(root: Path) -> None:
    assert not (root / "store/edits").exists()
    folders = sorted(f.name.partition("-")[0] for f in (root / "store/samples").iterdir())
    assert folders == ["anchor", "anchor", "base"]


def test_a_second_run_computes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for cls, name in ((LatentDiffusion, "draw"), (Pool, "drawn"), (Search, "descend")):
        monkeypatch.setattr(cls, name, lambda *a, **k: pytest.fail("computed again"))
    assert cli.command(words_of(root, "stage=anchor")) is None
    said = capsys.readouterr().out
    for part in ("butterfly found ↓", "rest found ↑", "no picture ↓", "judges agree ↑", "cosine_span", "along"):
        assert part in said
    assert "no weight was trained, no edit made" in said


def test_a_whole_run_measures_the_same_under_the_same_words_and_draws_nothing_of_it_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = advanchor.erase(*words_of(root, "stage=anchor"))
    pictures = {f: f.stat().st_mtime_ns for f in (root / "store/samples").glob("anchor-*/*.png")}
    whole = advanchor.erase(*words_of(root))
    assert pictures == {f: f.stat().st_mtime_ns for f in (root / "store/samples").glob("anchor-*/*.png")}
    under = {name: score for name, score in whole["scores"].items() if name.startswith("anchor/")}
    assert {"anchor/hit", "anchor/hit2", "anchor/content", "anchor/broken", "anchor/agree"} <= under.keys()
    assert under == {name: score for name, score in tried["scores"].items() if "@" not in name}
    assert {f"{name}@base" for name in under} == {name for name in tried["scores"] if "@" in name}
    close = {name: value for name, value in whole["diagnostics"].items() if name.startswith("anchor/")}
    assert close == {name: value for name, value in tried["diagnostics"].items() if name.startswith("anchor/")}
    assert tried["run"] != whole["run"]


def test_a_sweeps_table_lists_the_anchors(root: Path, capsys: Any) -> None:
    words = [*SMALL, "anchor=superclass,similarity", "stage=anchor", f"root={root}"]
    assert cli.command(["table", *words]) is None
    said = capsys.readouterr().out
    assert "butterfly anchor/hit ↓" in said
    assert "butterfly anchor/cosine_span" in said
    assert "| ac | superclass |" in said.replace("  ", " ").replace("  ", " ")
    assert "2 of 2 runs" in said
    assert "found by" in said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["gate", "gate=strict"], "advanchor gate is about erased models"),
        (["export", "--to=nowhere"], "advanchor export is about erased models"),
        (["gallery", "--to=nowhere.html"], "advanchor gallery is about erased models"),
        (["plot", "--to=nowhere"], "advanchor plot is about erased models"),
        (["front"], "advanchor front is about erased models"),
        (["tune", "seed=choice(0,1)"], r"say tune\.minimize=\[anchor/hit\] tune\.maximize=\[anchor/content\]"),
        (["table", "stage=erase,anchor"], "differ in stage"),
        (["stage=both"], "stage=both will not do: it must be erase"),
        (["stage=null"], "stage=null will not do"),
        (["metric=[erasure]"], r"say metric=\[anchor\]"),
        (["attack=[synonyms]"], "is for an erased model, and stage=anchor erases nothing"),
    ],
)
def test_what_needs_an_erasure_is_refused_in_one_sentence(command: list[str], said: str, root: Path) -> None:
    stage = [] if any(word.startswith("stage=") for word in command) else ["stage=anchor"]
    given = [w for w in words_of(root) if w.partition("=")[0] not in {c.partition("=")[0] for c in command}]
    verb = [w for w in command[:1] if "=" not in w]
    with pytest.raises(BadInput, match=said):
        cli.command([*verb, *given, *stage, *command[len(verb) :]])


def test_a_result_of_it_is_no_erased_model(root: Path) -> None:
    with pytest.raises(BadInput, match="load\\(\\) needs an erased model"):
        advanchor.load(advanchor.erase(*words_of(root, "stage=anchor")))


def test_the_doctor_says_what_it_would_do(tmp_path: Path, capsys: Any) -> None:
    assert cli.command(["doctor", *words_of(tmp_path, "stage=anchor")]) is None
    assert "and touch no weight" in capsys.readouterr().out


def test_a_result_can_be_read_without_torch_and_says_what_the_erasure_will_do(root: Path) -> None:
    results = [json.loads(f.read_text()) for f in root.glob("*/result.json")]
    said = {r["config"]["anchor"]["name"]: r["then"] for r in results if "then" in r}
    assert said == {"superclass": "fixed", "similarity": "settled"}
    assert "does not search again" in advanchor.table(next(r for r in results if r.get("then") == "settled"))
    assert stages.asked(compose(["model=random", "stage=anchor"]))[0][1] == "anchor"
