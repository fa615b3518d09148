"""Training the emoji world: what a killed stage resumes to, what captions are true of, and what is held out."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import script

from advanchor.build import build
from advanchor.compose import compose


@pytest.fixture(scope="module")
def program() -> Any:
    return script("train_emoji")


def test_a_killed_training_resumes_to_the_bits_of_an_undisturbed_one(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "CHECKPOINT_SECONDS", 0.0)

    def run(folder: Path, die_at: int | None) -> dict[str, Any]:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))

        def loss(step: int) -> Any:
            if step == die_at:
                raise KeyboardInterrupt
            return net(torch.randn(8, 3, generator=torch.Generator().manual_seed(step))).square().mean()

        return {
            k: v.clone()
            for k, v in program.train("net", net, loss, folder, steps=9, lr=1e-2, ema=0.9).state_dict().items()
        }

    undisturbed = run(tmp_path / "a", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", 5)
    resumed = run(tmp_path / "b", None)
    assert all(torch.equal(undisturbed[k], resumed[k]) for k in undisturbed)


def test_a_batch_depends_on_its_step_alone_and_never_holds_a_held_out_pair(program: Any) -> None:
    held = {
        (program.STYLES.index(s), program.OBJECTS.index(o))
        for s, names in program.TAXONOMY["held_out"].items()
        for o in names
    }
    pairs = np.array([(s, o) for s in range(8) for o in range(len(program.OBJECTS)) if (s, o) not in held])
    world = program.World(torch.zeros(1), pairs, 0)
    for step in range(20):
        drawn = world.batch(step, 64, 3)[0]
        assert (drawn == world.batch(step, 64, 3)[0]).all()
        assert not held & {tuple(p) for p in drawn.tolist()}
        assert len({tuple(p) for p in drawn.tolist()}) == 64


def test_the_second_detector_is_trained_on_another_split_of_the_pairs(program: Any) -> None:
    seen, other = ({tuple(pair) for pair in pairs.tolist()} for pairs in (program.seen_pairs(), program.other_pairs(0)))
    assert len(seen) == 706
    assert len(other - seen) == 78  # the held-out pairs of all other stages
    left = seen - other
    assert sorted(style for style, _ in left) == sorted([*range(8)] * program.SPLIT)
    assert len({thing for _, thing in left}) == len(left)


def test_junk_is_the_same_for_the_same_seed_and_each_detector_is_kept_from_some_kinds(program: Any) -> None:
    junk = sys.modules["emoji_junk"]
    images = torch.randint(256, (8, len(program.OBJECTS), 1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = images.byte()
    for kind in ("blobs", "averages", "blends", *junk.KEPT_BACK):
        one, again, other = (junk.make(images, program.seen_pairs(), kind, 3, seed) for seed in (1, 1, 2))
        assert one.shape == (3, 3, 32, 32)
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
    assert all(set(junk.KEPT_BACK).isdisjoint(kinds) for kinds in junk.TRAINED.values())
    assert set(junk.TRAINED["resnet"]) != set(junk.TRAINED["vit"])


def test_a_caption_is_true_of_its_own_image_and_says_what_it_is_true_of(program: Any) -> None:
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(600):
        style, thing = int(rng.integers(8)), int(rng.integers(len(program.OBJECTS)))
        caption = program.draw_caption(style, thing, rng, empty=0.1)
        assert caption.true_of[style, thing]
        named = [s for s in program.STYLES if f" {s} " in f" {caption.text} "]
        assert named == ([program.STYLES[style]] if caption.true_of.any(1).sum() == 1 else [])
        kinds.add((int(caption.true_of.any(1).sum()), caption.text == ""))
    assert kinds == {(1, False), (8, False), (8, True)}


def test_the_taxonomy_is_what_it_promises(program: Any) -> None:
    objects, held = program.TAXONOMY["objects"], program.TAXONOMY["held_out"]
    assert len(program.STYLES) == 8
    assert len(objects) >= 96
    for name, entry in objects.items():
        assert len(entry["siblings"]) == 2
        assert {*entry["siblings"], entry["unrelated"]} <= set(objects) - {name}
        assert objects[entry["unrelated"]]["superclass"] != entry["superclass"]
        assert 1 <= len(entry["synonyms"]) <= 2
    share = sum(map(len, held.values())) / (8 * len(objects))
    assert 0.09 < share < 0.11
    assert {n for names in held.values() for n in names} <= set(objects)


def test_the_neighbours_of_every_concept_are_those_that_the_rule_finds(program: Any) -> None:
    import neighbours

    model = build(compose([]).model, "model").open("cpu")
    named = neighbours.concepts()
    assert len(named) > 30
    for name, file in named.items():
        found = {other: neighbours.phrase(other) for other in neighbours.neighbours(model, name)}
        assert yaml.safe_load(file.read_text())["near"] == found, "run scripts/neighbours.py"
        assert name not in found
        assert len(found) == (neighbours.OF_STYLES if name in program.STYLES else neighbours.OBJECTS)
    near_fox = neighbours.neighbours(model, "fox")
    animals = [program.TAXONOMY["objects"][other]["superclass"] == "animal" for other in near_fox]
    assert animals[: neighbours.KIN] == [True] * neighbours.KIN
    assert "wolf" in near_fox[:2]
    assert not all(animals)
