"""A person waits for nothing that the command does not need: what only checks or reads imports no torch."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advanchor import cli
from advanchor.compose import CONF, groups, names

HEAVY = (
    *("torch", "torchvision", "torchmetrics", "diffusers", "transformers", "open_clip", "safetensors"),
    *("scipy", "numpy", "matplotlib", "wandb", "PIL"),
)
SMALL = [
    *("model=random", "tracker=none", "sample.erase=1", "sample.keep=1", "sample.steps=1", "metric=[erasure]"),
    *("concept.evaluate=['a {}']", "concept.evaluate_cross=[]", "method=none", "anchor=concept"),
]


def imported(code: str, *words: str, cwd: Path | None = None) -> tuple[set[str], str]:
    """Which heavy packages a program imports, and what it prints before it says so."""
    last = f"\nimport json, sys\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))\n"
    done = subprocess.run(
        [sys.executable, "-c", code + last, *words], cwd=cwd, check=True, capture_output=True, text=True
    )
    *printed, found = done.stdout.splitlines()
    return set(json.loads(found)), "\n".join(printed)


COMMAND = "import sys\nfrom advanchor.cli import main\ntry: main()\nexcept SystemExit as end: print(end.code)\n"


@pytest.mark.slow
def test_checking_an_option_of_any_kind_imports_nothing_heavy(tmp_path: Path) -> None:
    chosen, file, edit = [], tmp_path / "sentences.csv", tmp_path / "edit.safetensors"
    file.write_text("prompt\na moth\n")
    edit.touch()
    for group in groups():
        options = names(group)
        if group == "concept":  # all of a folder are of one class
            options = list({name.rpartition("/")[0]: name for name in options}.values())
        judge = ["judge=none"] if group == "concept" else []
        chosen += [
            [*judge, "model=random", f"{group}=[{name}]" if group in ("metric", "attack") else f"{group}={name}"]
            + [f"attack.{name}.file={file}"] * (name in ("prompts", "implicit"))  # which need one
            + [f"method.edit={edit}"] * (name == "load")
            for name in options
            if group not in ("model", "experiment", "hydra/launcher") and name != "reference"  # which needs models
        ]
    chosen += [["model=emoji"], ["model=sd14", "model.path=bundled"]]
    assert len(chosen) > 50
    code = f"from advanchor.compose import compose\nfor words in {chosen!r}: compose(words)\n"
    assert imported(code) == (set(), "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help"], "anchor="),
        (["table", "--help"], "--format"),
        (["gallery", "--help"], "--to=<page.html>"),
        (["gallery", "model=random", "--to=page.html"], "makes it."),
        (["report", "--help"], "--to=<folder>"),
        (["report", "model=random", "--to=paper"], "makes it."),
        (["audit", "model=random", "--to=record"], "makes it."),
        (["verify", "root=outputs"], "is not there: name a root"),
        (["concept=emoji/foxx"], "did you mean emoji/fox?"),
        (["method.lr=-1"], "method.lr=-1 will not do"),
        (["table", "concept=emoji/foxx"], "did you mean emoji/fox?"),
        (["--cfg", "job", "model=random"], "steps: 20"),
        (["-m", "seed=0,x"], "seed=x will not do"),
    ],
)
def test_a_command_that_runs_nothing_imports_nothing_heavy(words: list[str], said: str, tmp_path: Path) -> None:
    found, printed = imported(COMMAND, *words, cwd=tmp_path)
    assert found <= ({"numpy"} if {"table", "gallery", "report", "audit", "verify"} & {*words} else set())
    assert said in printed


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three finished runs."""
    folder = tmp_path_factory.mktemp("finished")
    assert cli.command(["-m", *SMALL, "seed=0,1,2", f"root={folder}/outputs"]) is None
    return folder


def test_a_finished_run_is_printed_again_without_torch_and_so_is_a_table(finished: Path) -> None:
    assert imported(COMMAND, *SMALL, cwd=finished)[0] == set()
    found, printed = imported(COMMAND, "table", *SMALL, "seed=0,1,2", cwd=finished)
    assert found == {"numpy", "scipy"}  # Student's t of its intervals
    assert "3 of 3 runs" in printed


def test_a_report_is_written_without_torch(finished: Path) -> None:
    found, printed = imported(COMMAND, "report", *SMALL, "seed=0,1,2", "--to=paper", cwd=finished)
    assert found == {"numpy", "scipy", "matplotlib", "PIL"}  # its figures
    assert "wrote paper: 3 of 3 runs" in printed


def test_a_run_says_what_it_is_and_where_it_goes_before_torch_is_imported(tmp_path: Path) -> None:
    stop = (
        "import builtins, os, sys\nfrom advanchor import cli\nold = builtins.__import__\n"
        "def new(name, *a, **k):\n"
        "    if name.partition('.')[0] == 'torch': sys.stderr.flush(); os._exit(7)\n"
        "    return old(name, *a, **k)\n"
        "builtins.__import__ = new\ncli.main()\n"
    )
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", stop, *SMALL], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert time.monotonic() - begun < 10
    assert done.returncode == 7
    (line,) = done.stderr.splitlines()
    assert line.startswith("fox, concept in none, seed 0 -> outputs/")
    assert line.endswith(": loading ...")


def test_the_story_stands_on_the_standard_error_and_the_table_alone_on_the_standard_output(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "advanchor.cli", *SMALL],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    said = [line.rpartition("\r")[2] for line in done.stderr.splitlines()]
    assert [line for line in said if line.endswith(" ...")][1:] == [
        "erase ...",
        "draw ...",
        "draw@base ...",
        "measure ...",
    ]
    assert "..." not in done.stdout
    assert done.stdout.split()[:5] == ["images", "before,", "judge", "1", "/"]


def test_torch_is_what_a_type_checker_sees_and_a_name_that_it_lacks_is_an_error() -> None:
    import torch

    from advanchor import lazy

    assert lazy.torch.Tensor is torch.Tensor
    assert lazy.F.gelu is torch.nn.functional.gelu
    with pytest.raises(AttributeError, match="wombat"):
        lazy.torch.wombat  # noqa: B018


@pytest.mark.slow
def test_a_type_checker_sees_the_types_of_torch_through_the_lazy_one(tmp_path: Path) -> None:
    file = tmp_path / "seen.py"
    file.write_text(
        "from advanchor.lazy import F, torch\nreveal_type(torch.zeros(1))\nreveal_type(F.pad)\ntorch.wombat()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(file)], cwd=Path(CONF).parent, capture_output=True, text=True
    )
    assert 'Revealed type is "torch._tensor.Tensor"' in done.stdout
    assert 'Module has no attribute "wombat"' in done.stdout
