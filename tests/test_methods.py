"""Every method is the one it claims to be: loss, gradient and weights against a plain transcription, and every pair with an anchor runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_advanchor import ANCHOR, encode, predict, step, texts  # noqa: F401  (a fixture)
from test_conf import options

from advanchor.anchors.words import Empty, Same, Superclass
from advanchor.core import BadInput, Prompt
from advanchor.methods.esd import ErasedStableDiffusion
from advanchor.methods.guidance import NegativePrompt, SafeLatentDiffusion
from advanchor.methods.uce import UnifiedConceptEditing
from advanchor.pools import Denoising, Trajectories

ESD = ErasedStableDiffusion(name="esd", scope="attn2", steps=3, lr=1e-3, batch=2, eta=1.5, erase_from=None, latents="pool", pool=4, pool_steps=3, pool_guidance=2.0)
UCE = UnifiedConceptEditing(name="uce", lamb=0.5, erase_scale=1.0, preserve_scale=1.0, templates=1, anchor_steps=2, anchor_batch=2, pool=4, pool_steps=2, pool_guidance=2.0)


def quiet(i: int, **scalars: float) -> None: ...


@pytest.mark.parametrize("anchor", options("anchor"))
@pytest.mark.parametrize("method", options("method"))
def test_every_method_takes_every_anchor(method: str, anchor: str, tiny: Any) -> None:
    overrides = ["sample.steps=1", f"method={method}", f"anchor={anchor}", "metric=[]"]
    if method.startswith(("negative_prompt", "sld")) and anchor != "concept":
        with pytest.raises(BadInput, match="add anchor=concept"):
            tiny(*overrides)
        return
    result = tiny(*overrides)
    assert -1.001 <= result["diagnostics"]["anchor/cosine_span"] <= 1.001
    assert (result["changed"]["tensors"] > 0) is not method.startswith(("none", "negative_prompt", "sld"))


# --- ESD --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("erase_from", [None, "a red bug"])
def test_esds_loss_and_gradient_equal_equation_7(model: Any, concept: Any, step: Any, erase_from: str | None) -> None:  # noqa: F811
    theta = {k: (v * 1.1).requires_grad_() for k, v in model.weights("attn2").items()}
    e_a = encode(model, ["", "", ""]).detach()
    got = replace(ESD, erase_from=erase_from).loss(step, theta, e_a)
    gradient = torch.autograd.grad(got, list(theta.values()))
    trained = texts(erase_from or "a butterfly")
    with torch.no_grad():
        n_a, n_c, n_f = (predict(model, step, e) for e in (e_a, encode(model, texts("a butterfly")), encode(model, trained)))
        goal = (n_a if erase_from is None else n_f) - 1.5 * (n_c - n_a)
    with model.edited(theta):
        parameters = [model.unet.get_parameter(name).requires_grad_() for name in theta]
        expected = (predict(model, step, encode(model, trained)) - goal).square().mean()
        reference = torch.autograd.grad(expected, parameters)
        model.unet.requires_grad_(False)
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradient, reference, strict=True))


def test_esd_as_released_is_the_papers_with_eta_1(model: Any, concept: Any, step: Any) -> None:  # noqa: F811
    """The release: e0(c) - 2 (e0(c) - e0(empty)), as for `erase_from` equal to the concept."""
    e_a = encode(model, ["", "", ""]).detach()
    ours = replace(ESD, eta=1.0).loss(step, model.weights("attn2"), e_a)
    released = replace(ESD, eta=2.0, erase_from="a butterfly").loss(step, model.weights("attn2"), e_a)
    assert ours.item() == pytest.approx(released.item(), rel=1e-5)


@pytest.mark.parametrize("latents", ["pool", "images", "denoise"])
def test_three_steps_of_esd_equal_plain_adam(model: Any, concept: Any, tmp_path: Path, latents: Any) -> None:
    method = replace(ESD, latents=latents)
    seen: list[Any] = []
    target = Empty(name="empty").start(model, concept, 0)
    original = target.embed
    target.embed = lambda s: seen.append(s) or original(s)  # type: ignore[func-returns-value, method-assign]
    edit, _ = method.erase(model, concept, target, 0, tmp_path, quiet)
    theta = {k: v.clone().requires_grad_() for k, v in model.weights("attn2").items()}
    adam = torch.optim.Adam(theta.values(), 1e-3)
    for s in seen:
        with torch.no_grad():
            n_a, n_c = model.eps(s.x, s.t, model.encode([""] * 2)), model.eps(s.x, s.t, model.encode(s.texts("a butterfly")))
        loss = (model.eps(s.x, s.t, model.encode(s.texts("a butterfly")), theta) - (n_a - 1.5 * (n_c - n_a))).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert len(seen) == 3
    assert all(torch.allclose(edit[k], theta[k], atol=1e-6) for k in theta)


@pytest.mark.parametrize(("scope", "inside"), [("attn2", True), ("noxattn", False)])
def test_esd_changes_its_scope_alone(model: Any, concept: Any, tmp_path: Path, scope: str, inside: bool) -> None:
    before = {k: v.clone() for k, v in model.unet.state_dict().items()}
    edit, _ = replace(ESD, scope=scope).erase(model, concept, Empty(name="empty").start(model, concept, 0), 0, tmp_path, quiet)
    assert set(edit) == {k for k in before if (".attn2." in k) is inside}
    assert all(torch.equal(before[k], v) for k, v in model.unet.state_dict().items())


def test_esd_with_the_concept_as_anchor_or_no_steps_changes_nothing(model: Any, concept: Any, tmp_path: Path) -> None:
    for i, (method, anchor) in enumerate([(replace(ESD, steps=0), Empty(name="empty")), (ESD, Same(name="concept"))]):
        (tmp_path / str(i)).mkdir()
        edit, _ = method.erase(model, concept, anchor.start(model, concept, 0), 0, tmp_path / str(i), quiet)
        assert all(torch.equal(v, model.weights("attn2")[k]) for k, v in edit.items())


def test_a_trajectory_is_the_run_that_draws_the_image(model: Any, concept: Any, tmp_path: Path) -> None:
    """Stepping from any of its places with the scheduler's own rule leads to the next, and the last to the sampled latent."""
    steps, guidance, t = 4, 2.5, ["a butterfly", "an emoji of a butterfly"]
    x, times = model.trajectory(t, [5, 6], steps=steps, guidance=guidance)
    assert x.shape == (2, steps, 4, 8, 8)
    final = model.latents(t, [5, 6], steps=steps, guidance=guidance)
    model.pipe.scheduler.set_timesteps(steps)
    for i in range(steps):
        with torch.no_grad():
            n_c, n_0 = (model.eps(x[:, i], times[i].expand(2), model.encode(words)) for words in (t, ["", ""]))
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


@pytest.mark.parametrize("count", [1, 3])
def test_uce_equals_a_literal_transcription_of_equation_7(model: Any, concept: Any, tmp_path: Path, count: int) -> None:
    edit, _ = replace(UCE, templates=count).erase(model, concept, Superclass(name="superclass").start(model, concept, 0), 0, tmp_path, quiet)

    def last(text: str) -> Any:
        """The embedding of a sentence's last word piece, as a column; every sentence here ends with its subject."""
        ids = model.tokenizer(text).input_ids
        return model.encode([text])[0, len(ids) - 2].double()[:, None]

    assert set(edit) == {k for k in model.unet.state_dict() if k.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))}
    for name, got in edit.items():
        w = model.unet.get_parameter(name).double()
        left, right = 0.5 * w, 0.5 * torch.eye(w.shape[1]).double()
        for template in concept.templates[:count]:
            c, goal = last(template.format("a butterfly")), w @ last(template.format("a bug"))
            left, right = left + goal @ c.T, right + c @ c.T
            for phrase in concept.keep.values():
                c = last(template.format(phrase))
                left, right = left + w @ c @ c.T, right + c @ c.T
        assert torch.allclose(got, (left @ torch.inverse(right)).float(), atol=1e-5)


def test_uce_edits_the_concepts_token_towards_the_anchor(model: Any, concept: Any, tmp_path: Path) -> None:
    edit, _ = replace(UCE, lamb=1e-6, preserve_scale=0.0).erase(model, concept, Superclass(name="superclass").start(model, concept, 0), 0, tmp_path, quiet)
    c, b = (model.encode([t])[0, model.end(t) - 1] for t in ("a butterfly", "a bug"))
    for name, w in edit.items():
        assert torch.allclose(w @ c, model.unet.get_parameter(name) @ b, atol=1e-3)


def test_uce_with_the_concept_as_anchor_changes_nothing_and_learns_an_anchor_that_learns(model: Any, concept: Any, tmp_path: Path) -> None:
    edit, _ = UCE.erase(model, concept, Same(name="concept").start(model, concept, 0), 0, tmp_path, quiet)
    assert all(torch.allclose(v, model.unet.get_parameter(k), atol=1e-6) for k, v in edit.items())
    assert not list(tmp_path.iterdir())
    target = ANCHOR.start(model, concept, 0)
    UCE.erase(model, concept, target, 0, tmp_path, quiet)
    assert target.report()["anchor/steps"] > 0


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
    edit, _ = NegativePrompt(name="negative_prompt").erase(model, concept, Same(name="concept").start(model, concept, 0), 0, tmp_path, quiet)

    def rule(i: int, x: Any, t: Any) -> Any:
        p, n = (model.unet(x, t, e).sample for e in (model.encode([p.text for p in PROMPTS]), model.encode(["a butterfly"] * 2)))
        return n + 3.0 * (p - n)

    assert torch.allclose(drawn(model, edit), sampled(model, rule), atol=1e-5)
    assert not torch.allclose(drawn(model, edit), drawn(model, {}), atol=1e-3)


@pytest.mark.parametrize("method", [SLD, replace(SLD, scale=200.0, warmup=0.0, threshold=1.0, momentum=0.5, beta=0.7)])
def test_safe_latent_diffusion_equals_a_literal_loop_over_its_equations(model: Any, concept: Any, tmp_path: Path, method: Any) -> None:
    edit, _ = method.erase(model, concept, Same(name="concept").start(model, concept, 0), 0, tmp_path, quiet)
    velocity = [torch.zeros(2, 4, 8, 8)]

    def rule(i: int, x: Any, t: Any) -> Any:
        p, s, n = (model.unet(x, t, model.encode(e)).sample for e in ([p.text for p in PROMPTS], ["a butterfly"] * 2, [""] * 2))
        phi = torch.minimum(torch.ones_like(p), method.scale * (p - s).abs())
        mu = torch.where(p - s >= method.threshold, torch.zeros_like(p), phi)
        m = mu * (s - n) + method.momentum * velocity[0]
        velocity[0] = method.beta * velocity[0] + (1 - method.beta) * m
        return n + 3.0 * (p - n - (m if i >= method.warmup * 5 else 0))

    assert torch.allclose(drawn(model, edit), sampled(model, rule), atol=1e-4)
    assert not torch.allclose(drawn(model, edit), drawn(model, {}), atol=1e-3)


def test_guidance_ends_with_its_context_and_without_strength_changes_nothing(model: Any, concept: Any, tmp_path: Path) -> None:
    before = drawn(model, {})
    edit, _ = replace(SLD, scale=0.0, momentum=0.0).erase(model, concept, Same(name="concept").start(model, concept, 0), 0, tmp_path, quiet)
    assert torch.allclose(drawn(model, edit), before, atol=1e-5)
    drawn(model, SLD.erase(model, concept, Same(name="concept").start(model, concept, 0), 0, tmp_path, quiet)[0])
    assert torch.equal(drawn(model, {}), before)
