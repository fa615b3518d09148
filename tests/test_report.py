"""A report is what the runs say: every number under the schema, every setting, a no where it is no, and no folder of
the machine.
"""

import csv
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import TINY, script

from advanchor import cli
from advanchor.commands import report
from advanchor.commands.folder import new_folder
from advanchor.commands.report import main
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.identity import run_id
from advanchor.results.collection import anywhere
from advanchor.results.sweep import read
from advanchor.store import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((ROOT / "docs/schema/result.json").read_text())
CHECK = jsonschema.Draft202012Validator(SCHEMA)
NAMED = "a_b & 100 % <script>"
SWEEP = ["metric=[erasure]", "anchor=superclass,empty", "seed=0,1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two rows and two seeds, finished."""
    place = tmp_path_factory.mktemp("a root")
    assert cli.command(["-m", *TINY, *SWEEP, f"root={place}"]) is None
    return place


@pytest.fixture(scope="module")
def whole(root: Path) -> Path:
    """Its report."""
    main([*TINY, *SWEEP, f"root={root}", f"--to={root}/paper"])
    return root / "paper"


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds."""
    monkeypatch.setattr(report, "painted", lambda *_: "not here")


def lines(file: Path) -> dict[str, tuple[str, str]]:
    """What a checklist says of each line."""
    cells = [line.strip("| ").split(" | ") for line in file.read_text().splitlines() if line.startswith("| ")]
    return {line[0]: (line[1], line[2]) for line in cells if len(line) == 3}


# --- the folder ---------------------------------------------------------------------------------------------------


def test_a_report_has_every_part_and_the_sums_of_each(whole: Path) -> None:
    files = {str(file.relative_to(whole)) for file in whole.rglob("*") if file.is_file()}
    assert {"README.md", "checklist.md", "methods.md", "methods.tex", "prompts.csv", "results.json"} <= files
    assert {"tables/table.tex", "tables/table.md", "figures/trade-off.png", "figures/trade-off.pdf"} <= files
    for file in (whole / name for name in files if not name.endswith("SHA256SUMS")):
        sums = (file.parent / "SHA256SUMS").read_text()
        assert f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" in sums
    assert not [name for name in files if name.endswith(".part")]


@pytest.mark.usefixtures("unpainted")
def test_the_same_runs_make_the_same_report_and_nothing_is_written_over(root: Path, whole: Path) -> None:
    words = [*TINY, *SWEEP, f"root={root}"]
    main([*words, f"--to={root}/again"])
    for name in ("results.json", "prompts.csv", "methods.tex", "checklist.md", "tables/table.tex"):
        assert (root / "again" / name).read_bytes() == (whole / name).read_bytes()
    with pytest.raises(BadInput, match=r"again is there already, and nothing is written over"):
        main([*words, f"--to={root}/again"])


def test_a_folder_that_is_not_written_leaves_none_above_it(root: Path, tmp_path: Path) -> None:
    to = tmp_path / "a/b/paper"
    with pytest.raises(BadInput, match="none of the 2 runs of this sweep is in"):
        main([*TINY, "seed=77,78", f"root={root}", f"--to={to}"])
    assert list(tmp_path.iterdir()) == []
    with new_folder(to) as part:
        assert part.name == "paper"
    assert [*to.parent.iterdir()] == [to]


def test_a_report_that_fails_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> str:
        raise BadInput("no")

    monkeypatch.setattr(report, "drawn", fail)
    monkeypatch.setattr(report, "painted", lambda *_: "not here")
    with pytest.raises(BadInput, match="no"):
        main([*TINY, *SWEEP, f"root={root}", f"--to={root}/broken"])
    assert not [file for file in root.iterdir() if "broken" in file.name]


@pytest.mark.usefixtures("unpainted")
def test_a_missing_run_is_said_with_its_command_and_the_others_are_reported(root: Path) -> None:
    text = main([*TINY, *SWEEP, "seed=0,1,2", f"root={root}", f"--to={root}/some"])
    assert re.search(r"2 of 6 runs are missing; the first is made by `advanchor .*seed=2", text)
    assert "no figures: not here" in text
    told = lines(root / "some/checklist.md")
    assert told["Every run of the sweep is finished"] == ("no", "4 of 6 runs")
    assert "seed=2" in told["Missing run"][1]
    found = json.loads((root / "some/results.json").read_text())
    assert (len(found["runs"]), len(found["missing"]), found["wanted"]) == (4, 2, 6)
    with pytest.raises(BadInput, match=r"none of the 2 runs of this sweep is in .*: `advanchor -m .*` makes them"):
        main([*TINY, *SWEEP, "seed=7", f"root={root}", f"--to={root}/none"])


def test_without_matplotlib_the_report_says_so_in_one_sentence(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    text = main([*TINY, *SWEEP, f"root={root}", f"--to={tmp_path}/bare"])
    assert text.splitlines()[-1] == "no figures: plots need matplotlib: pip install 'advanchor[plot]'."
    assert "empty: plots need matplotlib" in (tmp_path / "bare/README.md").read_text()


def test_report_without_a_folder_or_with_another_flag_gets_one_sentence() -> None:
    with pytest.raises(BadInput, match=r"report writes a folder: say where, --to=<folder>"):
        main(["model=random"])
    with pytest.raises(BadInput, match=r"report does not know --as=x"):
        main(["--as=x"])


# --- what it says -------------------------------------------------------------------------------------------------


def test_the_numbers_of_the_table_are_those_of_the_sweep_each_with_its_interval(root: Path, whole: Path) -> None:
    sweep, _ = read([*TINY, *SWEEP, f"root={root}"])
    for file in ("table.tex", "table.md"):
        text = (whole / "tables" / file).read_text()
        for cell in (cell for cell in sweep.cells.values() if cell.runs):
            assert cell.bounds is not None
            assert f"{cell.mean:.3f} [{cell.bounds[0]:.3f}, {cell.bounds[1]:.3f}]" in text
        assert "2 seeds in each cell" in text
        assert "images: erasure/hit 2, keep/hit 12" in text
    text = (whole / "tables/table.tex").read_text()
    assert text.count("\\toprule") == text.count("\\caption{") == text.count("\\end{table}") == 1


def test_methods_name_every_setting_with_its_value_and_what_rows_differ_in(root: Path, whole: Path) -> None:
    text = (whole / "methods.md").read_text()
    cfg = compose([*TINY, "metric=[erasure]", "anchor=superclass", f"root={root}"])
    result = read_json(root / run_id(cfg) / "result.json")
    assert f"({'digest of its settings and weights'}: {result['weights']})" in text
    said = next(line for line in text.splitlines() if line.startswith("The method in all rows: "))
    settings = {name: str(value) for name, value in result["config"]["method"].items()}
    name = settings.pop("name")
    assert said.startswith(f"The method in all rows: {name}; ")
    assert dict(re.findall(r"(\w+) = ([^;]+?)(?:;|\.$)", said)) == {n: v.lower() for n, v in settings.items()}
    differing = text.partition("The settings that differ between rows.")[2]
    assert re.search(r"\| ac / superclass \| superclass \|.*\n\| ac / empty \| empty \|", differing)
    assert "4 erasures are behind 4 runs; seeds: 0, 1." in text
    for code in {
        score["code"] for score in json.loads((whole / "results.json").read_text())["runs"][0]["scores"].values()
    }:
        assert code in text


def test_a_checklist_says_no_where_it_is_no(whole: Path) -> None:
    told = lines(whole / "checklist.md")
    assert told["Several seeds of every row"] == ("yes", "2 in 2 rows")
    assert told["One commit for all runs"][0] == "yes"
    assert told["Is it really gone? An attack"] == ("not asked", "0 attacks")
    assert told["Reported on prompts that no setting was chosen on"] == ("no", "sample.half=all in 4 runs")
    assert told["A second judge looked"] == ("yes", "2: resnet, vit")
    assert told["Pictures of nothing"][0] == "not asked"
    assert {answer for answer, _ in told.values()} <= {"yes", "no", "not asked", "---", ""}


@pytest.mark.usefixtures("unpainted")
def test_a_checklist_tells_runs_of_other_code_or_versions_and_of_one_seed(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    words = [*TINY, "metric=[erasure]", "method=none", "anchor=concept", f"root={tmp_path}"]
    for concept in ("emoji/fox", "emoji/dog"):
        tiny("metric=[erasure]", "method=none", "anchor=concept", f"concept={concept}")
    file = tmp_path / run_id(compose([*words, "concept=emoji/dog"])) / "result.json"
    result = read_json(file)
    result["environment"]["commit"], result["environment"]["packages"]["torch"] = "0" * 40, "0.0"
    write_json(file, result)
    main([*words, "concept=emoji/fox,emoji/dog", f"--to={tmp_path}/paper"])
    told = lines(tmp_path / "paper/checklist.md")
    assert told["One commit for all runs"][0] == "no"
    assert f"{'0' * 40} (1)" in told["One commit for all runs"][1]
    assert told["One version of torch"][0] == "no"
    assert told["One version of numpy"][0] == "yes"
    assert told["Several seeds of every row"] == ("no", "1 in 1 rows")


def test_every_image_is_in_the_prompts_once_for_each_set_with_the_runs_that_share_it(root: Path, whole: Path) -> None:
    with (whole / "prompts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["set"], row["prompt"], row["seed"], row["of"], row["shot"]) for row in rows}) == len(rows)
    assert {row["runs"] for row in rows} == {"all"}
    drawn = list((root / "store/samples").glob("base-*/*.png"))
    assert len({(row["prompt"], row["seed"]) for row in rows}) == len(drawn)
    result = json.loads((whole / "results.json").read_text())["runs"][0]
    for name, chosen in (("erasure/hit", "erase"), ("keep/hit", "keep"), ("keep/hit_near", "near")):
        assert len(result["scores"][name]["values"]) == sum(row["set"] == chosen for row in rows)


@pytest.mark.usefixtures("unpainted")
def test_what_an_attack_and_other_metrics_looked_at_is_in_the_prompts_too(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    said = ["metric=[erasure,fid,anchor]", "attack=[paraphrase,quantise]", "method=none", "anchor=concept"]
    tiny(*said)
    main([*TINY, *said, f"root={tmp_path}", f"--to={tmp_path}/paper"])
    with (tmp_path / "paper/prompts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sets = {row["set"] for row in rows}
    attacks = {f"attack/{name}{which}" for name in ("paraphrase", "quantise") for which in ("", "@chance")}
    assert sets == {"erase", "keep", "near", "erase@floor", "keep@floor", "anchor", *attacks}
    pictures = sum(len(list(at.glob("*.png"))) for at in (tmp_path / "store/samples").glob("attack-*"))
    assert sum(row["set"] in ("attack/paraphrase", "attack/quantise") for row in rows) == pictures
    assert any(row["prompt"].endswith(", please") and row["of"] for row in rows)


# --- special characters, and the machine --------------------------------------------------------------------------


def unescaped(text: str) -> list[str]:
    """Signs of LaTeX that stand for themselves nowhere in a text, outside of commands, alignment and math."""
    found = []
    for line in text.splitlines():
        bare = re.sub(r"\\[_%&#${}]|\\(textbackslash|\^|~)\{\}|\$(\\[a-z]+|[<>|])\$", "", line)
        if "\\\\" in line:
            bare = bare.replace(" & ", " ")  # between columns
        found += re.findall(r"[_%&#$^~<>|]", re.sub(r"\\(begin|end|label|toprule)\{?[^}]*\}?", "", bare))
    return found


@pytest.mark.usefixtures("unpainted")
def test_special_characters_are_escaped_and_folders_of_the_machine_are_in_no_file(tmp_path: Path) -> None:
    sentences = tmp_path / "my own.csv"
    sentences.write_text("prompt\na fox\na fox in noto style\n")
    words = [
        *(word for word in TINY if not word.startswith(("~concept", "+concept", "concept.", "tracker"))),
        *("concept=emoji/fox_and_car", f"concept.name='{NAMED}'", "metric=[erasure]", "method=none", "anchor=concept"),
        *("tracker=jsonl", f"concept.several.fox.prompts_csv='{sentences}'", f"root={tmp_path}/out"),
        *(f"~concept.several.{one}.{what}" for one in ("fox", "car") for what in ("keep", "near", "evaluate_cross")),
        *(f"+concept.several.{one}.keep={{wolf: a wolf}}" for one in ("fox", "car")),
    ]
    assert cli.command([*words]) is None
    main([*words, f"--to={tmp_path}/paper"])
    for file in (tmp_path / "paper").rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert str(tmp_path) not in text, file.name
            assert str(Path.home()) not in text or str(Path.home()) == "/", file.name
    tables, methods = (tmp_path / "paper/tables/table.tex").read_text(), (tmp_path / "paper/methods.tex").read_text()
    for text in (tables, methods):
        assert "a\\_b \\& 100 \\% $<$script$>$" in text
        assert unescaped(text) == []
    for name in ("tables/table.md", "methods.md"):
        text = (tmp_path / "paper" / name).read_text()
        assert "<script>" not in text
        assert "a_b & 100 % &lt;script>" in text
    assert "my own.csv" in (tmp_path / "paper/results.json").read_text()
    assert CHECK.is_valid(json.loads((tmp_path / "paper/results.json").read_text()))


def test_a_sign_that_is_not_escaped_is_found() -> None:
    assert unescaped("a_b & 100 % <script> \\& x") == ["_", "&", "%", "<", ">"]
    assert unescaped("fox & a\\_b $\\uparrow$ \\\\") == []


@pytest.mark.parametrize(
    ("word", "left"),
    [
        ("model.path=/home/me/models/sd", "model.path=sd"),
        ("model.path=~/models/sd/", "model.path=sd"),
        ("concept.prompts_csv='/a dir/b/x y.csv'", "concept.prompts_csv='x y.csv'"),
        ("metric.reference.references=[/a/b,/c/d]", "metric.reference.references=[b,d]"),
        ("--config-dir=/home/me/mine", "--config-dir=mine"),
        ("concept.evaluate=['{} and/or {}']", "concept.evaluate=['{} and/or {}']"),
        ("model.path=org/name@main", "model.path=org/name@main"),
    ],
)
def test_of_an_absolute_path_in_a_command_the_last_name_is_left(word: str, left: str) -> None:
    assert anywhere([word, "root=/x", "seed=1"]) == [left, "seed=1"]


# --- the schema ---------------------------------------------------------------------------------------------------


def test_results_of_every_kind_are_under_the_schema(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CHECK.check_schema(SCHEMA)
    quick = ["method=none", "anchor=concept"]
    for words in (
        ["metric=[erasure,content,broken,fid,anchor]", *quick],
        ["metric=[erasure]", "attack=[paraphrase,interpolate]", *quick, "seed=1"],
        ["judge=none", *quick, "seed=2"],
        ["metric=[erasure]", "concept.evaluate=['{}']", *quick],
    ):
        CHECK.validate(tiny(*words))
    cfg = compose([*TINY, "metric=[erasure]", *quick, f"root={tmp_path}", "seed=1"])
    monkeypatch.setattr("advanchor.metrics.clip.Clip.__call__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a measurement that fails leaves the result that was there
        tiny("metric=[erasure,clip]", *quick, "seed=1")
    CHECK.validate(read_json(tmp_path / run_id(cfg) / "result.json"))
    CHECK.validate(json.loads((whole / "results.json").read_text()))


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a missing n": lambda r: r["scores"]["erasure/hit"].pop("n"),
    "a string for a number": lambda r: r["scores"]["erasure/hit"].update(value="0.1"),
    "an unknown key at the top": lambda r: r.update(wombat=1),
    "an interval with one end": lambda r: r["scores"]["erasure/hit"].pop("low"),
    "a direction that is none": lambda r: r["scores"]["erasure/hit"].update(better="up"),
    "a digest that is none": lambda r: r.update(run="../x"),
    "no sampling": lambda r: r["config"].pop("sample"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_result_that_is_broken_is_not(what: str, whole: Path) -> None:
    found = json.loads((whole / "results.json").read_text())
    assert CHECK.is_valid(found["runs"][0])
    BROKEN[what](found["runs"][0])
    assert not CHECK.is_valid(found["runs"][0])
    assert not CHECK.is_valid(found)


def test_the_schema_describes_every_field_and_its_page_is_written_from_it() -> None:
    def described(part: Any) -> None:
        for of in part.get("properties", {}).values():
            assert "$ref" in of or len(of["description"]) > 5, of
            described(of)

    for part in SCHEMA["$defs"].values():
        assert part["description"]
        described(part)
    assert (ROOT / "docs/schema/README.md").read_text() == script("schema").page(), "run scripts/schema.py"
