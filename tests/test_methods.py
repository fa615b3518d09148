"""Every method is the one it claims to be: loss, gradient and weights against a plain transcription."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_advanchor import ANCHOR, encode, predict, texts

from advanchor.anchors.words import Empty, Same, Superclass
from advanchor.build import build
from advanchor.compose import compose
from advanchor.concept import kept
from advanchor.core import BadInput
from advanchor.methods.ac_kumari import ConceptAblation
from advanchor.methods.esd import ErasedStableDiffusion
from advanchor.methods.fmn import ForgetMeNot
from advanchor.methods.guidance import NegativePrompt, SafeLatentDiffusion
from advanchor.methods.sa import SelectiveAmnesia
from advanchor.methods.salun import SaliencyUnlearning
from advanchor.methods.uce import UnifiedConceptEditing, refit
from advanchor.prompts import Prompt
from advanchor.training.pools import Denoising, Pool, Trajectories

ESD = ErasedStableDiffusion(
    name="esd",
    scope="attn2",
    steps=3,
    lr=1e-3,
    batch=2,
    eta=1.5,
    erase_from=None,
    latents="pool",
    pool=4,
    pool_steps=3,
    pool_guidance=2.0,
)
UCE = UnifiedConceptEditing(
    name="uce",
    lamb=0.5,
    erase_scale=1.0,
    preserve_scale=1.0,
    templates=1,
    preserve_templates=1,
    anchor_steps=2,
    anchor_batch=2,
    pool=4,
    pool_steps=2,
    pool_guidance=2.0,
)


def quiet(i: int, **scalars: float) -> None: ...


# --- ESD --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("erase_from", [None, "a red bug"])
def test_esds_loss_and_gradient_equal_equation_7(model: Any, concept: Any, step: Any, erase_from: str | None) -> None:
    theta = {k: (v * 1.1).requires_grad_() for k, v in model.weights("attn2").items()}
    e_a = encode(model, ["", "", ""]).detach()
    got = replace(ESD, erase_from=erase_from).loss(step, theta, e_a)
    gradient = torch.autograd.grad(got, list(theta.values()))
    trained = texts(erase_from or "a butterfly")
    with torch.no_grad():
        n_a, n_c, n_f = (
            predict(model, step, e) for e in (e_a, encode(model, texts("a butterfly")), encode(model, trained))
        )
        goal = n_a - 1.5 * (n_c - n_a) if erase_from is None else n_f - 2.5 * (n_c - n_a)
    with model.edited(theta):
        parameters = [model.network.get_parameter(name).requires_grad_() for name in theta]
        expected = (predict(model, step, encode(model, trained)) - goal).square().mean()
        reference = torch.autograd.grad(expected, parameters)
        model.network.requires_grad_(False)
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradient, reference, strict=True))


@pytest.mark.parametrize("erase_from", ["a butterfly", "a red bug"])
def test_esd_as_it_is_configured_subtracts_twice_the_concept_as_the_release_does(
    model: Any, concept: Any, step: Any, erase_from: str,
) -> None:  # fmt: skip
    """The release, whatever it erases from: e0(f) - 2 (e0(c) - e0(empty))."""
    e_a = encode(model, ["", "", ""]).detach()
    released = build(compose(["model=random", "method=esd", "anchor=published"]).method, "method")
    got = replace(released, erase_from=erase_from).loss(step, model.weights("attn2"), e_a)
    n_a, n_c, n_f = (
        predict(model, step, e) for e in (e_a, encode(model, texts("a butterfly")), encode(model, texts(erase_from)))
    )
    assert got.item() == pytest.approx((n_f - (n_f - 2 * (n_c - n_a))).square().mean().item(), rel=1e-4)


@pytest.mark.parametrize("eta", [0.5, 1.0, 3.0])
def test_esd_erasing_a_concept_from_itself_is_erasing_it(model: Any, concept: Any, step: Any, eta: float) -> None:
    e_a = encode(model, ["", "", ""]).detach()
    plain, itself = (
        replace(ESD, eta=eta, erase_from=f).loss(step, model.weights("attn2"), e_a).item()
        for f in (None, "a butterfly")
    )
    assert plain == pytest.approx(itself, rel=1e-5)


def test_esd_cannot_erase_from_nothing() -> None:
    with pytest.raises(BadInput, match=r"method\.erase_from= will not do"):
        compose(["model=random", "method=esd", "anchor=published", "method.erase_from=''"])


@pytest.mark.parametrize("latents", ["pool", "images", "denoise"])
def test_three_steps_of_esd_equal_plain_adam(model: Any, concept: Any, tmp_path: Path, latents: Any) -> None:
    method = replace(ESD, latents=latents)
    seen: list[Any] = []
    target = Empty(name="empty").start(model, concept, 0)
    original = target.embed
    target.embed = lambda s: seen.append(s) or original(s)  # type: ignore[func-returns-value, method-assign]
    edit = method.erase(model, [target], 0, tmp_path, quiet)
    theta = {k: v.clone().requires_grad_() for k, v in model.weights("attn2").items()}
    adam = torch.optim.Adam(theta.values(), 1e-3)
    for s in seen:
        with torch.no_grad():
            n_a, n_c = (
                model.predict(s.x, s.t, model.encode([""] * 2)),
                model.predict(s.x, s.t, model.encode(s.texts("a butterfly"))),
            )
        loss = (
            (model.predict(s.x, s.t, model.encode(s.texts("a butterfly")), theta) - (n_a - 1.5 * (n_c - n_a)))
            .square()
            .mean()
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert len(seen) == 3
    assert all(torch.allclose(edit[k], theta[k], atol=1e-6) for k in theta)


@pytest.mark.parametrize(("scope", "inside"), [("attn2", True), ("noxattn", False)])
def test_esd_changes_its_scope_alone(model: Any, concept: Any, tmp_path: Path, scope: str, inside: bool) -> None:
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    edit = replace(ESD, scope=scope).erase(model, [Empty(name="empty").start(model, concept, 0)], 0, tmp_path, quiet)
    assert set(edit) == {k for k in before if (".attn2." in k) is inside}
    assert all(torch.equal(before[k], v) for k, v in model.network.state_dict().items())


def test_esd_with_the_concept_as_anchor_or_no_steps_changes_nothing(model: Any, concept: Any, tmp_path: Path) -> None:
    for i, (method, anchor) in enumerate([(replace(ESD, steps=0), Empty(name="empty")), (ESD, Same(name="concept"))]):
        (tmp_path / str(i)).mkdir()
        edit = method.erase(model, [anchor.start(model, concept, 0)], 0, tmp_path / str(i), quiet)
        assert all(torch.equal(v, model.weights("attn2")[k]) for k, v in edit.items())


def test_a_trajectory_is_the_run_that_draws_the_image(model: Any, concept: Any, tmp_path: Path) -> None:
    """Stepping from any of its places with the scheduler's own rule leads to the next, and the last to the sampled
    latent.
    """
    steps, guidance, t = 4, 2.5, ["a butterfly", "an emoji of a butterfly"]
    x, times = model.trajectory(t, [5, 6], steps=steps, guidance=guidance)
    assert x.shape == (2, steps, 4, 8, 8)
    final = model.latents(t, [5, 6], steps=steps, guidance=guidance)
    model.pipe.scheduler.set_timesteps(steps)
    for i in range(steps):
        with torch.no_grad():
            n_c, n_0 = (model.predict(x[:, i], times[i].expand(2), model.encode(words)) for words in (t, ["", ""]))
        after = model.pipe.scheduler.step(n_0 + guidance * (n_c - n_0), times[i], x[:, i]).prev_sample
        assert torch.allclose(after, x[:, i + 1] if i + 1 < steps else final, atol=1e-4)
    for until in (0, 2):
        part, part_times = model.trajectory(t, [5, 6], steps=steps, guidance=guidance, until=until)
        assert torch.allclose(part[:, until], x[:, until], atol=1e-5)
        assert part_times[until] == times[until]


def test_steps_on_trajectories_depend_on_seed_and_number_alone(model: Any, concept: Any, tmp_path: Path) -> None:
    runs = Trajectories.drawn(model, concept, 3, 0, tmp_path, steps=3, guidance=2.0, phrase="a butterfly")
    again = Trajectories.drawn(model, concept, 3, 0, tmp_path, steps=3, guidance=2.0, phrase="a butterfly")
    fresh = Denoising(model, concept, 0, 3, 2.0, "a butterfly")
    for source, other in ((runs, again), (fresh, fresh)):
        a, b, c = source.step(4, 0, 2), other.step(4, 0, 2), source.step(5, 0, 2)
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.t, b.t)
        assert not torch.equal(a.x, c.x)
    assert sorted(t for i in range(3) for t in runs.step(i, 0, 1).templates) == sorted(concept.templates[:3])


# --- UCE --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "kept_in"), [(1, 1), (3, 3), (3, 1), (1, 2)])
def test_uce_equals_a_literal_transcription_of_equation_7(
    model: Any, concept: Any, tmp_path: Path, count: int, kept_in: int
) -> None:
    edit = replace(UCE, templates=count, preserve_templates=kept_in).erase(
        model, [Superclass(name="superclass").start(model, concept, 0)], 0, tmp_path, quiet
    )

    def last(text: str) -> Any:
        """The embedding of a sentence's last word piece, as a column; every sentence here ends with its subject."""
        ids = model.pipe.tokenizer(text).input_ids
        return model.encode([text])[0, len(ids) - 2].double()[:, None]

    assert set(edit) == {
        k for k in model.network.state_dict() if k.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))
    }
    for name, got in edit.items():
        w = model.network.get_parameter(name).double()
        left, right = 0.5 * w, 0.5 * torch.eye(w.shape[1]).double()
        for template in concept.templates[:count]:
            c, goal = last(template.format("a butterfly")), w @ last(template.format("a bug"))
            left, right = left + goal @ c.T, right + c @ c.T
        for template in concept.templates[:kept_in]:
            for phrase in concept.keep.values():
                c = last(template.format(phrase))
                left, right = left + w @ c @ c.T, right + c @ c.T
        assert torch.allclose(got, (left @ torch.inverse(right)).float(), atol=1e-5)


def test_uce_edits_the_concepts_token_towards_the_anchor(model: Any, concept: Any, tmp_path: Path) -> None:
    edit = replace(UCE, lamb=1e-6, preserve_scale=0.0).erase(
        model, [Superclass(name="superclass").start(model, concept, 0)], 0, tmp_path, quiet
    )
    c, b = (model.encode([t])[0, model.end(t) - 1] for t in ("a butterfly", "a bug"))
    for name, w in edit.items():
        assert torch.allclose(w @ c, model.network.get_parameter(name) @ b, atol=1e-3)


def test_uce_with_the_concept_as_anchor_changes_nothing_and_learns_an_anchor_that_learns(
    model: Any, concept: Any, tmp_path: Path
) -> None:
    edit = UCE.erase(model, [Same(name="concept").start(model, concept, 0)], 0, tmp_path, quiet)
    assert all(torch.allclose(v, model.network.get_parameter(k), atol=1e-6) for k, v in edit.items())
    assert not list(tmp_path.iterdir())
    target = ANCHOR.start(model, concept, 0)
    UCE.erase(model, [target], 0, tmp_path, quiet)
    assert target.report()["anchor/steps"] > 0


def test_uce_expanded_guides_a_sentence_to_what_is_left_of_it_and_preserves_bare_names_as_the_release_does(
    model: Any, concept: Any, tmp_path: Path
) -> None:
    """Written out, token by token: "an emoji of a butterfly" becomes "an emoji of", its last token; the bare name
    becomes the empty prompt's start token.
    """
    cfg = compose(["model=random", "method=uce_expanded", "anchor=published"])
    method, target = build(cfg.method, "method"), build(cfg.anchor, "anchor").start(model, concept, 0)
    edit = method.erase(model, [target], 0, tmp_path, quiet)
    assert concept.templates[:3] == ("{}", "an emoji of {}", "a picture of {}")

    def at(text: str, behind: int) -> Any:
        ids = model.pipe.tokenizer(text).input_ids
        return model.encode([text])[0, len(ids) - 1 - behind].double()

    pairs = [
        (at("a butterfly", 1), at("", 1)),
        (at("an emoji of a butterfly", 1), at("an emoji of", 1)),
        (at("a picture of a butterfly", 1), at("a picture of", 1)),
    ]
    pairs += [(at(phrase, 1), at(phrase, 1)) for phrase in concept.keep.values()]
    for name, got in edit.items():
        w = model.network.get_parameter(name).double()
        left, right = 0.5 * w, 0.5 * torch.eye(w.shape[1]).double()
        for c, goal in pairs:
            left, right = left + torch.outer(w @ goal, c), right + torch.outer(c, c)
        assert torch.allclose(got, (left @ torch.inverse(right)).float(), atol=1e-5)


@pytest.mark.parametrize("setting", ["templates", "preserve_templates"])
def test_uce_refuses_more_sentences_than_the_concept_has_before_anything_is_drawn(
    setting: str, model: Any, concept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = replace(UCE, **{setting: 12})
    monkeypatch.setattr(model, "latents", None)
    for act in (
        lambda: method.suits(concept),
        lambda: method.erase(model, [ANCHOR.start(model, concept, 0)], 0, tmp_path, quiet),
    ):
        with pytest.raises(BadInput, match=rf"method\.{setting}=12, and concept butterfly has 11"):
            act()


def test_a_closed_form_without_a_finite_solution_says_so() -> None:
    w, c = torch.eye(4).double(), torch.ones(1, 4).double()
    assert torch.allclose(refit(w, 1e-6, [(1.0, c, c)]), w, atol=1e-6)
    for lamb in (1e-300, 1e-20):
        with pytest.raises(BadInput, match=r"method\.lamb=1e-\d+ leaves the closed form singular .* raise it"):
            refit(w, lamb, [(1.0, c, c)])
    for bad in (float("inf"), float("nan")):
        for rows in ((c * bad, c), (c, c * bad)):
            with pytest.raises(BadInput, match=r"not finite: lower anchor\.lr"):
                refit(w, 1.0, [(1.0, *rows)])


@pytest.mark.parametrize("method", ["uce", "uce_expanded", "mace"])
def test_every_closed_form_refuses_to_be_singular(method: str, model: Any, concept: Any, tmp_path: Path) -> None:
    cfg = compose(["model=random", f"method={method}", "anchor=published", "method.lamb=1e-200"])
    with pytest.raises(BadInput, match=r"raise it"):
        build(cfg.method, "method").erase(
            model, [build(cfg.anchor, "anchor").start(model, concept, 0)], 0, tmp_path, quiet
        )


# --- AC as its own paper has it ---------------------------------------------------------------------------------

KUMARI = ConceptAblation(
    name="ac_kumari",
    scope="attn2.kv",
    steps=3,
    lr=1e-3,
    batch=2,
    prior=0.0,
    pool=4,
    pool_steps=2,
    pool_guidance=2.0,
    anchor_steps=2,
)


@pytest.mark.parametrize("prior", [0.0, 0.7])
def test_ac_kumaris_loss_and_gradient_have_the_teacher_in_training_and_no_gradient_through_it(
    model: Any, concept: Any, tmp_path: Path, prior: float
) -> None:
    s = Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0, phrase="a bug").step(0, 0, 2)
    theta = {k: (v * 1.1).requires_grad_() for k, v in model.weights("attn2.kv").items()}
    e_a = encode(model, [t.replace("{}", "a bug") for t in s.templates]).detach()
    got = replace(KUMARI, prior=prior).loss(s, theta, e_a)
    gradient = torch.autograd.grad(got, list(theta.values()))
    with model.edited(theta):
        parameters = [model.network.get_parameter(name).requires_grad_() for name in theta]
        n_a = predict(model, s, e_a)
        expected = (plain(model, s, "a butterfly") - n_a.detach()).square().mean() + prior * (
            n_a - s.truth
        ).square().mean()
        reference = torch.autograd.grad(expected, parameters)
        model.network.requires_grad_(False)
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradient, reference, strict=True))


def test_ac_kumaris_prior_weighs_what_the_releases_does(model: Any, concept: Any, tmp_path: Path) -> None:
    """The release: 4 MSE + 1 prior, at twice the learning rate. Adam does not see the factor of four."""
    plain_, prior = (
        build(compose(["model=random", f"method={m}", "anchor=published"]).method, "method")
        for m in ("ac_kumari", "ac_kumari_prior")
    )
    s = Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0, phrase="a bug").step(0, 0, 2)
    theta = {k: (v * 1.1).requires_grad_() for k, v in model.weights("attn2.kv").items()}
    e_a = encode(model, [t.replace("{}", "a bug") for t in s.templates]).detach()
    with model.edited(theta), torch.no_grad():
        n_a = predict(model, s, e_a)
        released = 4 * (plain(model, s, "a butterfly") - n_a).square().mean() + (n_a - s.truth).square().mean()
    assert 4 * prior.loss(s, theta, e_a).item() == pytest.approx(released.item(), rel=1e-5)
    assert prior.lr == 2 * plain_.lr


@pytest.mark.parametrize("anchor", [Superclass(name="superclass"), ANCHOR])
def test_ac_kumari_looks_at_images_of_the_finished_anchor_and_three_steps_equal_plain_adam(
    model: Any, concept: Any, tmp_path: Path, anchor: Any
) -> None:
    target = anchor.start(model, concept, 0)
    edit = KUMARI.erase(model, [target], 0, tmp_path, quiet)
    sentences = [t.replace("{}", "a butterfly") for t in concept.templates[:4]]
    drawn_again = model.latents(
        sentences,
        [1_000_000 + i for i in range(4)],
        steps=2,
        guidance=2.0,
        cond=target.condition(concept.templates[:4]),
    )
    pool = Pool(
        model,
        concept,
        load_file(next(tmp_path.glob("butterfly-*-anchor-*/*.safetensors")))["latents"],
        concept.templates[:4],
        0,
    )
    assert torch.allclose(pool.latents, drawn_again, atol=1e-5)
    theta = {k: v.clone().requires_grad_() for k, v in model.weights("attn2.kv").items()}
    adam = torch.optim.Adam(theta.values(), 1e-3)
    for i in range(3):
        adam.zero_grad()
        s = pool.step(i, 0, 2)
        KUMARI.loss(s, theta, target.condition(s.templates)).backward()
        adam.step()
    assert all(torch.allclose(edit[k], theta[k], atol=1e-6) for k in theta)


# --- SalUn ------------------------------------------------------------------------------------------------------

SALUN = SaliencyUnlearning(
    name="salun",
    scope="full",
    steps=3,
    lr=1e-3,
    batch=2,
    alpha=0.3,
    salient=0.4,
    saliency_guidance=7.5,
    pool=4,
    pool_steps=2,
    pool_guidance=2.0,
)


def plain(model: Any, step: Any, phrase: str | None) -> Any:
    """A differentiable prediction of the model as it is, for a step whose sentences may have a slot."""
    return predict(model, step, encode(model, [t.replace("{}", phrase or "") for t in step.templates]))


def test_saluns_mask_is_the_salient_share_of_the_guided_forgetting_gradient(
    model: Any, concept: Any, tmp_path: Path
) -> None:
    pool = Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0)
    mask = SALUN.mask(model, pool, 2)
    model.network.requires_grad_(True)
    model.network.zero_grad()
    for i in range(2):
        s = pool.step(i, 3, 2)
        n_c, n_0 = plain(model, s, "a butterfly"), predict(model, s, encode(model, ["", ""]))
        (-((n_0 + 7.5 * (n_c - n_0)) - s.truth).square().mean()).backward()
    gradients = {k: p.grad.abs() for k, p in model.network.named_parameters()}
    model.network.zero_grad()
    model.network.requires_grad_(False)
    ranked = torch.cat([g.flatten() for g in gradients.values()]).sort(descending=True).values
    threshold = ranked[round(0.4 * len(ranked)) - 1]
    agree = sum(int(((g >= threshold).float() == mask[k]).sum()) for k, g in gradients.items())
    assert agree >= 0.9999 * len(ranked)  # a gradient at the threshold may fall to either side by rounding
    assert sum(float(m.sum()) for m in mask.values()) == pytest.approx(0.4 * len(ranked), abs=2)


def test_saluns_mask_as_it_is_configured_is_guided_as_the_releases_is(model: Any, concept: Any, tmp_path: Path) -> None:
    """The release: (1 + 7.5) e(e_c) - 7.5 e(empty)."""
    pool = Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0)
    method = replace(
        build(compose(["model=random", "method=salun", "anchor=published"]).method, "method"), scope="attn2.kv"
    )
    mask = method.mask(model, pool, 1)
    parameters = {name: model.network.get_parameter(name).requires_grad_() for name in mask}
    s = pool.step(0, 3, 2)
    guided = (1 + 7.5) * plain(model, s, "a butterfly") - 7.5 * predict(model, s, encode(model, ["", ""]))
    gradients = [g.abs() for g in torch.autograd.grad((guided - s.truth).square().mean(), list(parameters.values()))]
    model.network.requires_grad_(False)
    median = torch.cat([g.flatten() for g in gradients]).median()
    agree = sum(int(((g > median).float() == m).sum()) for g, m in zip(gradients, mask.values(), strict=True))
    assert agree >= 0.999 * sum(m.numel() for m in mask.values())


def test_salun_refuses_a_share_that_holds_no_weight_before_anything_is_drawn(
    model: Any, concept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "latents", None)
    with pytest.raises(BadInput, match=r"method\.salient=1e-09 of \d+ weights is none: raise it"):
        replace(SALUN, salient=1e-9).erase(
            model, [Superclass(name="superclass").start(model, concept, 0)], 0, tmp_path, quiet
        )


def test_saluns_loss_and_gradient_equal_the_formula(model: Any, concept: Any, tmp_path: Path) -> None:
    forget = Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0).step(0, 0, 2)
    retain = Pool.drawn(
        model, concept, 4, 0, tmp_path, steps=2, guidance=2.0, sentences=kept(concept), name="kept"
    ).step(0, 2, 2)
    theta = {k: (v * 1.1).requires_grad_() for k, v in model.weights("attn2").items()}
    e_a = encode(model, ["a bug"] * 2).detach()
    got = SALUN.loss(forget, retain, theta, e_a)
    gradient = torch.autograd.grad(got, list(theta.values()))
    with model.edited(theta):
        parameters = [model.network.get_parameter(name).requires_grad_() for name in theta]
        goal = predict(model, forget, e_a).detach()
        expected = (plain(model, forget, "a butterfly") - goal).square().mean() + 0.3 * (
            plain(model, retain, None) - retain.truth
        ).square().mean()
        reference = torch.autograd.grad(expected, parameters)
        model.network.requires_grad_(False)
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradient, reference, strict=True))
    assert not any("butterfly" in t for t in retain.templates)


def test_salun_changes_salient_weights_alone_as_plain_adam_on_masked_gradients(
    model: Any, concept: Any, tmp_path: Path
) -> None:
    edit = SALUN.erase(model, [Superclass(name="superclass").start(model, concept, 0)], 0, tmp_path, quiet)
    mask = load_file(tmp_path / "mask.safetensors")
    pool, others = (
        Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0, sentences=s, name=n)
        for s, n in (((), "pool"), (kept(concept), "kept"))
    )
    theta = {k: v.clone().requires_grad_() for k, v in model.weights("full").items()}
    adam = torch.optim.Adam(theta.values(), 1e-3)
    for i in range(3):
        s = pool.step(i, 0, 2)
        loss = SALUN.loss(s, others.step(i, 2, 2), theta, model.encode(s.texts("a bug")))
        for (name, w), g in zip(
            theta.items(), torch.autograd.grad(loss, list(theta.values()), allow_unused=True), strict=True
        ):
            w.grad = None if g is None else g * mask[name]
        adam.step()
    before = model.weights("full")
    assert all(torch.allclose(edit[k], theta[k], atol=1e-6) for k in theta)
    assert all(torch.equal(edit[k][mask[k] == 0], before[k][mask[k] == 0]) for k in edit)
    assert any(not torch.equal(edit[k], before[k]) for k in edit)


def test_salun_with_the_concept_as_pseudo_prompt_and_no_retaining_changes_nothing(
    model: Any, concept: Any, tmp_path: Path
) -> None:
    edit = replace(SALUN, alpha=0.0).erase(model, [Same(name="concept").start(model, concept, 0)], 0, tmp_path, quiet)
    assert all(torch.equal(v, model.weights("full")[k]) for k, v in edit.items())


# --- SA ---------------------------------------------------------------------------------------------------------

SA = SelectiveAmnesia(
    name="sa",
    scope="attn2",
    steps=3,
    lr=1e-3,
    batch=2,
    gamma=0.7,
    lamb=20.0,
    fisher=3,
    pool=4,
    pool_steps=2,
    pool_guidance=2.0,
    anchor_steps=2,
)


def test_sas_fisher_information_is_the_mean_squared_gradient(model: Any, concept: Any, tmp_path: Path) -> None:
    replay = Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0, sentences=kept(concept), name="kept")
    information = SA.information(model, replay)
    names = list(model.weights("attn2"))
    parameters = [model.network.get_parameter(name).requires_grad_() for name in names]
    squares = []
    for i in range(3):
        s = replay.step(i, 3, 1)
        squares.append(
            [g.square() for g in torch.autograd.grad((plain(model, s, None) - s.truth).square().mean(), parameters)]
        )
    model.network.requires_grad_(False)
    for name, parts in zip(names, zip(*squares, strict=True), strict=True):
        assert torch.allclose(information[name], torch.stack(parts).mean(0), rtol=1e-4, atol=1e-10)


def test_sas_loss_and_gradient_equal_equation_6(model: Any, concept: Any, tmp_path: Path) -> None:
    surrogate = Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0).step(0, 0, 2)
    replay = Pool.drawn(
        model, concept, 4, 0, tmp_path, steps=2, guidance=2.0, sentences=kept(concept), name="kept"
    ).step(0, 2, 2)
    theta = {k: (v * 1.1).requires_grad_() for k, v in model.weights("attn2").items()}
    information = {
        k: torch.rand(v.shape, generator=torch.Generator().manual_seed(i)) for i, (k, v) in enumerate(theta.items())
    }
    got = SA.loss(surrogate, replay, theta, information)
    gradient = torch.autograd.grad(got, list(theta.values()))
    frozen = {k: v.clone() for k, v in model.weights("attn2").items()}
    with model.edited(theta):
        parameters = {name: model.network.get_parameter(name).requires_grad_() for name in theta}
        expected = (plain(model, surrogate, "a butterfly") - surrogate.truth).square().mean() + 0.7 * (
            plain(model, replay, None) - replay.truth
        ).square().mean()
        expected = expected + 20.0 * sum((information[k] * (p - frozen[k]) ** 2).sum() for k, p in parameters.items())
        reference = torch.autograd.grad(expected, list(parameters.values()))
        model.network.requires_grad_(False)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(gradient, reference, strict=True))


@pytest.mark.parametrize("anchor", [Superclass(name="superclass"), ANCHOR])
def test_sas_surrogates_are_drawn_under_the_finished_anchor_and_three_steps_equal_plain_adam(
    model: Any, concept: Any, tmp_path: Path, anchor: Any
) -> None:
    target = anchor.start(model, concept, 0)
    edit = SA.erase(model, [target], 0, tmp_path, quiet)
    texts_drawn = [t.replace("{}", "a butterfly") for t in concept.templates[:4]]
    cond = target.condition(concept.templates[:4])
    drawn_again = model.latents(texts_drawn, [1_000_000 + i for i in range(4)], steps=2, guidance=2.0, cond=cond)
    surrogate = Pool(
        model,
        concept,
        load_file(next(tmp_path.glob("butterfly-*-surrogates-*/*.safetensors")))["latents"],
        concept.templates[:4],
        0,
    )
    assert torch.allclose(surrogate.latents, drawn_again, atol=1e-5)
    replay = Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0, sentences=kept(concept), name="kept")
    information = load_file(tmp_path / "fisher.safetensors")
    theta = {k: v.clone().requires_grad_() for k, v in model.weights("attn2").items()}
    adam = torch.optim.Adam(theta.values(), 1e-3)
    for i in range(3):
        adam.zero_grad()
        SA.loss(surrogate.step(i, 0, 2), replay.step(i, 2, 2), theta, information).backward()
        adam.step()
    assert all(torch.allclose(edit[k], theta[k], atol=1e-6) for k in theta)


# --- FMN --------------------------------------------------------------------------------------------------------

FMN = ForgetMeNot(
    name="fmn", scope="attn2", steps=3, lr=1e-3, batch=2, pooler=False, pool=4, pool_steps=2, pool_guidance=2.0
)


def attention(model: Any, s: Any, e: Any) -> list[Any]:
    """The probabilities from every layer's own inputs, caught by hooks: softmax(q k^T / sqrt(d)) of each head by
    itself.
    """
    caught: list[Any] = []
    layers = [m for name, m in model.network.named_modules() if name.endswith("attn2")]
    handles = [m.register_forward_hook(lambda m, a, k, out: caught.append((m, a[0])), with_kwargs=True) for m in layers]
    predict(model, s, e)
    for handle in handles:
        handle.remove()
    maps = []
    for layer, hidden in caught:
        q, k = layer.to_q(hidden), layer.to_k(e)
        d = q.shape[-1] // layer.heads
        maps.append(
            [
                torch.softmax(q[..., h * d : (h + 1) * d] @ k[..., h * d : (h + 1) * d].mT / d**0.5, -1)
                for h in range(layer.heads)
            ]
        )
    return maps


@pytest.mark.parametrize("pooler", [False, True])
def test_fmns_loss_and_gradient_are_the_norm_of_the_concepts_attention(
    model: Any, concept: Any, step: Any, pooler: bool
) -> None:
    theta = {k: (v * 1.1).requires_grad_() for k, v in model.weights("attn2").items()}
    got = replace(FMN, pooler=pooler).loss(step, theta)
    gradient = torch.autograd.grad(got, list(theta.values()), allow_unused=True)
    sentences = texts("a butterfly")
    with model.edited(theta):
        parameters = [model.network.get_parameter(name).requires_grad_() for name in theta]
        total = torch.zeros(())
        for heads in attention(model, step, encode(model, sentences)):
            for row, sentence in enumerate(sentences):
                ids = model.pipe.tokenizer(sentence, padding="max_length").input_ids
                ends = [
                    p for p, i in enumerate(ids) if i == model.pipe.tokenizer.eos_token_id
                ]  # of Stable Diffusion 1 all of the padding
                span = model.span(sentence, "butterfly") + ends * pooler
                total = total + sum((a[row][:, p] ** 2).sum() for a in heads for p in span)
        reference = torch.autograd.grad(total.sqrt(), parameters, allow_unused=True)
        model.network.requires_grad_(False)
    assert got.item() == pytest.approx(total.sqrt().item(), rel=1e-5)
    for a, b in zip(gradient, reference, strict=True):
        assert torch.allclose(*(torch.zeros(()) if g is None else g for g in (a, b)), atol=1e-5)


def test_fmn_as_it_is_configured_marks_end_tokens_and_trains_the_whole_unet_as_the_release_does() -> None:
    released, emoji = (compose([f"model={m}", "method=fmn", "anchor=published"]).method for m in ("random", "emoji"))
    assert (released.scope, released.pooler) == ("full", True)
    assert (emoji.scope, emoji.pooler) == ("attn2", False)  # those of the README's table


def test_watching_attention_changes_no_prediction_and_probabilities_sum_to_one(model: Any, step: Any) -> None:
    e = encode(model, texts("a butterfly"))
    before = model.predict(step.x, step.t, e)
    maps = model.attention(step.x, step.t, e)
    assert torch.equal(model.predict(step.x, step.t, e), before)
    assert len(maps) == sum(name.endswith("attn2") for name, _ in model.network.named_modules())
    assert all(torch.allclose(a.sum(-1), torch.ones(a.shape[:-1]), atol=1e-5) for a in maps)


def test_three_steps_of_fmn_equal_plain_adam_and_lower_its_loss(model: Any, concept: Any, tmp_path: Path) -> None:
    seen: list[float] = []
    edit = FMN.erase(
        model, [Same(name="concept").start(model, concept, 0)], 0, tmp_path, lambda i, **s: seen.append(s["train/loss"])
    )
    pool = Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0)
    theta = {k: v.clone().requires_grad_() for k, v in model.weights("attn2").items()}
    adam = torch.optim.Adam(theta.values(), 1e-3)
    for i in range(3):
        adam.zero_grad()
        FMN.loss(pool.step(i, 0, 2), theta).backward()
        adam.step()
    assert all(torch.allclose(edit[k], theta[k], atol=1e-6) for k in theta)
    assert FMN.loss(pool.step(0, 0, 2), edit).item() < seen[0]


# --- at inference -----------------------------------------------------------------------------------------------

PROMPTS = [Prompt("a car", 3), Prompt("an emoji of a key", 4)]
SLD = SafeLatentDiffusion(name="sld", scale=50.0, warmup=0.4, threshold=0.01, momentum=0.3, beta=0.4)


def drawn(model: Any, edit: Any) -> Any:
    with model.edited(edit):
        return model.latents([p.text for p in PROMPTS], [p.seed for p in PROMPTS], steps=5, guidance=3.0)


def sampled(model: Any, rule: Any) -> Any:
    """The same two latents by a plain DDIM loop in which `rule(step, x, t)` is the guided prediction."""
    scheduler = model.pipe.scheduler
    scheduler.set_timesteps(5)
    x = model._noise([p.text for p in PROMPTS], [p.seed for p in PROMPTS])
    with torch.no_grad():
        for i, t in enumerate(scheduler.timesteps):
            x = scheduler.step(rule(i, x, t), t, x).prev_sample
    return x


def test_a_negative_prompt_takes_the_empty_prompts_place(model: Any, concept: Any, tmp_path: Path) -> None:
    edit = NegativePrompt(name="negative_prompt").erase(
        model, [Same(name="concept").start(model, concept, 0)], 0, tmp_path, quiet
    )

    def rule(i: int, x: Any, t: Any) -> Any:
        p, n = (
            model.network(x, t, e).sample
            for e in (model.encode([p.text for p in PROMPTS]), model.encode(["a butterfly"] * 2))
        )
        return n + 3.0 * (p - n)

    assert torch.allclose(drawn(model, edit), sampled(model, rule), atol=1e-5)
    assert not torch.allclose(drawn(model, edit), drawn(model, {}), atol=1e-3)


@pytest.mark.parametrize("method", [SLD, replace(SLD, scale=200.0, warmup=0.0, threshold=1.0, momentum=0.5, beta=0.7)])
def test_safe_latent_diffusion_equals_a_literal_loop_over_its_equations(
    model: Any, concept: Any, tmp_path: Path, method: Any
) -> None:
    edit = method.erase(model, [Same(name="concept").start(model, concept, 0)], 0, tmp_path, quiet)
    velocity = [torch.zeros(2, 4, 8, 8)]

    def rule(i: int, x: Any, t: Any) -> Any:
        p, s, n = (
            model.network(x, t, model.encode(e)).sample
            for e in ([p.text for p in PROMPTS], ["a butterfly"] * 2, [""] * 2)
        )
        phi = torch.minimum(torch.ones_like(p), method.scale * (p - s).abs())
        mu = torch.where(p - s >= method.threshold, torch.zeros_like(p), phi)
        m = mu * (s - n) + method.momentum * velocity[0]
        velocity[0] = method.beta * velocity[0] + (1 - method.beta) * m
        return n + 3.0 * (p - n - (m if i >= method.warmup * 5 else 0))

    assert torch.allclose(drawn(model, edit), sampled(model, rule), atol=1e-4)
    assert not torch.allclose(drawn(model, edit), drawn(model, {}), atol=1e-3)


def test_guidance_ends_with_its_context_and_without_strength_changes_nothing(
    model: Any, concept: Any, tmp_path: Path
) -> None:
    before = drawn(model, {})
    edit = replace(SLD, scale=0.0, momentum=0.0).erase(
        model, [Same(name="concept").start(model, concept, 0)], 0, tmp_path, quiet
    )
    assert torch.allclose(drawn(model, edit), before, atol=1e-5)
    drawn(model, SLD.erase(model, [Same(name="concept").start(model, concept, 0)], 0, tmp_path, quiet))
    assert torch.equal(drawn(model, {}), before)
