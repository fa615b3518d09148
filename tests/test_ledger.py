"""The log of a store: whatever becomes of a line is found, and a run that was killed is said to be lost."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import advanchor
from advanchor import cli, ledger
from advanchor.commands import attempts
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.identity import run_id
from advanchor.ledger import LOG, append, check
from advanchor.store import lock, read_json, write_json

WORDS = ["model=random", "tracker=none", "metric=[erasure]"]
A, B = "a" * 12, "b" * 12


def lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / LOG).read_text().splitlines()]


def finish(root: Path, run: str, value: float = 0.0) -> str:
    """A result, and its digest."""
    write_json(root / run / "result.json", {"scores": {"erasure/hit": {"value": value}}})
    return hashlib.sha256((root / run / "result.json").read_bytes()).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One run that failed and two that are done."""
    append(tmp_path, "c" * 12, "begin")
    append(tmp_path, "c" * 12, "failed", why="a mistake")
    for run in (A, B):
        append(tmp_path, run, "begin", command="advanchor")
        append(tmp_path, run, "done", result=finish(tmp_path, run))
    return tmp_path


@pytest.fixture
def carried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Attempt a run that does what it is told to instead of erasing."""

    def call(work: Callable[[Path], Any], *, through: str = "attempt") -> Any:
        words = [*WORDS, f"root={tmp_path}"]
        cfg = compose(words)
        monkeypatch.setattr("advanchor.stages.carry_out", lambda cfg, out, words: work(out))
        monkeypatch.setattr("advanchor.run.finished", lambda cfg, out=None: (out / "result.json").exists())
        if through == "erase":
            return advanchor.erase(*words)
        return attempts.attempt(cfg, tmp_path / run_id(cfg), {}, words)

    return call


def test_a_run_has_a_line_when_it_begins_and_one_when_it_is_done_and_asked_again_it_has_none(
    tmp_path: Path,
) -> None:
    tiny = [*WORDS, "experiment=smoke", "sample.keep=1", "concept.evaluate=['a {}']", "method=none", "anchor=concept"]
    words = [*tiny, "concept.evaluate_cross=[]", f"root={tmp_path}"]
    assert cli.command(words) is None
    opened, begin, done = lines(tmp_path)
    out = tmp_path / begin["run"]
    assert (opened["event"], begin["event"], done["event"]) == ("opened", "begin", "done")
    assert begin["command"].startswith("advanchor experiment=smoke model=random tracker=none 'metric=[erasure]' ")
    assert begin["version"] == done["version"] == "0.1.0"
    assert "@" in begin["who"]
    assert done["result"] == hashlib.sha256((out / "result.json").read_bytes()).hexdigest()
    assert done["scores"] == {
        name: read_json(out / "result.json")["scores"][name]["value"] for name in ("erasure/hit", "keep/hit")
    }
    cli.command(words)
    advanchor.erase(*words)
    assert len(lines(tmp_path)) == 3
    assert cli.command(["verify", f"root={tmp_path}"]) is None


@pytest.mark.parametrize("through", ["attempt", "erase"])
def test_how_a_run_ended_stands_in_the_log(carried_out: Callable[..., Any], tmp_path: Path, through: str) -> None:
    def fail(out: Path) -> None:
        raise BadInput("a mistake: mend it.")

    def stop(out: Path) -> None:
        raise KeyboardInterrupt(15)

    try:
        carried_out(fail, through=through)
    except BadInput:
        assert through == "erase"
    with pytest.raises(KeyboardInterrupt):
        carried_out(stop, through=through)
    ended = [(line["event"], line.get("why")) for line in lines(tmp_path) if line["event"] not in ("opened", "begin")]
    assert ended == [("failed", "a mistake: mend it."), ("stopped", "SIGTERM")]
    assert check(tmp_path).wrong == []


def test_a_log_that_nobody_touched_is_whole_and_says_how_long_it_is(root: Path) -> None:
    said = check(root)
    assert said.wrong == said.notes == []
    assert said.lines == 7
    assert said.head == hashlib.sha256((root / LOG).read_bytes().splitlines()[-1]).hexdigest()


def test_every_flipped_byte_of_a_log_is_found(tmp_path: Path) -> None:
    root = tmp_path
    append(root, A, "begin")
    append(root, A, "done", result=finish(root, A))
    whole = (root / LOG).read_bytes()
    for i in range(len(whole)):
        (root / LOG).write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert check(root).wrong, f"byte {i} of {whole[max(0, i - 20) : i + 20]!r}"


def test_a_line_that_is_left_out_doubled_or_moved_is_found(root: Path) -> None:
    whole = (root / LOG).read_bytes().splitlines(keepends=True)
    for i in range(len(whole)):
        (root / LOG).write_bytes(b"".join(whole[:i] + whole[i + 1 :]))
        assert check(root).wrong, f"line {i + 1} left out"
        (root / LOG).write_bytes(b"".join([*whole[: i + 1], *whole[i:]]))
        assert check(root).wrong, f"line {i + 1} doubled"
        if i:
            (root / LOG).write_bytes(b"".join([*whole[: i - 1], whole[i], whole[i - 1], *whole[i + 1 :]]))
            assert check(root).wrong, f"line {i + 1} moved"
    (root / LOG).write_bytes(b"".join(whole[:-2]))
    assert check(root).wrong == [f"run {B} has a result.json, and no line tells of it"]


def test_what_leaves_out_the_end_shows_only_beside_a_copy_of_the_last_digest(root: Path) -> None:
    """As the module says: a chain does not know how long it was."""
    append(root, "c" * 12, "begin")
    append(root, "c" * 12, "failed", why="again")
    head = check(root).head
    whole = (root / LOG).read_bytes().splitlines(keepends=True)
    (root / LOG).write_bytes(b"".join(whole[:-2]))
    assert check(root).wrong == []
    assert check(root).head != head


def test_a_result_that_is_changed_or_gone_is_found_and_an_older_one_than_the_log_is_said(root: Path) -> None:
    finish(root, A, 1.0)
    shutil.rmtree(root / B)
    assert check(root).wrong == [
        f"run {A} was done, and its result.json is no longer what it was",
        f"run {B} was done, and its result.json is gone",
    ]
    (root / LOG).unlink()
    append(root, B, "begin")
    append(root, B, "done", result=finish(root, B))
    said = check(root)
    assert said.wrong == []
    assert said.notes == ["results older than the log, of which it says nothing: 1"]


def test_a_line_that_a_kill_cut_off_is_said_and_the_log_goes_on_after_it(root: Path) -> None:
    append(root, "d" * 12, "begin")
    append(root, "d" * 12, "failed", why="a mistake")
    whole = (root / LOG).read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in (last + 1, (last + len(whole)) // 2, len(whole) - 2, len(whole) - 1):
        (root / LOG).write_bytes(whole[:end])
        if end < len(whole) - 1:  # but for its line break it would be whole
            (wrong,) = check(root).wrong
            assert wrong.startswith("line 9 is cut off")
        append(root, "e" * 12, "begin")
        append(root, "e" * 12, "failed", why="another")
        assert [json.loads(line)["event"] for line in (root / LOG).read_bytes().splitlines()[9:]] == [
            *("torn", "begin", "failed")
        ]
        assert (root / LOG).read_bytes().startswith(whole[:end])
        said = check(root)
        assert said.wrong == []
        assert [note[:18] for note in said.notes] == (
            ["line 9 was cut off", f"lost: run {'d' * 8}"] if end < len(whole) - 1 else []
        )


def test_a_run_that_was_killed_is_lost_to_who_looks_and_to_who_begins_it_again(root: Path) -> None:
    append(root, "d" * 12, "begin")
    with lock(root / ("d" * 12) / ".lock"):
        assert check(root).notes == [f"run {'d' * 12} is under way"]
    (note,) = check(root).notes
    assert note.startswith(f"lost: run {'d' * 12} began at ")
    append(root, "d" * 12, "begin")
    assert [line["event"] for line in lines(root)][-2:] == ["lost", "begin"]
    append(root, "d" * 12, "failed", why="a mistake")
    said = check(root)
    assert said.wrong == []
    (note,) = said.notes
    assert note.startswith(f"run {'d' * 12} was killed, and begun again at ")


def test_processes_that_write_at_once_keep_the_chain(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom advanchor.ledger import append\n"
        "for i in range(20):\n"
        "    append(Path(sys.argv[1]), sys.argv[2], 'begin')\n    append(Path(sys.argv[1]), sys.argv[2], 'failed')\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), run]) for run in (A, B)]
    assert [one.wait() for one in both] == [0, 0]
    said = check(tmp_path)
    assert said.wrong == said.notes == []
    assert said.lines == 81


def test_the_command_takes_a_root_or_its_log_and_its_exit_code_tells(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([f"root={root}"], [str(root)], [str(root / LOG)]):
        assert cli.command(["verify", *words]) is None
        assert "audit.jsonl: 7 lines, from " in capsys.readouterr().out
    finish(root, A, 1.0)
    assert cli.command(["verify", f"root={root}"]) == f"advanchor verify: 1 thing is wrong with {root / LOG}."
    assert f"WRONG  run {A} was done, and its result.json is no longer" in capsys.readouterr().out
    for words, why in (
        ([f"root={root / 'elsewhere'}"], "is not there: name a root"),
        ([], "verify what?"),
        ([f"root={root}", "--recompute"], "--recompute is for a record"),
        ([str(root), "seed=1"], "seed=1 is for a record"),
        ([str(root), str(root)], "verify takes one folder"),
    ):
        with pytest.raises(BadInput, match=why):
            cli.command(["verify", *words])


def test_a_line_that_somebody_made_up_is_a_finding_and_no_traceback(root: Path) -> None:
    for made_up in (b"[]\n", b"\x00\xff\n", b"\n", ledger.sealed({"event": "done"}) + b"\n"):
        (root / LOG).write_bytes((root / LOG).read_bytes() + made_up)
        assert "line 8 is not as it was written" in check(root).wrong
