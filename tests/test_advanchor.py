"""The anchor and the erasing loss are the ones of the paper: the checks of an AdvAnchor implementation, each against
plain tensors.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TEMPLATES
from safetensors.torch import load_file
from torch import Tensor

from advanchor.anchors.adversarial import Adversarial
from advanchor.anchors.search import Search
from advanchor.anchors.similarity import similarity
from advanchor.anchors.slot import Slot
from advanchor.anchors.words import Empty, Same, Superclass
from advanchor.core import BadInput
from advanchor.methods.ac import AblatingConcepts
from advanchor.protocols import Step
from advanchor.training.loop import descend
from advanchor.training.pools import Pool

ANCHOR = Adversarial(name="adversarial", loss="direction", schedule="alternating", place="output", steps=5, lr=0.01)
METHOD = AblatingConcepts(
    name="ac", scope="attn2", steps=3, lr=1e-3, batch=2, preserve=10.0, pool=4, pool_steps=2, pool_guidance=2.0
)


def texts(phrase: str) -> list[str]:
    return [t.format(phrase) for t in TEMPLATES]


def predict(model: Any, step: Step, cond: Tensor) -> Tensor:
    """The frozen prediction without the project's own `eps`."""
    return model.network(step.x, step.t, encoder_hidden_states=cond, return_dict=False)[0]


def encode(model: Any, phrases: list[str]) -> Tensor:
    ids = model.pipe.tokenizer(phrases, padding="max_length", return_tensors="pt").input_ids
    return model.pipe.text_encoder(input_ids=ids).last_hidden_state


def adversary(model: Any, concept: Any, **changes: Any) -> Search:
    return replace(ANCHOR, **changes).start(model, concept, seed=0)


# --- the anchor's losses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["product", "direction"])
@pytest.mark.parametrize("place", ["output", "input"])
def test_loss_and_gradient_equal_the_formula(model: Any, concept: Any, step: Step, loss: str, place: str) -> None:
    a = adversary(model, concept, loss=loss, place=place, init=0.3)
    delta = a.parameter.detach().clone().requires_grad_()
    span = model.span("a butterfly", "butterfly")
    assert len(span) == len(delta) > 1
    starts = [1, 4, 4]  # of "a butterfly" in the three sentences, after the start token
    ids = model.pipe.tokenizer(texts("a butterfly"), padding="max_length", return_tensors="pt").input_ids
    shift = torch.zeros(3, ids.shape[1], delta.shape[1])
    for row, start in enumerate(starts):
        shift[row, start + 1 : start + 1 + len(delta)] = delta
    if place == "output":
        e_a = encode(model, texts("a butterfly")) + shift
    else:
        handle = model.pipe.text_encoder.get_input_embeddings().register_forward_hook(lambda m, i, out: out + shift)
        e_a = encode(model, texts("a butterfly"))
        handle.remove()
    n_a = predict(model, step, e_a)
    n_c, n_b = (
        predict(model, step, encode(model, texts("a butterfly"))),
        predict(model, step, encode(model, texts("a bug"))),
    )
    expected = (n_a * n_c).mean() if loss == "product" else ((n_a - n_b) * (n_c - n_b)).mean()
    expected.backward()
    got = a.loss(step)
    (gradient,) = torch.autograd.grad(got, a.parameter)
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(gradient, delta.grad, atol=1e-6)  # type: ignore[arg-type]
    assert gradient.abs().sum() > 0


def test_without_a_perturbation_the_direction_loss_is_the_squared_distance_to_the_superclass(
    model: Any, concept: Any, step: Step
) -> None:
    a = adversary(model, concept, init=0.0)
    n_c, n_b = step.frozen(concept.phrase), step.frozen(concept.superclass)
    assert a.loss(step).item() == pytest.approx(((n_c - n_b) ** 2).mean().item(), abs=1e-9)
    assert a.loss(step).item() > 0


def test_the_loss_falls_and_only_the_concepts_tokens_move(model: Any, concept: Any, step: Step) -> None:
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    a = adversary(model, concept)
    start = a.loss(step).item()
    a.descend(step, 20)
    assert a.loss(step).item() < start
    moved = (a.condition(step.templates) - model.encode(step.texts(concept.phrase))).abs().sum(-1) > 0
    for row, text in zip(moved, step.texts(concept.phrase), strict=True):
        assert row.nonzero().flatten().tolist() == model.span(text, concept.name)
    assert all(torch.equal(before[k], v) for k, v in model.network.state_dict().items())


def test_a_batch_is_done_as_soon_as_its_loss_is_below_tau(model: Any, concept: Any, step: Step) -> None:
    a = adversary(model, concept, stop=1e9)
    a.descend(step, 5)
    assert a.taken == 0


def test_a_bound_holds_and_without_one_the_norm_is_free(model: Any, concept: Any, step: Step) -> None:
    bound, free = adversary(model, concept, bound=0.01, lr=1.0), adversary(model, concept, lr=1.0)
    for a in (bound, free):
        a.descend(step, 5)
    span = model.span("a butterfly", "butterfly")
    norm = model.encode(["a butterfly"])[0, span].norm()
    assert bound.parameter.detach().norm() <= 0.01 * norm * 1.0001
    assert free.parameter.detach().norm() > 0.01 * norm


def test_a_loss_that_is_not_finite_stops_with_the_remedy(model: Any, concept: Any, step: Step) -> None:
    a = adversary(model, concept)
    with torch.no_grad():
        a.parameter.fill_(float("nan"))
    with pytest.raises(BadInput, match=r"lower anchor\.lr"):
        a.descend(step, 1)


# --- schedules --------------------------------------------------------------------------------------------------


def test_alternating_equals_sequential_on_one_shared_batch(model: Any, concept: Any, step: Step) -> None:
    one, other = adversary(model, concept), adversary(model, concept, schedule="sequential")
    other.rehearse(step)
    assert torch.equal(one.embed(step), other.embed(step))


@pytest.mark.parametrize(
    ("schedule", "rehearsals", "updates"), [("alternating", 0, 12), ("sequential", 3, 12), ("cyclical", 12, 12)]
)
def test_each_schedule_makes_its_updates_in_its_order(
    model: Any, concept: Any, tmp_path: Path, schedule: str, rehearsals: int, updates: int
) -> None:
    seen = []
    anchor = replace(ANCHOR, steps=4, schedule=schedule, stop=-1e9)
    target = anchor.start(model, concept, 0)
    METHOD.erase(model, [target], 0, tmp_path, lambda i, **s: seen.append(s))
    assert [("train/loss" in s) for s in seen] == [False] * rehearsals + [True] * 3
    assert target.report()["anchor/steps"] == updates
    counts = [s["anchor/steps"] for s in seen]
    assert counts == (
        [4, 8, 12]
        if schedule == "alternating"
        else [4, 8, 12, 12, 12, 12]
        if schedule == "sequential"
        else [*range(1, 13), 12, 12, 12]
    )


def test_the_weights_see_fresh_noise_after_a_rehearsal(model: Any, concept: Any, tmp_path: Path) -> None:
    pool = Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0)
    assert not torch.equal(pool.step(0, 0, 2).x, pool.step(0, 1, 2).x)
    assert torch.equal(pool.step(0, 0, 2).x, pool.step(0, 0, 2).x)


def test_every_image_of_the_pool_is_used_once_in_each_pass(model: Any, concept: Any) -> None:
    pool = Pool(model, concept, torch.zeros(6, 4, 8, 8), tuple("abcdef"), 0)
    for first in (0, 3):  # two passes of three batches
        assert sorted(t for i in range(first, first + 3) for t in pool.step(i, 0, 2).templates) == list("abcdef")
    assert [t for i in range(3) for t in pool.step(i, 0, 2).templates] != [
        t for i in range(3, 6) for t in pool.step(i, 0, 2).templates
    ]
    over = [t for i in range(3) for t in pool.step(i, 0, 4).templates]  # batches that straddle the end of a pass
    assert sorted(over) == sorted("abcdef" * 2)


# --- the erasing loss -------------------------------------------------------------------------------------------


def test_the_erasing_loss_and_its_gradient_equal_the_formula(model: Any, concept: Any, step: Step) -> None:
    e_a = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(1))
    theta = {k: (v * 1.1).requires_grad_() for k, v in model.weights("attn2").items()}
    got = METHOD.loss(step, theta, e_a)
    gradient = torch.autograd.grad(got, list(theta.values()))
    with torch.no_grad():
        n_a, n_b = predict(model, step, e_a), predict(model, step, encode(model, texts("a bug")))
    with model.edited(theta):
        for name in theta:
            model.network.get_parameter(name).requires_grad_()
        s_c, s_b = (
            predict(model, step, encode(model, texts("a butterfly"))),
            predict(model, step, encode(model, texts("a bug"))),
        )
        expected = ((s_c - n_a) ** 2).mean() + 10 * ((s_b - n_b) ** 2).mean()
        reference = torch.autograd.grad(expected, [model.network.get_parameter(name) for name in theta])
        model.network.requires_grad_(False)
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradient, reference, strict=True))


def test_at_the_frozen_weights_the_superclass_term_is_zero(model: Any, concept: Any, step: Step) -> None:
    theta, e_a = model.weights("attn2"), model.encode(texts("a car"))
    assert METHOD.loss(step, theta, e_a) == replace(METHOD, preserve=0.0).loss(step, theta, e_a)
    expected = (
        (
            predict(model, step, encode(model, texts("a butterfly")))
            - predict(model, step, encode(model, texts("a car")))
        )
        .square()
        .mean()
    )
    assert METHOD.loss(step, theta, e_a).item() == pytest.approx(expected.item(), abs=1e-7)


def test_three_steps_equal_plain_adam_on_the_formula(model: Any, concept: Any, tmp_path: Path) -> None:
    edit = METHOD.erase(
        model, [Superclass(name="superclass").start(model, concept, 0)], 0, tmp_path, lambda i, **s: None
    )
    pool = Pool(
        model,
        concept,
        load_file(next(tmp_path.glob("butterfly-*-pool-*/*.safetensors")))["latents"],
        concept.templates[:4],
        0,
    )
    theta = {k: v.clone().requires_grad_() for k, v in model.weights("attn2").items()}
    adam = torch.optim.Adam(theta.values(), 1e-3)
    for i in range(3):
        s = pool.step(i, 0, 2)
        goal = s.frozen(concept.superclass)
        loss = ((model.predict(s.x, s.t, model.encode(s.texts(concept.phrase)), theta) - goal) ** 2).mean()
        loss = (
            loss + 10 * ((model.predict(s.x, s.t, model.encode(s.texts(concept.superclass)), theta) - goal) ** 2).mean()
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert all(torch.allclose(edit[k], theta[k], atol=1e-6) for k in theta)


@pytest.mark.parametrize("anchor", [ANCHOR, Superclass(name="superclass"), Empty(name="empty")])
def test_only_the_declared_scope_changes_and_the_frozen_network_does_not(
    model: Any, concept: Any, anchor: Any, tmp_path: Path
) -> None:
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    edit = METHOD.erase(model, [anchor.start(model, concept, 0)], 0, tmp_path, lambda i, **s: None)
    assert set(edit) == {k for k in before if ".attn2." in k}
    assert any(not torch.equal(edit[k], before[k]) for k in edit)
    assert all(torch.equal(before[k], v) for k, v in model.network.state_dict().items())


def test_zero_steps_and_the_concept_as_its_own_anchor_change_nothing(model: Any, concept: Any, tmp_path: Path) -> None:
    for i, (method, anchor) in enumerate([(replace(METHOD, steps=0), ANCHOR), (METHOD, Same(name="concept"))]):
        (tmp_path / str(i)).mkdir()
        edit = method.erase(model, [anchor.start(model, concept, 0)], 0, tmp_path / str(i), lambda i, **s: None)
        assert all(torch.equal(v, model.weights("attn2")[k]) for k, v in edit.items())


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(model: Any, concept: Any, tmp_path: Path) -> None:
    edits = []
    for i, seed in enumerate((0, 0, 1)):
        (tmp_path / str(i)).mkdir()
        edits.append(
            METHOD.erase(model, [ANCHOR.start(model, concept, seed)], seed, tmp_path / str(i), lambda i, **s: None)
        )
    assert all(torch.equal(edits[0][k], edits[1][k]) for k in edits[0])
    assert any(not torch.equal(edits[0][k], edits[2][k]) for k in edits[0])


def test_a_loss_that_is_not_finite_ends_the_erasure_with_the_remedy(model: Any, concept: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"not finite at step \d+: lower method\.lr"):
        replace(METHOD, lr=1e30, steps=5).erase(
            model, [Superclass(name="superclass").start(model, concept, 0)], 0, tmp_path, lambda i, **s: None
        )


# --- the released code's slips, kept behind switches ------------------------------------------------------------


@pytest.mark.parametrize("zero_grad", [True, False])
def test_gradients_of_the_weights_are_running_sums_only_if_faithful(
    model: Any, concept: Any, step: Step, tmp_path: Path, zero_grad: bool
) -> None:
    theta = {"w": torch.zeros(2, requires_grad=True)}
    slopes = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    seen: list[list[float]] = []

    class Again:
        def step(self, i: int, stream: int, batch: int) -> Step:
            return step

    descend(
        theta,
        lambda i, s: (theta["w"] * slopes[i]).sum(),
        Again(),
        [Same(name="concept").start(model, concept, 0)],
        tmp_path,
        lambda i, **s: seen.append(theta["w"].grad.tolist()),
        steps=3,
        lr=1e-3,
        batch=1,
        zero_grad=zero_grad,  # type: ignore[union-attr]
    )
    assert seen == (slopes if zero_grad else slopes.cumsum(0)).tolist()


@pytest.mark.parametrize("zero_grad", [True, False])
def test_gradients_of_the_anchor_are_summed_within_a_batch_only_if_faithful(
    model: Any, concept: Any, step: Step, zero_grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = adversary(model, concept, zero_grad=zero_grad, stop=-1e9)
    slopes = iter([1.0, 10.0, 100.0, 1.0, 10.0, 100.0])
    monkeypatch.setattr(a, "loss", lambda s: (a.parameter * next(slopes)).sum())
    for _ in range(2):  # a second batch starts from nothing in both cases
        a.descend(step, 3)
        assert a.parameter.grad is not None
        assert a.parameter.grad.unique().tolist() == [100.0 if zero_grad else 111.0]


@pytest.mark.parametrize(("keep", "expected"), [(True, 6), (False, 3)])
def test_adams_memory_of_the_anchor_lives_on_unless_faithful(
    model: Any, concept: Any, step: Step, keep: bool, expected: int
) -> None:
    a = adversary(model, concept, keep_optimiser=keep, stop=-1e9)
    for _ in range(2):
        a.descend(step, 3)
    assert int(a.optimiser.state_dict()["state"][0]["step"]) == expected


def test_the_faithful_span_has_one_position_for_each_word(model: Any, concept: Any) -> None:
    slot, a = Slot(model, concept, "'s", "words"), adversary(model, concept, span="words", suffix="'s")
    assert slot.texts(("{}",)) == ["a butterfly's"]
    assert slot.spans(("{}", "an emoji of {}")) == [[2], [5]]
    assert a.parameter.shape == (1, 32)


# --- what is reported -------------------------------------------------------------------------------------------


def test_the_anchors_diagnostics_are_what_their_names_say(model: Any, concept: Any, tmp_path: Path) -> None:
    target = ANCHOR.start(model, concept, 0)
    METHOD.erase(model, [target], 0, tmp_path, lambda i, **s: None)
    report = {**similarity(model, target), **target.report()}
    assert {"anchor/cosine_span", "anchor/shift", "anchor/loss_start", "anchor/loss_end", "anchor/steps"} <= set(report)
    assert 0 < report["anchor/cosine_span"] < 1
    assert report["anchor/shift"] > 0
    assert report["anchor/loss_end"] < report["anchor/loss_start"]
    still = similarity(model, adversary(model, concept, init=0.0))
    assert still["anchor/cosine_span"] == pytest.approx(1, abs=1e-6)
    assert still["anchor/shift"] == 0
