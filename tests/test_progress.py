"""A sweep says how far it is, from the folders alone."""

import subprocess
import sys
from pathlib import Path

from advanchor.results.progress import State, line, state
from advanchor.store import held, lock


def test_the_state_is_read_from_results_locks_and_errors(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("done", "redone", "running", "failed", "killed", "new")]
    for folder in folders[:5]:
        folder.mkdir()
        (folder / ".lock").touch()
    (folders[0] / "result.json").write_text("{}")
    (folders[1] / "result.json").write_text("{}")
    (folders[1] / "error.txt").write_text("of an earlier try")
    (folders[3] / "error.txt").write_text("no")
    with lock(folders[2] / ".lock"):
        assert state(folders) == State(done=2, running=1, failed=1, left=2)
    assert state(folders) == State(done=2, running=0, failed=1, left=3)


def test_a_lock_is_held_while_another_process_lives(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from advanchor.store import lock
with lock(Path(sys.argv[1])):
    print("mine", flush=True)
    input()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "mine\n"
    assert held(tmp_path / ".lock")
    other.kill()
    other.wait()
    assert not held(tmp_path / ".lock")
    assert not held(tmp_path / "nothing here")


def test_the_estimate_is_from_the_runs_finished_since_the_start() -> None:
    first, now = State(10, 1, 0, 9), State(14, 2, 1, 3)
    assert line(now, first, 240.0) == "sweep: 14 of 20 done, 2 running, 1 failed, 3 left, about 4 min"
    assert line(first, first, 0.0) == "sweep: 10 of 20 done, 1 running, 0 failed, 9 left"
    assert line(State(20, 0, 0, 0), first, 500.0) == "sweep: 20 of 20 done, 0 running, 0 failed, 0 left"
