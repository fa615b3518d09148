"""The package's modules stand on each other in one direction."""

import ast
from functools import cache
from pathlib import Path

import pytest

from advanchor.provenance import SOURCES

# The lowest first. A module may import what is in its own layer or below, for type checking and inside functions too.
LAYERS = (
    ("core", "hub", "intervals", "lazy", "provenance", "references", "torchvision_ops", "verbs"),
    ("store",),
    ("identity", "ledger", "machine"),
    ("trails",),
    ("naming", "prompts", "units", "concept"),
    ("images",),
    ("protocols",),
    ("models", "judges", "trackers"),
    ("anchors", "attacks", "exchange"),
    ("training",),
    ("methods", "metrics"),
    ("stamps", "criteria"),
    ("attacking", "build", "finding", "erasing", "grids", "report", "shown", "gallery", "results.progress"),
    ("run",),
    ("stages",),
    ("compose",),
    ("results",),
    ("audit",),
    ("commands",),
    ("cli",),
)
# Neither the package's front door, which opens every room, nor the empty ones of its rooms.
MODULES = sorted(name for name, source in SOURCES.items() if source and name != "advanchor")


@cache
def imported(module: str) -> set[str]:
    """The package's modules that a module names in an import anywhere."""
    names = set()
    for node in ast.walk(ast.parse(SOURCES[module])):
        if isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import: write it out"
            names |= {str(node.module), *(f"{node.module}.{one.name}" for one in node.names)}
    return names & set(MODULES) - {module}


def layer(module: str) -> int:
    """The layer that names the module, or the most of its path."""
    name, fits = module.removeprefix("advanchor."), []
    for height, modules in enumerate(LAYERS):
        fits += [(len(one), height) for one in modules if f"{name}.".startswith(f"{one}.")]
    assert fits, f"{module} is in no layer: add it to LAYERS"
    return max(fits)[1]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_nothing_from_a_layer_above_its_own(module: str) -> None:
    assert [other for other in sorted(imported(module)) if layer(other) > layer(module)] == []


def test_no_imports_make_a_circle() -> None:
    settled: set[str] = set()
    while ready := [module for module in MODULES if module not in settled and imported(module) <= settled]:
        settled.update(ready)
    assert sorted(set(MODULES) - settled) == []


def test_every_layer_names_a_room_that_is_there() -> None:
    here = Path(__file__).parents[1] / "advanchor"
    for name in (one.replace(".", "/") for modules in LAYERS for one in modules):
        assert (here / name).is_dir() or (here / f"{name}.py").is_file(), name
