"""Whatever a user writes, and whatever becomes of a file: the right numbers, or one sentence."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

import advanchor
from advanchor.compose import compose
from advanchor.core import BadInput


def leaves(node: Any, path: str = "") -> list[str]:
    """The dotted names of all settings of a config, groups included."""
    found = [path] if path else []
    if isinstance(node, DictConfig):
        for name in node:
            found += leaves(node._get_node(name), f"{path}.{name}" if path else str(name))
    return found


CONFIGS = (
    ["model=random"],
    ["model=random", "method=mace", "anchor=learned"],
    ["model=random", "method=esd", "anchor=noise", "tracker=jsonl"],
    ["concept=emoji/fox_and_car", "metric=[kid,cmmd,precision_recall]"],
    ["model=sd14", "model.path=bundled", "judge=sd"],
)
RESOLVED = [OmegaConf.create(OmegaConf.to_container(compose(overrides), resolve=True)) for overrides in CONFIGS]
SETTINGS = sorted({name for config in RESOLVED for name in leaves(config)})
ODD = (
    "null", "true", "nan", "inf", "-inf", "''", "0", "-1", "1e400", "1e-400", "[]", "{}", "[null]", "{a: 1}", "[1,2]",
    "???", "${seed}", "${nope}", "/", "../..", "'  '", "a{}b", "{name}", "'{}'", "'{} {}'", "'<script>'", "'\\n'",
    "'\\x00'", "müller", "10000000000000000000000", "'1'", "1.0", "0x10", "1_0", "a b", "a=b", "it's", "~/x", "$x",
    "x,y", "a[0]", "glob(*)", "choice(1,2)", "range(3)", "@x", "%", "#", "\t", ":", "(", ")", "]",
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(ODD),
    st.integers().map(str),
    st.floats().map(str),
    st.text("abc{}'/.~=,[] $", max_size=6).map(lambda text: "'" + text.replace("'", "") + "'"),
)
SEEDED = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def answer(overrides: list[str]) -> str:
    """What is said of overrides, or "ok"."""
    try:
        compose(overrides)
    except BadInput as error:
        return str(error)
    return "ok"


@settings(SEEDED, max_examples=120)
@given(st.sampled_from(SETTINGS), VALUES, st.sampled_from(["", "", "", "+", "++"]))
def test_any_value_of_any_setting_is_taken_or_refused_in_one_sentence(name: str, value: str, prefix: str) -> None:
    said = answer([f"{prefix}{name}={value}"])
    assert said.strip()
    assert "\n" not in said
    assert len(said) < 2500  # the list of all concepts


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("whole")
    return root, advanchor.erase(*TINY, f"root={root}", "metric=[erasure,clip,anchor]")


# What else of a finished run is deleted, so that what remains is read again.
GONE = {"nothing": (), "run": ("*/result.json",), "edits": ("*/*", "store/edits"), "images": ("*/*", "store/samples")}


@settings(SEEDED, max_examples=40)
@given(st.randoms(use_true_random=False), st.sampled_from(sorted(GONE)))
def test_a_flipped_byte_anywhere_changes_no_number(whole: tuple[Path, dict[str, Any]], chance: Any, gone: str) -> None:
    root, first = whole
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(root, Path(place) / "out"))
        victim = chance.choice(sorted(f for f in copy.rglob("*") if f.is_file() and f.stat().st_size))
        content = bytearray(victim.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        victim.write_bytes(content)
        for pattern in GONE[gone]:
            for path in copy.glob(pattern):
                if pattern.startswith("store") or path.relative_to(copy).parts[0] != "store":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            scores = advanchor.erase(*TINY, f"root={copy}", "metric=[erasure,clip,anchor]")["scores"]
        except BadInput as error:
            scores = str(error)
        assert scores == first["scores"] or "damaged: delete the folder" in scores
