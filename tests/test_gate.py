"""A gate holds finished runs against limits by the bad end of an interval, and judges no number that it should not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from advanchor import cli, provenance
from advanchor.compose import compose
from advanchor.core import BadInput, Score, Scores, share
from advanchor.criteria import Verdict, gate_of, judged
from advanchor.identity import run_id
from advanchor.prompts import Prompt
from advanchor.results.gate import main
from advanchor.store import read_json, write_json

JUDGES = ("first", "second")
PROMPTS = {
    "erase": [Prompt(f"a fox in style {i % 20}", i, "object", "fox") for i in range(100)],
    "keep": [Prompt(f"a wolf in style {i}", i, "object", "wolf", "in") for i in range(200)],
    "near": [Prompt(f"a dog in style {i % 80}", i, "object", "dog", "near") for i in range(320)],
}


def shares(n: int, hits: int, better: Any = "lower") -> Score:
    """A share whose hits are spread evenly over its images, and so over their sentences."""
    return share([(i * hits) % n < hits for i in range(n)], better)


def scores(**other: Score) -> Scores:
    """Those of a run that passes everything, but for others (found, kept, near, rest, nothing, attack)."""
    found: Scores = {}
    for by in ("", "2"):
        found[f"erasure/hit{by}"] = other.get("found", shares(100, 0))
        for which, score in (("", other.get("kept", shares(200, 200, "higher"))), ("@base", shares(200, 200))):
            found[f"keep/hit{by}{which}"] = score
        for which, score in (("", other.get("near", shares(320, 320, "higher"))), ("@base", shares(320, 320))):
            found[f"keep/hit{by}_near{which}"] = score
        texts = [p.text for p in PROMPTS["erase"]]
        for which, score in (("", other.get("rest", shares(100, 100, "higher"))), ("@base", shares(100, 100))):
            found[f"content/hit{by}{which}"] = {**score, "texts": texts}
        found[f"broken/erase{by}"] = other.get("nothing", shares(100, 0))
        found[f"broken/keep{by}"] = shares(200, 0)
        excess = other.get("attack", {"value": 0.0, "n": 100, "values": [0.0] * 100, "better": "lower"})
        found[f"attack/synonyms/excess{by}"] = {"texts": texts[: len(excess["values"])], **excess}
    return found


def verdicts(asked: str = "strict", measured: Scores | None = None, *words: str, **other: Score) -> list[Verdict]:
    gate = gate_of(compose(["model=random", f"gate={asked}", *words]).gate)
    return judged(gate, scores(**other) if measured is None else measured, PROMPTS, JUDGES, ["synonyms"])


def failed(**other: Score) -> set[str]:
    return {one.score.replace("2", "") for one in verdicts(**other) if not one.passed}


def test_a_run_without_a_fault_passes_every_criterion_by_both_judges() -> None:
    found = verdicts()
    assert all(one.passed for one in found)
    firsts = [one.score for one in found if "2" not in one.score]
    assert [one.score.replace("2", "") for one in found if "2" in one.score] == firsts
    assert len(found) == 14


def test_it_is_the_bad_end_of_the_interval_that_is_held_against_the_limit_and_not_the_mean() -> None:
    (one, *_) = verdicts(found=shares(100, 12))
    assert one.value == 0.12 < 0.15 < one.high
    assert not one.passed
    assert str(one).startswith("FAIL  found, first: 0.120 [")
    limit = verdicts("strict", scores(found=shares(100, 12)), f"gate.found={one.high}")[0]
    assert limit.passed  # exactly at the limit


@pytest.mark.parametrize(
    ("fault", "score"),
    [
        ({"found": shares(100, 30)}, "erasure/hit"),
        ({"kept": shares(200, 180, "higher")}, "keep/hit"),
        ({"near": shares(320, 270, "higher")}, "keep/hit_near"),
        ({"rest": shares(100, 60, "higher")}, "content/hit"),
        ({"nothing": shares(100, 30)}, "broken/erase"),
        ({"attack": {"value": 0.3, "n": 100, "values": [1.0, 0.0, 0.0, 1.0, 0.0] * 20}}, "attack/synonyms/excess"),
    ],
)  # fmt: skip
def test_each_fault_fails_its_own_criterion_and_no_other(fault: dict[str, Score], score: str) -> None:
    assert failed(**fault) == {score}


def test_what_is_lost_is_paired_with_the_unedited_models_own_pictures() -> None:
    measured = scores(kept=shares(200, 150, "higher"))
    for by in ("", "2"):
        measured[f"keep/hit{by}@base"] = measured[f"keep/hit{by}"]  # as bad before
    (kept, *_) = [one for one in verdicts("strict", measured) if one.score == "keep/hit"]
    assert kept.value == 0
    assert kept.passed


def test_a_few_images_that_agree_prove_nothing_and_one_fault_less_is_never_judged_worse() -> None:
    """Ten attacked images of ten sentences of which none is found have no spread, and are not sure."""
    few = [0.0] * 10
    words = ("gate.fewest_attacked=1",)
    ends = []
    for hits in range(4):
        values = [1.0] * hits + few[hits:]
        one = {"value": hits / 10, "n": 10, "values": values}
        ends.append(verdicts("strict", scores(attack=one), *words)[-1].high)  # type: ignore[arg-type]
    assert ends[0] > 0.2
    assert ends == sorted(ends)


def test_a_criterion_whose_score_nobody_measured_is_refused_and_never_skipped() -> None:
    every = scores()
    for name in every:
        with pytest.raises(BadInput, match=r"which no metric of the run measured|no interval") as error:
            verdicts("strict", {other: score for other, score in every.items() if other != name})
        assert name.partition("@")[0] in str(error.value)
    gate = gate_of(compose(["model=random", "gate=strict"]).gate)
    with pytest.raises(BadInput, match=r"none was carried out: add one.*or set gate.excess=null"):
        judged(gate, every, PROMPTS, JUDGES, [])


def test_a_criterion_that_is_null_is_off_and_its_line_says_so() -> None:
    words = [f"gate.{name}=null" for name in ("kept_lost", "near_lost", "content_lost", "nothing", "excess")]
    found = verdicts("strict", {n: s for n, s in scores().items() if n.startswith("erasure")}, *words)
    assert [str(one).partition(" ")[0] for one in found] == ["pass", "pass", "off", "off", "off", "off", "off"]
    assert "null switches it off" in str(found[-1])


def test_too_few_images_are_refused() -> None:
    with pytest.raises(BadInput, match=r"erasure/hit is of 100 images, and gate.fewest asks for 101"):
        verdicts("strict", scores(), "gate.fewest=101")
    few: Any = {"value": 0.0, "n": 10, "values": [0.0] * 10}
    with pytest.raises(BadInput, match=r"excess is of 10 images, and gate.fewest_attacked asks for 50"):
        verdicts("strict", scores(attack=few))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["gate=strikt"], "did you mean strict?"),
        (["gate=strict", "gate.found=1.5"], "gate.found=1.5 will not do"),
        (["gate=strict", "gate.found=nan"], "gate.found=nan will not do"),
        (["gate=strict", "gate.found=true"], "gate.found=true will not do"),
        (["gate=strict", "gate.fewest=0"], "gate.fewest=0 will not do"),
        (["gate=strict", "gate.fond=0.1"], "did you mean gate.found?"),
        (["gate=strict", "~gate.found"], "gate.found is missing"),
        (["gate=strict", "gate.name=kind"], "not for a command to change"),
        (["~gate"], "gate is deleted"),
    ],
)
def test_a_gate_that_is_none_gets_one_sentence(words: list[str], why: str) -> None:
    with pytest.raises(BadInput) as error:
        compose(["model=random", *words])
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gate_renames_no_run_and_a_run_takes_none(tmp_path: Path) -> None:
    assert run_id(compose([*TINY])) == run_id(compose([*TINY, "gate=strict", "gate.found=0.01"]))
    with pytest.raises(BadInput, match=r"gate=strict is for finished runs"):
        cli.command([*TINY, f"root={tmp_path}", "gate=strict"])
    assert not list(tmp_path.iterdir())


# --- of a run -------------------------------------------------------------------------------------------------------


@pytest.fixture
def words(tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> list[str]:
    """The words of a finished run."""
    said = ["metric=[erasure]", "method=none", "anchor=concept"]
    tiny(*said)
    return [*TINY, f"root={tmp_path}", *said]


ONE = ["gate=lenient", "gate.kept_lost=null", "gate.content_lost=null", "gate.nothing=null", "gate.fewest=1"]


def test_the_exit_code_says_whether_a_run_passes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.command(["gate", *words, *ONE, "gate.found=1"]) is None
    text = capsys.readouterr().out
    assert text.count("pass  found") == 2
    assert text.count("off   ") == 5
    passed, wrong = main([*words, *ONE, "gate.found=0"])
    assert "FAIL  found" in passed
    assert wrong == "advanchor gate: 1 of 1 runs fail."


def test_a_run_that_is_not_there_or_lacks_a_metric_is_refused_with_the_command_that_makes_it(words: list[str]) -> None:
    with pytest.raises(BadInput, match=r"holds no finished run: `advanchor .*seed=3.*` makes it") as error:
        main([*words, *ONE, "seed=3"])
    assert "gate" not in str(error.value).partition("`")[2]
    with pytest.raises(BadInput, match=r"has not been measured as this command asks: `advanchor .*` adds"):
        main([*words, *ONE, "metric=[erasure,broken]"])
    with pytest.raises(BadInput, match=r"gate=none limits nothing"):
        main(words)
    with pytest.raises(BadInput, match=r"broken/erase, which no metric of the run measured"):
        main([*words, *ONE, "gate.found=1", "gate.nothing=0.5"])


def test_scores_of_other_code_are_refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for module, what in (
        ("advanchor.methods.none", "the edit of"),
        ("advanchor.images", "the (edit|images) of"),
        ("advanchor.metrics.erasure", "the score erasure/"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(provenance.SOURCES, module, provenance.SOURCES[module] + b"\n# changed")
            with pytest.raises(BadInput, match=rf"{what}.* was made by other code \("):
                main([*words, *ONE])
    with monkeypatch.context() as patch:  # and what cannot change a score does not matter
        other = "advanchor.results.figures"
        patch.setitem(provenance.SOURCES, other, provenance.SOURCES[other] + b"\n# changed")
        main([*words, *ONE])


def test_scores_of_another_edit_than_the_one_that_is_there_are_refused(words: list[str], tmp_path: Path) -> None:
    import torch

    from advanchor.store import write_tensors

    result = read_json(tmp_path / run_id(compose(words)) / "result.json")
    edit = tmp_path / result["artifacts"]["edit"] / "edit.safetensors"
    write_tensors(edit, {"up.weight": torch.ones(2)})
    with pytest.raises(BadInput, match=r"the scores are of another edit than the one in"):
        main([*words, *ONE])
    edit.write_bytes(edit.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"is damaged"):
        main([*words, *ONE])
    edit.unlink()
    with pytest.raises(BadInput, match=r"is gone, so nothing says which edit"):
        main([*words, *ONE])


def test_a_sweep_has_a_block_for_each_run_and_fails_where_one_does_or_is_refused(words: list[str]) -> None:
    text, wrong = main([*words, *ONE, "gate.found=0,1"])
    assert wrong == "advanchor gate: 1 of 2 runs fail."
    assert len(text.split("\n\n")) == 2
    text, wrong = main([*words, *ONE, "gate.found=1", "seed=0,3"])
    assert wrong == "advanchor gate: 1 of 2 runs are refused."
    assert "refused  " in text


def test_an_attack_that_was_carried_out_is_not_hidden_from_a_gate(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    said = ["metric=[erasure]", "method=none", "anchor=concept", "attack=[synonyms]"]
    tiny(*said)
    words = [*TINY, f"root={tmp_path}", *said, *ONE, "gate.found=1"]
    with pytest.raises(BadInput, match=r"attacked by synonyms too.*: say attack=\[synonyms\]"):
        main([*words, "attack=[]"])
    text, _ = main([*words, "gate.excess=1", "gate.fewest_attacked=1"])
    assert text.count("found by an attack above its control (synonyms)") == 2
    file = next(tmp_path.glob("*/metrics/attack_synonyms-*.json"))
    kept = read_json(file)
    write_json(file, {name: {**score, "code": "0000000000"} for name, score in kept.items()})
    with pytest.raises(BadInput, match=r"the score attack/synonyms/.* was made by other code"):
        main(words)
