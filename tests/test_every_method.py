"""What must hold for every method in conf/method, with every anchor in conf/anchor, on one concept and on several."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_conf import options

from advanchor.anchors.similarity import similarity
from advanchor.build import build, sample_of
from advanchor.compose import CONF, compose
from advanchor.core import BadInput
from advanchor.protocols import Step
from advanchor.training import loop as training
from advanchor.training.pools import Pool

METHODS = [m for m in options("method") if m != "load"]  # which takes an edit as it is: test_exchange.py
AT_INFERENCE = ("none", "negative_prompt", "sld_medium", "sld_strong", "sld_max")
CLOSED = ("uce", "uce_expanded")
TRAINED = [m for m in METHODS if m not in (*AT_INFERENCE, *CLOSED)]
NO_ANCHOR = (*AT_INFERENCE[1:], "fmn")  # push away from the concept itself


def erase(
    model: Any,
    folder: Path,
    method: str,
    anchor: str = "published",
    concept: str = "emoji/butterfly",
    log: Any = lambda i, **s: None,
    seen: Any = None,
    **changes: Any,
) -> Any:
    """The edit that a config makes on the random model; its anchors are appended to `seen`."""
    cfg = compose(
        [
            "model=random",
            f"method={method}",
            f"anchor={anchor}",
            f"concept={concept}",
            *(f"method.{k}={v}" for k, v in changes.items()),
        ]
    )
    targets = [build(cfg.anchor, "anchor").start(model, part, 0) for part in build(cfg.concept, "concept").parts]
    folder.mkdir(exist_ok=True)
    if seen is not None:
        seen += targets
    return build(cfg.method, "method").erase(model, targets, cfg.seed, folder, log)


def equal(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def usual(method: str, anchor: str) -> bool:
    """Every method with two anchors, every anchor in AC; the other pairs are marked slow."""
    return method == "ac" or anchor in ("published", "adversarial")


PAIRS = [pytest.param(m, a, marks=() if usual(m, a) else pytest.mark.slow) for m in METHODS for a in options("anchor")]


@pytest.mark.parametrize(("method", "anchor"), PAIRS)
def test_every_method_takes_every_anchor_or_refuses_in_one_sentence(
    method: str, anchor: str, model: Any, tmp_path: Path
) -> None:
    seen: list[Any] = []
    if method in NO_ANCHOR and anchor not in ("concept", "published"):
        with pytest.raises(BadInput, match="add anchor=concept"):
            erase(model, tmp_path, method, anchor)
        return
    edit = erase(model, tmp_path, method, anchor, seen=seen)
    assert all(tensor.isfinite().all() for tensor in edit.values())
    assert bool(edit) is (method != "none")
    assert -1.001 <= similarity(model, seen[0])["anchor/cosine_span"] <= 1.001


def test_published_is_a_name_for_the_anchor_that_a_method_was_published_with(tmp_path: Path) -> None:
    published = (Path(CONF) / "anchor_of").glob("published_*.yaml")
    assert {file.stem.removeprefix("published_") for file in published} <= {*METHODS, "load"}
    assert compose(["method=esd", "anchor=published"]).anchor == compose(["method=esd", "anchor=empty"]).anchor
    (tmp_path / "method").mkdir()
    (tmp_path / "method/another.yaml").write_text("defaults: [esd, _self_]\nname: another\n")
    with pytest.raises(BadInput, match=r"add conf/anchor_of/published_another\.yaml, or name an anchor"):
        compose(["method=another", "anchor=published", f"config_dir={tmp_path}"])


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits_and_the_frozen_model_stays(method: str, model: Any, tmp_path: Path) -> None:
    before = {k: v.clone() for part in (model.network, model.pipe.text_encoder) for k, v in part.state_dict().items()}
    first, again = (erase(model, tmp_path / name, method) for name in ("first", "again"))
    assert equal(first, again)
    assert all(
        torch.equal(before[k], v)
        for part in (model.network, model.pipe.text_encoder)
        for k, v in part.state_dict().items()
    )


# mace's closed forms edit without a step: see its own test
@pytest.mark.parametrize("method", [m for m in TRAINED if m != "mace"])
def test_without_steps_nothing_changes(method: str, model: Any, tmp_path: Path) -> None:
    edit = erase(model, tmp_path / "edit", method, steps=0)
    prompt = dict(texts=["a butterfly"], seeds=[1], steps=2, guidance=2.0)
    before = model.latents(**prompt)
    with model.edited(edit):
        assert torch.equal(model.latents(**prompt), before)


@pytest.mark.parametrize("scope", ["attn2.kv", "noxattn", "text_encoder"])
@pytest.mark.parametrize(
    "method",
    [m for m in TRAINED if "scope" in compose([f"method={m}", "anchor=published"]).method and not m.startswith("spm")],
)
def test_only_the_declared_scope_changes(method: str, scope: str, model: Any, tmp_path: Path) -> None:
    edit, frozen = erase(model, tmp_path / "edit", method, scope=scope), model.weights(scope)
    assert edit.keys() == frozen.keys()
    assert any(not torch.equal(edit[k], frozen[k]) for k in edit)
    before = model.latents(["a butterfly"], [1], steps=2, guidance=2.0)
    with model.edited(edit):
        assert not torch.equal(model.latents(["a butterfly"], [1], steps=2, guidance=2.0), before)
    assert torch.equal(model.latents(["a butterfly"], [1], steps=2, guidance=2.0), before)


@pytest.mark.parametrize("method", TRAINED)
def test_a_killed_training_resumes_to_the_same_bits(
    method: str, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = "concept" if method in NO_ANCHOR else "adversarial"
    undisturbed = erase(model, tmp_path / "undisturbed", method, anchor)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    class Killed(Exception): ...

    def kill_after(n: int) -> Any:
        calls = iter(range(n))

        def log(i: int, **scalars: float) -> None:
            if next(calls, None) is None:
                raise Killed

        return log

    for n in (0, 2):  # before anything is saved, then with two steps saved
        with pytest.raises(Killed):
            erase(model, tmp_path / "killed", method, anchor, log=kill_after(n))
    assert equal(erase(model, tmp_path / "killed", method, anchor), undisturbed)


def one_of(step: Step, i: int) -> Step:
    return Step(
        step.model,
        step.concept,
        step.x[i : i + 1],
        step.t[i : i + 1],
        step.templates[i : i + 1],
        None if step.truth is None else step.truth[i : i + 1],
    )


@pytest.mark.parametrize("method", ["ac", "ac_kumari", "esd", "spm", "salun", "sa", "fmn"])
def test_a_batch_of_four_is_four_of_one(method: str, model: Any, concept: Any, tmp_path: Path) -> None:
    """Means of single losses; Forget-Me-Not's norm adds up in squares."""
    four = Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0).step(0, 0, 4)
    method_ = build(compose(["model=random", f"method={method}", "anchor=published"]).method, "method")
    theta = {k: v * 1.1 for k, v in model.weights("attn2").items()}

    def loss(step: Step) -> float:
        e_a = model.encode(step.texts(concept.superclass))
        more: dict[str, tuple[Any, ...]] = {
            "spm": (theta, e_a, model.encode(step.texts("a dog"))), "salun": (step, theta, e_a), "fmn": (theta,),
        }  # fmt: skip
        if method == "sa":
            return float(
                replace(method_, lamb=0.0).loss(step, step, theta, {k: torch.zeros_like(v) for k, v in theta.items()})
            )
        return float(method_.loss(step, *more.get(method, (theta, e_a))))

    whole, single = loss(four), [loss(one_of(four, i)) for i in range(4)]
    combined = sum(v**2 for v in single) ** 0.5 if method == "fmn" else sum(single) / 4
    assert whole == pytest.approx(combined, rel=1e-4)


@pytest.mark.parametrize("method", ["sa", "salun", "mace"])
def test_a_method_that_preserves_refuses_a_concept_that_keeps_nothing_before_anything_is_drawn(
    method: str, model: Any, concept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["method.preserve_scale=1"] if method == "mace" else []
    cfg = compose(["model=random", f"method={method}", "anchor=adversarial", *more])
    built, lonely = build(cfg.method, "method"), replace(concept, keep={})
    built.suits(concept)
    with pytest.raises(BadInput, match="fill `keep`"):
        built.suits(lonely)
    monkeypatch.setattr(model, "_denoise", None)
    with pytest.raises(BadInput, match="fill `keep`"):
        built.erase(model, [build(cfg.anchor, "anchor").start(model, lonely, 0)], 0, tmp_path, lambda i, **s: None)
    assert not list(tmp_path.iterdir())


# --- several concepts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", AT_INFERENCE[1:])
def test_at_inference_several_concepts_are_one_list(method: str, model: Any, tmp_path: Path) -> None:
    edit = erase(model, tmp_path, method, concept="emoji/fox_and_car")
    (away,) = (tensor for name, tensor in edit.items() if name in ("guidance.negative", "guidance.safety"))
    assert torch.equal(away, model.encode(["a fox, a car"])[0])


@pytest.mark.parametrize("method", TRAINED)
def test_several_concepts_take_turns_and_each_gets_its_steps(method: str, model: Any, tmp_path: Path) -> None:
    losses: list[int] = []
    both = erase(
        model,
        tmp_path / "both",
        method,
        concept="emoji/fox_and_car",
        log=lambda i, **s: losses.append(i) if "train/loss" in s else None,
    )
    one = erase(model, tmp_path / "one", method, concept="emoji/fox")
    assert len(losses) == 2 * compose(["model=random", f"method={method}", "anchor=published"]).method.steps
    assert both.keys() == one.keys()
    assert not equal(both, one)


def test_uce_on_several_concepts_is_one_system_with_all_of_them(model: Any, tmp_path: Path) -> None:
    edit = erase(model, tmp_path / "edit", "uce", "superclass", "emoji/fox_and_car")

    def last(text: str) -> Any:
        return model.encode([text])[0, len(model.pipe.tokenizer(text).input_ids) - 2].double()[:, None]

    keep = {
        phrase
        for part in build(compose(["concept=emoji/fox_and_car"]).concept, "concept").parts
        for phrase in part.keep.values()
    }
    for name, got in edit.items():
        w = model.network.get_parameter(name).double()
        left, right = 0.5 * w, 0.5 * torch.eye(w.shape[1]).double()
        for phrase, goal in (("a fox", "an animal"), ("a car", "a vehicle"), *((p, p) for p in keep)):
            left, right = left + w @ last(goal) @ last(phrase).T, right + last(phrase) @ last(phrase).T
        assert torch.allclose(got, (left @ torch.inverse(right)).float(), atol=1e-5)


def test_a_run_on_several_concepts_reports_each_and_keeps_none_of_them(tmp_path: Path) -> None:
    from advanchor import erase as run

    overrides = [
        "experiment=smoke",
        "concept=emoji/fox_and_twemoji",
        "tracker=none",
        "sample.steps=1",
        "metric=[erasure,anchor]",
        f"root={tmp_path}",
    ]
    result = run(*overrides)
    scores = result["scores"]
    assert {"erasure/hit:fox", "erasure/hit:twemoji", "erasure/hit:fox@base"} <= scores.keys()
    assert scores["erasure/hit"]["n"] == scores["erasure/hit:fox"]["n"] + scores["erasure/hit:twemoji"]["n"]
    assert load_file(tmp_path / result["artifacts"]["edit"] / "anchor.safetensors").keys() == {"fox", "twemoji"}
    prompts = build(compose(overrides).concept, "concept").prompts(sample_of(compose(overrides)))
    assert not [p for p in prompts["keep"] if "fox" in p.text.split() or "twemoji" in p.text.split()]
    assert len({(p.text, p.seed, p.label) for p in prompts["keep"]}) == len(prompts["keep"])
    assert json.loads(next(tmp_path.glob("*/result.json")).read_text()) == result
    shutil.rmtree(tmp_path / "store")
