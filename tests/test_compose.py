"""A config is what Hydra makes of the overrides, however much of it was at hand already."""

import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from advanchor.compose import composed, names
from advanchor.compose.by_hydra import by_hydra
from advanchor.compose.composed import made, parts, settings
from advanchor.compose.sweeps import compose_all, expand
from advanchor.core import BadInput

TAILS = (
    ["seed=7"],
    ["sample.steps=3", "method.name=x", "root=/tmp/a b", "anchor.name='${study}'"],
    ["seed=1", "+concept.colour=red", "seed=2", "sample.keep=5"],
    ["concept.templates=['a {}', \"the {}'s\"]", "table.rows=[seed]", "++sample.steps=4", "sample.erase=1"],
    ["~concept.keep", "+concept.keep={wolf: a wolf}", "method.name=5", "judge=none", "batch=2"],
    ["metric=[erasure,fid]", "seed=0", "tracker=none", "model=random", "metric.fid.name=x"],
    ["concept={superclass: a thing}", "concept.superclass=an animal", "seed=null"],
    ["sample={steps: 3}", "sample.steps=4", "study='${concept.name}'"],
)


def same(one: DictConfig, other: DictConfig) -> bool:
    """Values, references, their order, and what may be changed."""
    plain, others = (OmegaConf.to_container(cfg, resolve=False) for cfg in (one, other))
    return repr(plain) == repr(others) and one._metadata.flags == other._metadata.flags


def whole(overrides: list[str]) -> DictConfig:
    cfg = by_hydra(overrides)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    OmegaConf.set_struct(cfg, True)
    return cfg


@pytest.mark.parametrize("tail", TAILS, ids=" ".join)
@pytest.mark.parametrize("head", [[], ["model=random", "method=mace", "concept=emoji_set/fox"]], ids=" ".join)
def test_replacing_values_gives_what_composing_anew_gives(head: list[str], tail: list[str]) -> None:
    head = [line for line in head if line.partition("=")[0] not in {one.partition("=")[0] for one in tail}]
    for overrides in (head + tail, tail + head):
        assert same(settings(overrides), whole(overrides))


USUAL = ("base", "smoke", "methods", "front", "robustness", "table_sd14_styles")


@pytest.mark.usefixtures("references_there")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in USUAL else pytest.mark.slow) for n in names("experiment")]
)
def test_every_experiment_is_what_hydra_composes(name: str) -> None:
    runs = expand([f"experiment={name}", "seed=3", "root=/tmp/x", "sample.steps=2"])
    for run in (runs[0], runs[-1]):
        (cfg,) = compose_all([run])
        assert same(cfg, whole(run))


def test_what_one_config_is_changed_to_no_other_config_is() -> None:
    first = settings(["model=random", "seed=1"])
    first.seed, first.concept.templates[0] = 9, "x {}"
    second = settings(["model=random"])
    assert second.seed == 0
    assert second.concept.templates[0] != "x {}"
    assert composed(["model=random"]).hydra.mode == composed(["model=random"]).hydra.mode


def test_values_alone_make_hydra_compose_nothing_anew() -> None:
    settings(["model=random"])
    before = made.cache_info().misses
    for seed in range(20):
        assert settings(["model=random", f"seed={seed}", "sample.steps=3"]).seed == seed
    assert made.cache_info().misses == before


def test_the_options_of_a_large_sweep_are_composed_once_however_often_it_is_gone_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    composed_now: list[tuple[str, ...]] = []

    def instead(overrides: tuple[str, ...]) -> DictConfig:
        composed_now.append(overrides)
        return OmegaConf.create({"hydra": {}})

    monkeypatch.setattr(sys.modules["advanchor.compose.composed"], "by_hydra", instead)
    made.cache_clear()
    combinations = [(f"method={i}", f"anchor={k}") for i in range(20) for k in range(20)]
    for one in [*combinations, *combinations]:
        made(one, ())
    assert composed_now == combinations


def test_a_config_of_ones_own_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "experiment/mine.yaml"
    file.parent.mkdir()
    for seed in (1, 2):
        file.write_text(f"# @package _global_\nseed: {seed}\n")
        assert settings([f"config_dir={tmp_path}", "model=random", "experiment=mine"]).seed == seed


@pytest.mark.parametrize(
    ("line", "replaces"),
    [
        *((line, True) for line in ("seed=1", "sample.steps=2", "concept.templates=[a,b]")),
        *((line, False) for line in ("method=ac", "+a=1", "++seed=1", "~seed", "concept={a: 1}", "seed=1,2")),
        *((line, False) for line in ("hydra.mode=MULTIRUN", "hydra/launcher=basic", "metric@x=[fid]")),
    ],
)
def test_only_what_replaces_a_value_is_put_in_afterwards(line: str, replaces: bool) -> None:
    assert (line in parts([line])[1]) is replaces


def test_a_mistake_is_said_in_the_same_words_wherever_it_is_found() -> None:
    said = []
    for overrides in (["model=random", "method.stepps=1"], ["method.stepps=1", "model=random", "~concept.keep"]):
        with pytest.raises(BadInput) as error:
            settings(overrides)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert "did you mean method.steps?" in said[0]
