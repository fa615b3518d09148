"""What the frozen model draws is drawn once for all runs, and no method is told the name of what is measured if a
concept says so.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from advanchor.anchors.words import Empty, Superclass
from advanchor.build import build
from advanchor.compose import compose
from advanchor.concept import kept
from advanchor.models.latent_diffusion import LatentDiffusion
from advanchor.training.closeness import STEPS
from advanchor.training.pools import Pool, Trajectories


def test_runs_that_look_at_the_same_pool_draw_it_once_and_another_seed_draws_its_own(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    latents = LatentDiffusion.latents

    def counted(self: Any, texts: Any, seeds: Any, **settings: Any) -> Any:
        if settings["steps"] != STEPS:  # of the method; how close an anchor is, is seen on images of its own
            drawn.extend(s for s in seeds if s >= 1_000_000)
        return latents(self, texts, seeds, **settings)

    monkeypatch.setattr(LatentDiffusion, "latents", counted)
    tiny("anchor=superclass", "metric=[]")
    once = list(drawn)
    assert once
    tiny("anchor=empty", "metric=[]")
    tiny("anchor=adversarial", "method.lr=1e-3", "metric=[]")
    assert drawn == once
    tiny("anchor=superclass", "seed=1", "metric=[]")
    assert len(drawn) == 2 * len(once)
    assert not list((tmp_path / "store" / "edits").rglob("*pool*"))


def test_a_shelf_tells_apart_whatever_decides_a_pool(model: Any, concept: Any, tmp_path: Path) -> None:
    def draw(**settings: Any) -> Any:
        return Pool.drawn(
            model, concept, **{"count": 2, "seed": 0, "folder": tmp_path, "steps": 2, "guidance": 2.0, **settings}
        ).latents

    plain = draw()
    superclass, empty = (a.start(model, concept, 0) for a in (Superclass(name="superclass"), Empty(name="empty")))
    others = [
        draw(seed=1),
        draw(steps=3),
        draw(guidance=3.0),
        draw(phrase="a car"),
        draw(sentences=["a fox"]),
        draw(under=superclass),
        draw(under=empty),
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate([plain, *others]) for b in others[i:])
    assert torch.equal(draw(), plain)
    runs = Trajectories.drawn(model, concept, 2, 0, tmp_path, steps=2, guidance=2.0, phrase=concept.phrase)
    assert runs.latents.shape[:2] == (2, 2)  # not the images of the same sentences and seeds


def test_the_shelf_of_a_run_is_that_of_its_model(tiny: Any, tmp_path: Path) -> None:
    tiny("metric=[]")
    tiny("metric=[]", "model.seed=1")
    assert len(list((tmp_path / "store" / "latents").iterdir())) == 2


@pytest.mark.parametrize("method", ["uce", "mace", "sa", "salun"])
def test_methods_that_preserve_named_concepts_are_told_those_of_preserve_and_else_those_of_keep(
    method: str, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose(
        [
            "model=random",
            "concept=emoji_set/fox",
            f"method={method}",
            "anchor=superclass",
            *(["method.preserve_scale=1"] if method == "mace" else []),
        ]
    )
    concept = build(cfg.concept, "concept")
    assert not set(concept.told) & (set(concept.keep) | set(concept.keep_cross) | {concept.name})
    assert all(any(phrase in text for phrase in concept.preserve.values()) for text in kept(concept))
    asked: list[str] = []
    encode = LatentDiffusion.encode

    def listen(self: Any, texts: Any, *rest: Any, **more: Any) -> Any:
        asked.extend(texts)
        return encode(self, texts, *rest, **more)

    monkeypatch.setattr(LatentDiffusion, "encode", listen)
    target = build(cfg.anchor, "anchor").start(model, concept, 0)
    build(cfg.method, "method").erase(model, [target], 0, tmp_path, lambda i, **s: None)
    assert any("a lion" in text for text in asked)
    assert not [text for text in asked for name in concept.keep if name != concept.name and f" {name}" in text]
    other = build(compose(["model=random", "concept=emoji/fox"]).concept, "concept")
    assert set(other.told) == set(other.keep)
