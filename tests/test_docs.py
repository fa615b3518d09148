"""The pages tell the truth: their examples run, their lists are whole, the picture is that of the imports."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import script

ROOT = Path(__file__).resolve().parents[1]
ADDING = (ROOT / "docs/adding.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", ADDING, flags=re.MULTILINE)[1:]}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = ["model=random", "tracker=none", "sample.erase=1", "sample.keep=1", "sample.steps=1"]
SMALL += ["concept.evaluate=['a {}','{} again']"]
# All commands in one process, since torch takes seconds to import: what each printed, and what it raised or returned.
DRIVER = """
import contextlib, importlib, io, json, sys
from advanchor.cli import command
asked = json.load(sys.stdin)
for module in asked["modules"]:
    importlib.import_module(module)
assert not {"torch", "numpy", "PIL"} & set(sys.modules), "a module of an example imports what is slow to import"
for words in asked["commands"]:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            wrong = command(words)
    except Exception as error:
        wrong = repr(error)
    print(json.dumps({"printed": printed.getvalue(), "wrong": wrong}))
"""


def files(text: str) -> dict[str, str]:
    """Of a page: file -> content, of every block whose first line is a comment that names one."""
    found = {}
    for _, block in BLOCK.findall(text):
        first, _, rest = block.partition("\n")
        if named := re.fullmatch(r"# (\S+/\S+\.(?:py|yaml))", first):
            found[named[1]] = rest
    return found


def commands(text: str) -> list[list[str]]:
    """The words of every `$ advanchor ...` of a page."""
    lines = [line for kind, block in BLOCK.findall(text) if kind == "console" for line in block.splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith("$ advanchor ")]


def measured(words: list[str]) -> list[str]:
    """Hit rates alone, unless the page says otherwise: the judge's CLIP takes seconds to load."""
    return [] if any(word.startswith("metric=") for word in words) else ["metric=[erasure]"]


@pytest.mark.slow
def test_every_example_of_what_can_be_added_runs_as_its_page_says(tmp_path: Path) -> None:
    """In a copy of the package with all that docs/adding.md adds."""
    from PIL import Image

    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copytree(ROOT / "advanchor", tmp_path / "advanchor", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    (tmp_path / "advanchor/assets").symlink_to(ROOT / "advanchor/assets")
    for name, content in files(ADDING).items():
        assert not (tmp_path / name).exists(), f"{name} would overwrite one of ours"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    for name, colour in (("acme", "red"), ("globex", "blue")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20), colour).save(tmp_path / "pictures" / name / "0.png")
    asked = [(section, words) for section, text in SECTIONS.items() for words in commands(text)]
    assert {section for section, _ in asked} == set(SECTIONS), "a section without a command proves nothing"
    modules = [name.removesuffix(".py").replace("/", ".") for name in files(ADDING) if name.endswith(".py")]
    work = {"modules": modules, "commands": [[*words, *SMALL, *measured(words)] for _, words in asked]}
    process = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(work),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    for (section, words), line in zip(asked, process.stdout.splitlines(), strict=True):
        answer = json.loads(line)
        assert answer["wrong"] is None, f"{section}: {words}: {answer['wrong']}"
        assert re.search(r"found ↓|erasure/hit", answer["printed"]), f"{section}: {answer['printed']}"


def test_the_examples_read_as_the_code_of_the_package_does(tmp_path: Path) -> None:
    for name, content in files(ADDING).items():
        if name.endswith(".py"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
    ruff = [sys.executable, "-m", "ruff"]
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run([*ruff, *check, f"--config={ROOT / 'pyproject.toml'}", tmp_path], capture_output=True)
        assert done.returncode == 0, done.stdout.decode()


def test_the_page_of_the_architecture_names_every_file_and_no_other() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    there = {
        str(file.relative_to(ROOT))
        for folder, kind in (("advanchor", "*.py"), ("scripts", "*.py"), ("tests", "*.py"), ("docs", "*.md"))
        for file in (ROOT / folder).rglob(kind)
        if file.stat().st_size and "_build" not in file.parts
    }
    assert named >= there, f"missing in docs/architecture.md: {sorted(there - named)}"
    assert all((ROOT / name).exists() for name in named), sorted(n for n in named if not (ROOT / n).exists())


def test_the_picture_of_the_architecture_is_that_of_the_imports() -> None:
    assert (ROOT / "docs/architecture.svg").read_text() == script("architecture").picture(), (
        "run scripts/architecture.py"
    )


def test_the_readme_is_read_in_one_sitting_and_every_link_of_a_page_leads_somewhere() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/results").glob("*.md")):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            target = link.partition("#")[0]
            if target and "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {link}"


def test_the_public_api_says_that_it_is_typed() -> None:
    assert (ROOT / "advanchor/py.typed").exists()
