"""The command: what is typed is a run, a sweep, a table, or one sentence that says what to do.

No config ever runs a program.
"""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import advanchor
from advanchor import cli
from advanchor.commands import launch
from advanchor.commands.help import help_text
from advanchor.compose import CONF, compose, compose_all, expand, groups, names, read, validate
from advanchor.core import BadInput

SMALL = [
    "model=random",
    "tracker=none",
    "sample.erase=1",
    "sample.keep=1",
    "sample.steps=1",
    'concept.evaluate=["a {}"]',
    "concept.evaluate_cross=[]",
    "metric=[erasure]",
]
OBJECT = (Path(CONF) / "concept/emoji/fox.yaml").read_text().replace("emoji/_object", "/concept/emoji/_object")


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """The one sentence that a command is refused with, before anything is loaded or written."""

    def call(*words: str) -> str:
        monkeypatch.setattr(cli, "attempt", lambda *_: pytest.fail(f"{words} ran"))
        monkeypatch.setattr("advanchor.models.tiny.Random.open", None)
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(BadInput) as error:
            cli.command(words)
        assert sorted(tmp_path.rglob("*")) == before
        assert "\n" not in str(error.value)
        assert str(error.value).endswith((".", "?"))
        return str(error.value)

    return call


WORDS = {
    "tabel": "did you mean table?",
    "plots": "did you mean plot?",
    "tables": "did you mean table?",
    "wombat": "'wombat' is not key=value",
    "seed=1|table": "table goes first: advanchor table seed=1.",
    "method==ac": "write method=ac",
    "=": "names no setting",
    "=x": "names no setting",
    "a b=c": "is not key=value",
    "method=": "method= chooses nothing: method is one of ac,",
    "experiment=": "experiment is one of",
    "seed=1|seed=2": "seed is set twice, seed=1 and seed=2",
    "seed=0,1|seed=2|-m": "seed is set twice",
    "seed=1|++seed=2": "seed is set twice",
    "concept=emoji/fox|concept=emoji/car": "concept is set twice",
    "experiment=methods|experiment=anchors": "experiment is set twice",
    "seed=0,1": "seed=0,1 names several values: add -m for a sweep of 2 runs",
    "anchor=text|anchor.text=a,b": "or quote the value if it is one text",
    "hydra/launcher=workers": "launches the runs of a sweep: add -m",
    "seed=range(0,1000000)|-m": "5,000 is the most",
    "seed=range(0,100)|sample.steps=range(1,100)|-m": "a sweep of 9,900 runs",
    "seed=interval(0,1)|-m": "a span without values",
    "root=a,b|-m": "a sweep has one root",
    "concept=glob(emoji/z*)|-m": "matches no option",
    "concept=foxx": "did you mean emoji/fox?",
    "experiment=[methods,anchors]": "or with -m several, between commas",
    "metric=5": "metric=[erasure,fid]",
    "metric=[5]": "metric=[erasure,fid]",
    "metric=null": "metric=[erasure,fid]",
    "model={}": "model is one of emoji, emoji_flow, flux_dev, flux_schnell, random, sd14, sd15, sd21, sd21_base, sd3",
    "~method": "~method will not do",
    "~seed": "leave ~seed out",
    "--config-path=/": "--config-path=/ is no flag of advanchor",
    "--config-name=x": "is no flag",
    "--experimental-rerun=x": "is no flag",
    "--frobnicate": "is no flag",
    "-r": "is no flag",
    "--cfg|nope": "write --cfg job",
    "--cfg|job|-m": "-m does not go with --cfg",
    "--cfg|job|methd=ac": "did you mean method?",
    "--config-dir": "names no folder",
    "--config-dir=/no/such": "there is no folder /no/such",
    "--config-dir=a|--config-dir=b": "",
    "sample=null": "sample=null will not do",
    "sample=5": "sample=5 will not do",
    "table=null": "table=null will not do",
    "table.rows=5": "table.rows=5 will not do",
    "table.cells=[1]": "table.cells=[1] will not do",
    "paper=null": "paper=null will not do",
    "experiment=null": "experiment cannot be null",
    "model=null": "model cannot be null",
    "study=null": "study=null will not do",
    "study=[a]": "it is a name",
    "study=${nope}": "study=${nope} asks for ${nope}, and there is no such setting",
    "method.lr=${nope}": "asks for ${nope}",
    "seed=10**18": "seed=10**18 will not do",
    "seed=-1": "seed=-1 will not do",
    "seed=1.5": "seed=1.5 will not do",
    "seed='1'": "seed=1 will not do",
    "seed=": "seed= will not do",
    "+concept.keep={wombat: a wombat}": "would be merged",
    "++concept.keep={wombat: a wombat}": "would be merged",
    "concept.keep_cross={wombat: a wombat}": "would be merged",
    "++concept.keep_cross={wombat: a wombat}": "would be merged",
    "root=": "name the folder",
    "root=null": "name the folder",
    "root=[a]": "name the folder",
    "root=true": "root=true is no text",
    "root=20261126": "'root=\"20261126\"'",
    "root=/dev/null": "/dev/null is a file",
    "root=/dev/null/x": "/dev/null is a file",
    "method=esd|method.preserve=1|anchor.text=x": "no setting 'method.preserve' with this method: it has scope",
    "anchor.text=x|method=esd|method.preserve=1": "no setting 'anchor.text'",
    "concept.name=${run_id:}": "refers to itself",
    "--resolve": "write --cfg job --resolve",
    "-p|model": "write --cfg job -p",
    "-m|seed=0,1|table.cells=[]": "table.cells=[] leaves nothing to show",
    "method=esd|method.preserve=1|method.eta=1|model=random": (
        "no setting 'method.preserve' with this method: it has scope"
    ),
}


@pytest.mark.parametrize("words", WORDS)
def test_what_is_no_command_gets_one_sentence_before_anything_is_loaded_or_written(
    words: str, refused: Callable[..., str]
) -> None:
    assert WORDS[words] in refused(*words.split("|"))


@pytest.mark.parametrize("verb", ["table", "plot"])
@pytest.mark.parametrize(
    "word",
    ["tabel", "method==ac", "methd=ac", "seed=1 seed=2", "hydra.run.dir=x", "root=", "sample=null", "study=${nope}"],
)
def test_table_and_plot_refuse_what_a_run_refuses(verb: str, word: str, refused: Callable[..., str]) -> None:
    assert refused(verb, *word.split(" "))


@pytest.mark.parametrize(
    "value",
    [
        "müller/out",
        "a=b",
        "a dog's tail",
        "what; now",
        'say "a"',
        "tail\\",
        "50 % (off)",
        "a{b",
        "~nobody/x",
        "a\tb",
        "日本",
    ],
)
def test_a_value_that_cannot_be_read_is_shown_as_it_is_to_be_written_and_that_is_read(value: str) -> None:
    import shlex

    try:
        read([f"study={value}"])
    except BadInput as error:
        sentence = str(error)
        shown = sentence[sentence.rindex("study=") - 1 : -1]
        (word,) = shlex.split(shown)
        assert word != f"study={value}"
        assert compose(["model=random", *read([word])]).study == value
    else:
        assert compose(["model=random", f"study={value}"]).study == value


@pytest.mark.parametrize("path", ["~", "~/out", "~/müller/a b"])
@pytest.mark.parametrize("quotes", ["", '"'])
def test_the_home_folder_is_expanded_in_root(path: str, quotes: str) -> None:
    assert compose(["model=random", *read([f"root={quotes}{path}{quotes}"])]).root == str(Path(path).expanduser())


def test_a_model_that_is_not_there_is_never_guessed_by_a_number() -> None:
    with pytest.raises(BadInput, match="there is no model=sd16: There are emoji, emoji_flow, flux_dev, flux_schnell,"):
        validate(["model=sd16"])


def test_a_glob_reaches_into_folders_and_stays_within_one() -> None:
    foxes = [one for (one,) in expand(["concept=glob(emoji/f*)"])]
    assert foxes == [f"concept=emoji/{name}" for name in ("fluent", "fox", "fox_and_car", "fox_and_twemoji")]
    assert len(expand(["concept=glob(emoji_set/*)"])) == len(
        [n for n in names("concept") if n.startswith("emoji_set/")]
    )
    assert not any("/" in one for (one,) in expand(["anchor=glob(*)"]))
    assert len(expand(["concept=glob([emoji/f*],exclude=[emoji/fox*])"])) == 1


@pytest.mark.parametrize(
    "given", [(["concept=emoji/fox"],), (5,), (None,), ({},), ("seed=1", "seed=2"), ("tabel",), (["a"], "b")]
)
def test_erase_says_what_it_takes(given: tuple[Any, ...]) -> None:
    with pytest.raises(BadInput) as error:
        advanchor.erase(*given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [{}, None, 5, "result.json", {"config": {}}, {"config": {"model": {}}}])
def test_load_says_what_it_takes(given: Any) -> None:
    with pytest.raises(BadInput, match="load\\(\\) takes the result of erase\\(\\)"):
        advanchor.load(given)


# --- nobody's program -------------------------------------------------------------------------------------------------

OURS = [
    "hydra.run.dir=x", "hydra.sweep.dir=x", "hydra.sweep.subdir=x", "hydra.job.chdir=true", "hydra.output_subdir=x",
    "hydra.job.name=x", "+hydra.job.env_set.PYTHONPATH=x", "hydra.job_logging.root=x", "hydra.hydra_logging=null",
    "hydra.help.app_name=x", "hydra.searchpath=[file:///tmp]", "hydra.searchpath=[pkg://os]", "++hydra.run.dir=x",
    "hydra.launcher._target_=subprocess.Popen", "hydra.sweeper._target_=subprocess.Popen",
    "hydra/job_logging=default", "hydra/sweeper=basic", "hydra/output=x",
    "+hydra.callbacks.x._target_=subprocess.Popen", "+hydra.launcher.x._target_=subprocess.Popen", "hydra.mode=NONE",
    "hydra.verbose=true",
]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "more"),
    [
        *((setting, []) for setting in OURS),
        *(("hydra.run.dir=x", more) for more in (["seed=0,1", "-m"], ["--cfg", "job"], ["--info"])),
    ],
)
def test_where_results_go_and_what_is_run_is_not_for_a_command_to_set(
    setting: str, more: list[str], refused: Callable[..., str]
) -> None:
    assert "hydra" in refused("model=random", setting, *more)


RUNS = {
    "callback": "callbacks: {x: {_target_: subprocess.Popen, args: [touch, CANARY]}}",
    "launcher": "launcher: {_target_: subprocess.Popen, args: [touch, CANARY]}",
    "in-launcher": "launcher: {x: {_target_: subprocess.Popen, args: [touch, CANARY]}}",
    "sweeper": "sweeper: {_target_: subprocess.Popen, args: [touch, CANARY]}",
    "in-sweeper": "sweeper: {params: {seed: {_target_: subprocess.Popen, args: [touch, CANARY]}}}",
    "by-reference": "sweeper: {params: '${paper}'}",
    "factory": (
        "job_logging: {version: 1, handlers: {x: {(): subprocess.Popen, args: [touch, CANARY]}}, "
        "root: {handlers: [x]}}"
    ),
    "hydra-factory": (
        "hydra_logging: {version: 1, handlers: {x: {(): subprocess.Popen, args: [touch, CANARY]}}, "
        "root: {handlers: [x]}}"
    ),
    "log-file": (
        "job_logging: {version: 1, handlers: {x: {class: logging.FileHandler, filename: CANARY}}, "
        "root: {handlers: [x]}}"
    ),
    "folder": "run: {dir: CANARY}",
    "sweep-folder": "sweep: {dir: CANARY}",
    "environment": "job: {env_set: {LD_PRELOAD: CANARY}}",
    "chdir": "job: {chdir: true}",
    "searchpath": "searchpath: ['file://CANARY']",
    "output": "output_subdir: ../CANARY",
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "more"),
    [*((what, ["-m"]) for what in RUNS), ("callback", []), ("factory", []), ("factory", ["--cfg", "job"])],
)
def test_a_config_file_never_runs_a_program_or_moves_a_result(
    what: str, more: list[str], refused: Callable[..., str], tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "mine/experiment").mkdir(parents=True)
    paper = f"paper: {{_target_: subprocess.Popen, args: [touch, {canary}]}}\n"
    (tmp_path / "mine/experiment/bad.yaml").write_text(
        f"# @package _global_\n{paper}hydra:\n  {RUNS[what].replace('CANARY', str(canary))}\n"
    )
    refused("--config-dir", str(tmp_path / "mine"), "model=random", "experiment=bad", *more)
    with pytest.raises(BadInput):
        advanchor.erase("model=random", "experiment=bad", config_dir=tmp_path / "mine")
    assert not canary.exists()


@pytest.mark.parametrize(
    "setting",
    [
        "setup: [touch CANARY]",
        "additional_parameters: {wrap: touch CANARY}",
        'partition: "gpu\\ntouch CANARY"',
        "submitit_folder: /elsewhere",
        "submitit_folder: '${root}/../elsewhere'",
    ],
)
@pytest.mark.parametrize("where", ["experiment", "launcher"])
def test_the_shell_commands_of_a_cluster_job_come_from_the_command_line_alone(
    setting: str, where: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    mine, words = tmp_path / "mine", ["model=random", "experiment=bad", "-m"]
    (mine / "experiment").mkdir(parents=True)
    body = "# @package _global_\ndefaults:\n  - override /hydra/launcher: {}\n"
    if where == "launcher":
        (mine / "hydra/launcher").mkdir(parents=True)
        (mine / "hydra/launcher/cluster.yaml").write_text(f"defaults: [submitit_slurm]\n{setting}\n")
        (mine / "experiment/bad.yaml").write_text(body.format("cluster"))
    else:
        (mine / "experiment/bad.yaml").write_text(body.format("slurm") + f"hydra:\n  launcher:\n    {setting}\n")
    assert "hydra.launcher." in refused(f"--config-dir={mine}", *words)


def test_a_launcher_and_its_settings_are_free_to_choose(tmp_path: Path) -> None:
    (tmp_path / "hydra/launcher").mkdir(parents=True)
    (tmp_path / "hydra/launcher/mine.yaml").write_text("defaults: [slurm]\npartition: gpu\ntimeout_min: 3\n")
    for setting in (
        "hydra.launcher.partition=gpu",
        "hydra.launcher.mem_gb=3",
        "hydra.launcher.setup=[module load cuda]",
        "+hydra.launcher.additional_parameters={mail: me}",
    ):
        compose(["model=random", "hydra/launcher=slurm", setting])
    compose(["model=random", "hydra/launcher=workers", "hydra.launcher.n_jobs=7"])
    compose(["model=random", f"config_dir={tmp_path}", "hydra/launcher=mine"])


# --- a user's own configs ---------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a concept, a model and an experiment of two times two runs."""
    folder = tmp_path / "my configs"
    for name, text in {
        "concept/my/fuchs": OBJECT,
        "model/tiny": "defaults: [random]\nname: tiny\n",
        "judge/tiny": "defaults: [random]\n",
        "experiment/two": "# @package _global_\ndefaults:\n  - override /concept: my/fuchs\n  - override /model: tiny\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper: {params: {seed: '0,1'}}\n"
        "sweeps:\n  - {anchor: superclass}\n  - {anchor: empty}\nstudy: two\n",
    }.items():
        (folder / f"{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_folder_of_ones_own_works_in_a_sweep_its_table_its_plot_and_python(
    mine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [*(w for w in SMALL if not w.startswith("model=")), "method.steps=1"]
    assert cli.command(["--config-dir=my configs", "experiment=two", *small]) is None
    said = capsys.readouterr().out
    assert "sweep: 4 of 4 done" in caplog.text
    assert len(list(tmp_path.glob("outputs/*/result.json"))) == 4
    assert all(f"{i} of 4: " in caplog.text for i in range(1, 5))
    again = next(line for line in said.splitlines() if line.startswith("advanchor table"))
    import shlex

    assert cli.command(shlex.split(again)[1:]) is None
    table = capsys.readouterr().out.strip()
    assert table in said
    assert "4 of 4 runs" in table
    drawn: list[str] = []
    monkeypatch.setattr("advanchor.results.figures.main", lambda args: drawn.extend(args) or "")
    assert cli.command(["plot", *small, "--config-dir", "my configs", "experiment=two", "--to=x"]) is None
    assert drawn[0] == "--to=x"
    assert len(expand(drawn[1:])) == 4
    result = advanchor.erase("concept=my/fuchs", "model=tiny", "anchor=empty", *small, config_dir="my configs")
    assert len(list(tmp_path.glob("outputs/*/result.json"))) == 4
    model, edit = advanchor.load(result, config_dir="my configs")
    assert edit
    assert model.name == "tiny"
    with pytest.raises(BadInput, match="model=tiny is none of advanchor's own: say config_dir="):
        advanchor.load(result)


def test_a_folder_of_ones_own_is_checked_like_ours(mine: Path, refused: Callable[..., str]) -> None:
    flag = f"--config-dir={mine}"
    assert "did you mean my/fuchs?" in refused(flag, "concept=my/fuch")
    (mine / "experiment/bad.yaml").write_text("# @package _global_\nmethod: {stepps: 3}\n")
    assert "did you mean method.steps?" in refused(flag, "experiment=bad")
    (mine / "concept/my/bad.yaml").write_text(OBJECT + "colour: red\n")
    assert "there is no setting 'concept.colour'" in refused(flag, "model=tiny", "concept=my/bad")
    (mine / "metrics").mkdir()
    assert "did you mean metric?" in refused(flag)
    (mine / "metrics").rmdir()
    (mine / "concept/my/late.yml").write_text(OBJECT)
    assert "rename it" in refused(flag)
    (mine / "concept/my/late.yml").unlink()
    (mine / "concept/emoji").mkdir()
    (mine / "concept/emoji/fox.yaml").write_text(OBJECT)
    assert "has the name of one of advanchor's own configs" in refused(flag)


# --- help, completion -------------------------------------------------------------------------------------------------


def test_help_lists_every_option_of_every_group_with_what_it_does_and_no_internal_one() -> None:
    text = help_text()
    for group in groups():
        part = text.partition(f"\n{group}=\n")[2].partition("\n\n")[0]
        assert part
        for name in names(group):
            assert name in part or name.rpartition("/")[2] in part
        if group != "concept":
            assert all(len(line.split(maxsplit=1)) == 2 for line in part.splitlines())
            assert "{" not in part
    assert not any(word in text for word in ("anchor_for", "method_for", "/_", "@package", "Powered by Hydra"))
    for word in ("seed:", "sample:", "root:", "device:", "table ", "plot ", "--config-dir", "-m"):
        assert word in text


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["seed=1", "--help"], ["--version"]])
def test_help_and_version_need_no_torch(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['advanchor', *{words!r}]\nfrom advanchor.cli import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "line",
    ["advanchor method=e", "advanchor table method=e", "advanchor  plot  method=e", "advanchor table seed=1 method=e"],
)
def test_completion_works_after_table_and_plot_too(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setattr(sys, "argv", ["advanchor"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    cli.command(["-sc", "query=bash"])
    assert "method=esd" in capsys.readouterr().out


def test_cfg_prints_a_checked_config(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["advanchor"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    cli.command(["--cfg", "job", "model=random", "seed=3", "--package", "sample"])
    assert "steps: 20" in capsys.readouterr().out
    cli.command(["--cfg=job", "seed=3,4"])
    said = capsys.readouterr()
    assert "seed: 3" in said.out
    assert "first of 2 runs" in said.err


# --- runs that fail, and runs that are stopped ------------------------------------------------------------------------


def test_a_finished_run_is_printed_from_a_store_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, f"root={tmp_path}"]
    assert cli.command(words) is None
    first = capsys.readouterr().out
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}
    ours = {"store", "audit.jsonl", ".audit.lock"}
    assert {f.name for f in tmp_path.iterdir() if f.name not in ours} == {
        first.split(str(tmp_path) + "/")[1].split("/")[0]
    }  # one run, and nothing of Hydra's

    def read_only(*args: Any, **kw: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.setattr(Path, "write_text", read_only)
    monkeypatch.setattr("advanchor.store.lock", read_only)
    assert cli.command(words) is None
    assert "kept: own concept found" in capsys.readouterr().out
    assert cli.command([*words, "-m"]) is None
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")} == before
    with pytest.raises(BadInput, match="cannot be written: choose another"):
        cli.command([*words, "seed=1"])
    monkeypatch.setattr(os, "access", lambda *_: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="no space left"):
        cli.command([*words, "seed=1"])


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


ERRORS = {
    OSError(errno.ENOSPC, "No space left on device"): "no space left",
    RuntimeError("I/O error: No space left on device (os error 28)"): "no space left",
    PermissionError(errno.EACCES, "Permission denied", "/x/y"): "/x/y cannot be read or written",
    OSError(errno.EROFS, "Read-only file system"): "choose another root=",
    MemoryError(): "lower batch",
    OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB\nmore"): "lower batch",
    BadInput("do this."): "do this.",
    KeyError("x"): "report it",
    RuntimeError("many\nlines"): "error.txt",
}  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: f"{type(e).__name__}-{ERRORS[e][:12]}")
@pytest.mark.parametrize("unwritable", [False, True])
def test_every_error_of_a_run_becomes_one_sentence_with_its_remedy(
    error: Exception,
    unwritable: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        if unwritable:
            monkeypatch.setattr(
                Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
            )
        raise error

    monkeypatch.setattr("advanchor.stages.carry_out", fail)
    said = cli.command([*SMALL, f"root={tmp_path}"])
    assert said is not None
    assert ERRORS[error] in said
    assert "\n" not in said
    assert said.endswith(".")
    if not unwritable:
        (file,) = tmp_path.glob("*/error.txt")
        assert ERRORS[error] in file.read_text().splitlines()[0]
        assert ("Traceback" in file.read_text()) != isinstance(error, BadInput)
    elif "report it" in said:
        assert "Traceback" in capsys.readouterr().err


def test_an_error_that_nobody_foresaw_outside_a_run_says_where_its_traceback_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for error, said in (
        (KeyError("x"), "the traceback is above, please report it"),
        (PermissionError(errno.EACCES, "no", "/x/result.json"), "/x/result.json cannot be"),
    ):

        def fail(words: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(cli, "command", fail)
        with pytest.raises(SystemExit, match=said):
            cli.main()
        assert ("Traceback" in capsys.readouterr().err) == isinstance(error, KeyError)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_sweep_prints_one_line_for_each_run_and_one_table_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    said = cli.command([*SMALL, f"root={tmp_path}", "-m", "seed=0,1", "method.steps=2", "method.lr=1e-4,1e30"])
    out = capsys.readouterr().out
    assert said is not None
    assert len(said.splitlines()) == caplog.text.count(": failed") == 2
    assert out.count("| method | anchor |") == 1
    assert "pictures" not in out
    assert "Launching" not in out
    assert "#0" not in out
    assert "1 of 4: seed=0 method.lr=0.0001: done in" in caplog.text
    assert [line for line in out.splitlines() if line][-1].startswith("advanchor table model=random")


def process(folder: Path, *words: str) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "advanchor.cli", *words],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )


def interruptible() -> None:
    """Also where the tests themselves run in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def unforeseen(err: str) -> list[str]:
    """What stands on the standard error beside bars and the story of a run or a sweep."""
    story = re.compile(r"sweep: \d+ of |\d+ of \d+: |.* -> .*: loading \.\.\.$|(erase|draw|draw@base|measure) \.\.\.$")
    lines = (line.rpartition("\r")[2].strip() for line in err.split("\n"))
    return [line for line in lines if line and "%|" not in line and not story.match(line)]


def until(there: Callable[[], object], child: "subprocess.Popen[str]") -> None:
    for _ in range(1200):
        if there() or child.poll() is not None:
            return
        time.sleep(0.05)


LONG = ["method.steps=100000"]


@pytest.mark.parametrize(("number", "words"), [(signal.SIGINT, []), (signal.SIGTERM, ["-m", "seed=0,1"])])
def test_a_stopped_command_says_one_line_has_the_shells_exit_code_and_keeps_what_is_computed(
    number: int, words: Sequence[str], tmp_path: Path
) -> None:
    child = process(tmp_path, *SMALL, *LONG, *words)
    until(lambda: list(tmp_path.glob("outputs/store/edits/.*.part/train.jsonl")), child)
    time.sleep(0.3)
    start = time.monotonic()
    child.send_signal(number)
    out, err = child.communicate(timeout=20)
    assert time.monotonic() - start < 3
    assert child.returncode == 128 + number
    assert unforeseen(err) == ["advanchor: stopped; what is computed stays, and the same command goes on from there."]
    assert "Traceback" not in out + err
    assert list(tmp_path.glob("outputs/store/edits/.*.part/train.jsonl"))


def test_a_command_that_is_stopped_while_it_imports_says_one_line(tmp_path: Path) -> None:
    code = "import os, signal, sys, builtins\nfrom advanchor import cli\nold = builtins.__import__\n" + (
        "def new(name, *a, **k):\n"
        "    if name == 'torch': builtins.__import__ = old; os.kill(os.getpid(), signal.SIGINT)\n"
        "    return old(name, *a, **k)\n"
        "builtins.__import__ = new\nsys.argv[1:] = sys.argv[1:]\ncli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *SMALL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=interruptible,
    )
    assert done.returncode == 130
    assert unforeseen(done.stderr) == [
        "advanchor: stopped; what is computed stays, and the same command goes on from there."
    ]


@pytest.mark.slow
def test_the_workers_of_a_stopped_sweep_end_with_it(tmp_path: Path) -> None:
    child = process(tmp_path, *SMALL, *LONG, "-m", "seed=0,1", "hydra/launcher=workers")
    until(lambda: list(tmp_path.glob("outputs/store/edits/.*.part/train.jsonl")), child)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 143
    assert "Traceback" not in err
    time.sleep(0.5)
    files = {f: f.stat().st_size for f in tmp_path.glob("outputs/store/edits/.*.part/train.jsonl")}
    time.sleep(0.5)
    assert files == {f: f.stat().st_size for f in files}


def test_a_sweep_of_every_kind_of_axis_reaches_a_launcher_as_it_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[str]] = []
    monkeypatch.setattr(launch, "hydra_main", lambda words: sent.append(list(words)))
    words = [
        "model=random",
        "concept=glob(emoji/fox_*)",
        "seed=range(0,3)",
        "anchor=text",
        'anchor.text="a dog","a, b"',
        "hydra/launcher=workers",
        "root=~/never",
    ]
    monkeypatch.setattr(cli, "writable", lambda root: None)
    cli.command([*words, "-m"])
    (line,) = sent
    assert "concept=emoji/fox_and_car,emoji/fox_and_twemoji" in line
    assert "seed=0,1,2" in line
    assert f'root="{Path("~/never").expanduser()}"' in line
    assert len(expand([w for w in line if w != "-m"])) == len(expand(read(words))) == 12
    assert {c.anchor.text for c in compose_all(expand(read(words)))} == {"a dog", "a, b"}
