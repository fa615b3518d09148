"""SPM, Receler and MACE against plain transcriptions of their equations: modules hooked in by hand, loops instead of
tensors.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from test_advanchor import encode, predict, texts
from test_methods import attention, quiet

from advanchor.anchors.words import Empty, Same, Superclass
from advanchor.build import build
from advanchor.compose import compose
from advanchor.concept import kept
from advanchor.core import BadInput
from advanchor.methods.mace import MassConceptErasure, focus, loras
from advanchor.methods.receler import Adversary, RobustEraser, erasers
from advanchor.methods.spm import SemiPermeableMembrane, factors, surrounding
from advanchor.store import slug
from advanchor.training.draws import random
from advanchor.training.masks import mask
from advanchor.training.pools import Pool, Trajectories

SPM = SemiPermeableMembrane(
    name="spm",
    scope="transformers",
    rank=2,
    steps=3,
    lr=1e-2,
    batch=2,
    eta=1.5,
    surround=30.0,
    surroundings=3,
    half_empty=False,
    latents="pool",
    above=False,
    pool=4,
    pool_steps=3,
    pool_guidance=2.0,
)
RECELER = RobustEraser(
    name="receler",
    rank=4,
    steps=3,
    lr=1e-2,
    batch=2,
    eta=1.5,
    regularise=0.3,
    mask_side=8,
    threshold=0.5,
    adversary=2,
    attacks=3,
    attack_lr=0.1,
    attack_decay=0.1,
    latents="pool",
    pool=4,
    pool_steps=3,
    pool_guidance=2.0,
)
MACE = MassConceptErasure(
    name="mace",
    rank=1,
    steps=3,
    lr=1e-2,
    batch=2,
    clip=1.0,
    lamb=5.0,
    preserve_scale=0.2,
    all_words=False,
    pooler=True,
    mask_side=8,
    threshold=0.5,
    pool=4,
    pool_steps=2,
    pool_guidance=2.0,
    anchor_steps=2,
)

OWN = slug("butterfly")  # what the factors of its LoRA are called


def perturbed(theta: dict[str, Any]) -> dict[str, Any]:
    """The same leaves away from their start, where every gradient is alive."""
    return {
        k: (v.detach() + 0.05 * torch.randn(v.shape, generator=torch.Generator().manual_seed(i))).requires_grad_()
        for i, (k, v) in enumerate(theta.items())
    }


# --- SPM --------------------------------------------------------------------------------------------------------


class Membranes:
    """Every linear and convolution layer of the transformer blocks with a low-rank branch beside it, as modules, not as
    weights.
    """

    def __init__(self, model: Any, theta: dict[str, Any]) -> None:
        self.handles, self.layers = [], []
        for name, module in model.network.named_modules():
            if ".attentions." in name and isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                self.layers.append(name)
                down, up = theta[f"lowrank.{name}.weight.down"], theta[f"lowrank.{name}.weight.up"]
                self.handles.append(
                    module.register_forward_hook(
                        lambda m, a, out, down=down, up=up: out + self.branch(m, a[0], down, up)
                    )
                )

    @staticmethod
    def branch(module: Any, x: Any, down: Any, up: Any) -> Any:
        if isinstance(module, torch.nn.Linear):
            return x @ down.T @ up.T
        return F.conv2d(
            F.conv2d(x, down.view(len(down), *module.weight.shape[1:]), None, module.stride, module.padding),
            up[:, :, None, None],
        )

    def __enter__(self) -> "Membranes":
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self.handles:
            handle.remove()


def test_spms_loss_and_gradient_equal_its_equations_with_branches_beside_the_layers(
    model: Any, concept: Any, step: Any
) -> None:
    theta = perturbed(factors(model.weights("transformers"), 2, torch.Generator().manual_seed(0)))
    e_a, around = encode(model, ["", "", ""]).detach(), surrounding(step, 3, torch.Generator().manual_seed(1))
    got = SPM.loss(step, theta, e_a, around)
    gradient = torch.autograd.grad(got, list(theta.values()))
    with torch.no_grad():
        n_a, n_c, n_r = (predict(model, step, e) for e in (e_a, encode(model, texts("a butterfly")), around))
    with Membranes(model, theta) as inside:
        expected = (
            (predict(model, step, encode(model, texts("a butterfly"))) - (n_a - 1.5 * (n_c - n_a))).square().mean()
        )
        expected = expected + 30.0 * (predict(model, step, around) - n_r).square().mean()
    reference = torch.autograd.grad(expected, list(theta.values()))
    assert {k.split(".", 1)[1].rsplit(".", 2)[0] for k in theta} == set(inside.layers)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(gradient, reference, strict=True))


def test_three_steps_of_spm_equal_plain_adam_and_draw_as_branches_do(model: Any, concept: Any, tmp_path: Path) -> None:
    edit = SPM.erase(model, [Empty(name="empty").start(model, concept, 0)], 0, tmp_path, quiet)
    runs = Trajectories.drawn(model, concept, 4, 0, tmp_path, steps=3, guidance=2.0, phrase="a butterfly")
    theta = factors(model.weights("transformers"), 2, random(0, 3, 0, 0))
    adam = torch.optim.Adam(theta.values(), 1e-2)
    for i in range(3):
        adam.zero_grad()
        s = runs.step(i, 0, 2)
        SPM.loss(s, theta, model.encode(["", ""]), surrounding(s, 3, random(0, 3, 1, i))).backward()
        adam.step()
    assert all(torch.allclose(edit[k], theta[k], atol=1e-6) for k in theta)
    before = model.latents(["a butterfly"], [3], steps=3, guidance=2.0)
    with model.edited(edit):
        merged = model.latents(["a butterfly"], [3], steps=3, guidance=2.0)
    with Membranes(model, edit):
        beside = model.latents(["a butterfly"], [3], steps=3, guidance=2.0)
    assert torch.allclose(merged, beside, atol=1e-4)
    assert not torch.allclose(merged, before, atol=1e-4)
    assert torch.equal(model.latents(["a butterfly"], [3], steps=3, guidance=2.0), before)


def released_spm(
    model: Any,
    theta: dict[str, Any],
    words: str,
    start: Any,
    k: int,
    steps: int,
    vectors: Any,
    eta: float,
    strength: float,
) -> Any:
    """One update's loss as the released code computes it: two rows for each latent, the guided half kept; vectors (n,
    L, d) are its random embeddings.
    """
    empty, c = model.encode([""]), model.encode([words])

    def predicted(t: Any, x: Any, embeddings: Any) -> Any:
        uncond, text = model.network(torch.cat([x, x]), t, encoder_hidden_states=embeddings).sample.chunk(2)
        return uncond, text

    with torch.no_grad(), Membranes(model, theta):  # the network in training draws
        model.pipe.scheduler.set_timesteps(steps)
        x = start
        for t in model.pipe.scheduler.timesteps[:k]:
            uncond, text = predicted(t, x, torch.cat([empty, c]))
            x = model.pipe.scheduler.step(uncond + 3 * (text - uncond), t, x).prev_sample
    t = torch.arange(model.timesteps).flip(0)[int(k * 1000 / steps)]
    repeated, pairs = x.repeat(len(vectors), 1, 1, 1), torch.cat([torch.cat([empty, v[None]]) for v in vectors])
    with torch.no_grad():
        neutral, positive = predicted(t, x, torch.cat([empty, c]))
        _, before = predicted(t, repeated, pairs)
    with Membranes(model, theta):
        _, target = predicted(t, x, torch.cat([empty, c]))
        _, after = predicted(t, repeated, pairs)
    return F.mse_loss(target, neutral - eta * (positive - neutral)) + strength * F.mse_loss(after, before)


def surroundings_drawn(model: Any, words: str, n: int, generator: torch.Generator) -> Any:
    """The release's draws in our generator's order, two for each of n: it halves the doubled batch and so drops the
    first half.
    """
    e_c, found = model.encode([words])[0], []
    while len(found) < n:
        noise = torch.randn(e_c.shape, generator=generator)
        if float(torch.rand((), generator=generator)) < 1 - float(
            F.cosine_similarity(noise.flatten(), e_c.flatten(), dim=0)
        ):
            found.append((0.8 + 0.4 * float(torch.rand((), generator=generator))) * e_c.norm() * noise / noise.norm())
    return torch.stack(found)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_spm_faithful_equals_the_release_written_out_for_three_updates(
    model: Any, concept: Any, tmp_path: Path, n: int
) -> None:
    concept = replace(concept, templates=("{}",))
    cfg = compose(["model=random", "method=spm_faithful", "anchor=published"])
    method = replace(build(cfg.method, "method"), steps=3, batch=1, lr=1e-2, pool_steps=30, surroundings=n)
    target = build(cfg.anchor, "anchor").start(model, concept, 0)
    losses: list[float] = []
    edit = method.erase(model, [target], 0, tmp_path, lambda i, **s: losses.append(s["train/loss"]))
    theta = factors(model.weights("transformers"), 1, random(0, 3, 0, 0))
    adam = torch.optim.Adam(theta.values(), 1e-2)
    for i in range(3):
        k = 1 + int(torch.randint(29, (1,), generator=random(0, 0, 1, i)))
        own = surroundings_drawn(model, "a butterfly", n, random(0, 3, 1, i))
        # Rows n and up of [empty, v0, empty, v1, ...] are kept: of our n draws those take the places that are not the
        # empty prompt's.
        vectors, kept_rows = torch.zeros(n, *own.shape[1:]), [divmod(n + j, 2) for j in range(n)]
        for j, (which, is_vector) in enumerate(kept_rows):
            if is_vector:
                vectors[which] = own[j]
        start = model._noise(["a butterfly"], [1_000_000 + i * 4])
        loss = released_spm(model, theta, "a butterfly", start, k, 30, vectors, 1.0, 1000.0)
        assert losses[i] == pytest.approx(loss.item(), rel=1e-3)
        adam.zero_grad()
        loss.backward()
        adam.step()
    near = torch.cat([((edit[name] - theta[name]).abs() < 1e-4).flatten() for name in theta])
    assert (
        near.float().mean() > 0.995
    )  # Adam's first step is the sign of a gradient, and where that is rounding so is the step


def test_spms_habits_of_the_release_are_each_a_setting_that_changes_the_edit(
    model: Any, concept: Any, tmp_path: Path
) -> None:
    plain = replace(SPM, latents="denoise", surroundings=4, batch=1)
    variants = [
        plain,
        replace(plain, half_empty=True),
        replace(plain, latents="training"),
        replace(plain, latents="training", above=True),
    ]
    edits = []
    for i, method in enumerate(variants):
        (tmp_path / str(i)).mkdir()
        edits.append(method.erase(model, [Empty(name="empty").start(model, concept, 0)], 0, tmp_path / str(i), quiet))
    for i, a in enumerate(edits):
        assert not any(all(torch.equal(a[k], b[k]) for k in a) for b in edits[:i])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("method.above=true", "set latents=training too"),
        ("method.latents=training method.pool_steps=1", "set pool_steps to at least 2"),
    ],
)
def test_spm_refuses_settings_that_would_not_be_used(settings: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        compose(["model=random", "method=spm", "anchor=published", *settings.split()])


@pytest.mark.parametrize(
    ("method", "changes", "sentence"),
    [
        (
            "mace",
            {"mask_side": 16},
            "no cross-attention of this model has 16 x 16 pixels: set method.mask_side to one of 4, 8",
        ),
        (
            "receler",
            {"mask_side": 16},
            "no cross-attention of this model has 16 x 16 pixels: set method.mask_side to one of 4, 8",
        ),
        ("receler", {"adversary": 20}, "method.adversary=20 does not fit behind the longest sentence"),
        ("mace", {"rank": 33}, "method.rank=33 is no low rank: no matrix of keys or values has more than 32"),
        ("spm", {"rank": 65}, "method.rank=65 is no low rank: no matrix of method.scope has more than"),
        ("spm_faithful", {"rank": 65}, "method.rank=65 is no low rank"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_anything_is_drawn_or_learned(
    method: str,
    changes: dict[str, Any],
    sentence: str,
    model: Any,
    concept: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = compose(
        ["model=random", f"method={method}", "anchor=adversarial", *(f"method.{k}={v}" for k, v in changes.items())]
    )
    target = build(cfg.anchor, "anchor").start(model, concept, 0)
    whole = model.trajectory

    def glance(*where: Any, until: int | None = None, **how: Any) -> Any:
        assert until == 0  # the start noise alone, to see how large the attention maps are
        return whole(*where, until=until, **how)

    monkeypatch.setattr(model, "trajectory", glance)
    monkeypatch.setattr(model, "latents", None)
    with pytest.raises(BadInput) as error:
        build(cfg.method, "method").erase(model, [target], 0, tmp_path, quiet)
    assert sentence in str(error.value)
    assert target.state()["taken"] == 0
    assert not list(tmp_path.iterdir())


def test_a_mask_that_is_not_used_need_not_fit(model: Any, concept: Any, tmp_path: Path) -> None:
    for i, method in enumerate(
        [replace(MACE, mask_side=16, threshold=None), replace(RECELER, mask_side=16, regularise=0.0)]
    ):
        (tmp_path / str(i)).mkdir()
        assert method.erase(
            model, [Superclass(name="superclass").start(model, concept, 0)], 0, tmp_path / str(i), quiet
        )


def test_surroundings_have_the_concepts_norm_within_a_fifth_and_another_direction(
    model: Any, concept: Any, step: Any
) -> None:
    e_c = model.encode(texts("a butterfly"))
    around = surrounding(step, 30, torch.Generator().manual_seed(0))
    ratios = torch.stack([r.norm() / e_c[i % 3].norm() for i, r in enumerate(around)])
    assert ratios.min() >= 0.8 - 1e-4
    assert ratios.max() <= 1.2 + 1e-4
    assert ratios.std() > 0.05
    assert (
        max(abs(float(F.cosine_similarity(r.flatten(), e_c[i % 3].flatten(), dim=0))) for i, r in enumerate(around))
        < 0.3
    )


# --- the mask ---------------------------------------------------------------------------------------------------


def test_a_mask_is_the_scaled_mean_attention_of_the_concepts_tokens_cut_at_the_threshold(
    model: Any, concept: Any, step: Any
) -> None:
    e = encode(model, texts("a butterfly"))
    spans = [model.span(t, "butterfly") for t in texts("a butterfly")]
    got = mask(model.attention(step.x, step.t, e), spans, 8, 0.6)
    layers = [heads for heads in attention(model, step, e) if heads[0].shape[1] == 64]
    for row, span in enumerate(spans):
        mean = sum(a[row][:, p] for heads in layers for a in heads for p in span) / (
            len(layers) * len(layers[0]) * len(span)
        )
        scaled = (mean - mean.min()) / (mean.max() - mean.min())
        assert torch.equal(got[row].flatten() > 0, scaled >= 0.6)
    assert set(got.unique().tolist()) == {0.0, 1.0}
    with pytest.raises(BadInput, match=r"set method\.mask_side to one of 4, 8"):
        mask(model.attention(step.x, step.t, e), spans, 16, 0.6)


# --- Receler ----------------------------------------------------------------------------------------------------


def test_recelers_loss_and_gradient_equal_its_equations(model: Any, concept: Any, step: Any) -> None:
    theta = perturbed(erasers(model, 4, torch.Generator().manual_seed(0)))
    target = Empty(name="empty").start(model, concept, 0)
    adversary = Adversary(model, target, RECELER, torch.Generator().manual_seed(1))
    adv, e_a, sentences = (
        adversary.embeddings.detach().clone(),
        encode(model, ["", "", ""]).detach(),
        texts("a butterfly"),
    )
    got = RECELER.loss(step, theta, e_a, adversary)
    gradient = torch.autograd.grad(got, list(theta.values()))

    e = encode(model, sentences).detach().clone()
    for row, sentence in enumerate(sentences):
        end = len(model.pipe.tokenizer(sentence).input_ids) - 1
        e[row, end : end + 2] = adv
    outputs: list[Any] = []

    def behind(module: Any, args: Any, out: Any, name: str) -> Any:
        net = [theta[f"eraser.{name}.{part}"] for part in ("down.weight", "down.bias", "up.weight", "up.bias")]
        outputs.append(F.gelu(out @ net[0].T + net[1]) @ net[2].T + net[3])
        return out + outputs[-1]

    handles = [
        m.register_forward_hook(lambda m, a, out, name=name: behind(m, a, out, name))
        for name, m in model.network.named_modules()
        if name.endswith("attn2")
    ]
    n_adv = predict(model, step, e)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        n_a, n_c = predict(model, step, e_a), predict(model, step, encode(model, sentences))
        where = mask(
            model.attention(step.x, step.t, encode(model, sentences)),
            [model.span(t, "butterfly") for t in sentences],
            8,
            0.5,
        )
    expected = (n_adv - (n_a - 1.5 * (n_c - n_a))).square().mean()
    for out in outputs:
        side = round(out.shape[1] ** 0.5)
        outside = 1 - F.interpolate(where[:, None], (side, side))[:, 0]
        image = out.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        expected = expected + 0.3 / len(outputs) * (image * outside[:, None]).pow(2).mean(1).sum() / outside.sum()
    reference = torch.autograd.grad(expected, list(theta.values()))
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(gradient, reference, strict=True))
    assert not torch.equal(adversary.embeddings, adv)  # it took its step after it was used


def test_recelers_adversary_descends_towards_what_the_frozen_model_predicts(
    model: Any, concept: Any, step: Any
) -> None:
    theta = perturbed(erasers(model, 4, torch.Generator().manual_seed(0)))
    adversary = Adversary(
        model,
        Empty(name="empty").start(model, concept, 0),
        replace(RECELER, attack_decay=0.0),
        torch.Generator().manual_seed(1),
    )
    start = adversary.embeddings.detach().clone().requires_grad_()
    adam = torch.optim.Adam([start], 0.1)
    sentences = texts("a butterfly")
    ends = [len(model.pipe.tokenizer(t).input_ids) - 1 for t in sentences]
    for _ in range(3):
        e = torch.stack(
            [
                torch.cat([row[:end], start, row[end + 2 :]])
                for row, end in zip(encode(model, sentences), ends, strict=True)
            ]
        )
        with model.edited({k: v.detach() for k, v in theta.items()}):
            loss = (predict(model, step, e) - step.frozen("a butterfly")).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        adversary.attack(step, theta)
    assert torch.allclose(adversary.embeddings, start, atol=1e-4)
    assert all(w.grad is None for w in theta.values())


def test_three_steps_of_receler_equal_plain_adam_with_the_adversary_carried_on(
    model: Any, concept: Any, tmp_path: Path
) -> None:
    target = Empty(name="empty").start(model, concept, 0)
    edit = RECELER.erase(model, [target], 0, tmp_path, quiet)
    runs = Trajectories.drawn(model, concept, 4, 0, tmp_path, steps=3, guidance=2.0, phrase="a butterfly")
    theta, adversary = erasers(model, 4, random(0, 3, 0, 0)), Adversary(model, target, RECELER, random(0, 3, 1, 0))
    adam = torch.optim.Adam(theta.values(), 1e-2)
    for i in range(3):
        s = runs.step(i, 0, 2)
        for _ in range(2):
            adversary.attack(s, theta)
        adam.zero_grad()
        RECELER.loss(s, theta, model.encode(["", ""]), adversary).backward()
        adam.step()
    assert all(torch.allclose(edit[k], theta[k], atol=1e-6) for k in theta)
    before = model.latents(["a butterfly"], [3], steps=3, guidance=2.0)
    save_file({k: v.detach().contiguous() for k, v in edit.items()}, tmp_path / "edit.safetensors")
    with model.edited(load_file(tmp_path / "edit.safetensors")):
        assert not torch.allclose(model.latents(["a butterfly"], [3], steps=3, guidance=2.0), before, atol=1e-4)
    assert torch.equal(model.latents(["a butterfly"], [3], steps=3, guidance=2.0), before)


def test_an_adversary_that_does_not_fit_behind_the_sentences_is_refused(
    model: Any, concept: Any, tmp_path: Path
) -> None:
    with pytest.raises(
        BadInput,
        match=r"method.adversary=99 does not fit behind the longest sentence of butterfly: \d+ places are left",
    ):
        replace(RECELER, adversary=99).erase(model, [Empty(name="empty").start(model, concept, 0)], 0, tmp_path, quiet)


# --- MACE -------------------------------------------------------------------------------------------------------


def test_maces_refinement_maps_the_words_around_the_concept_and_not_the_concept(model: Any, concept: Any) -> None:
    """ "an emoji of a butterfly" towards "an emoji of a bug": start token, three words before the slot, then end and
    padding, aligned behind the last word piece.
    """
    target = Superclass(name="superclass").start(model, concept, 0)
    old, new = MACE.matched(model, target)
    rows_old, rows_new = [], []
    for template in concept.templates:
        t_c, t_a = template.replace("{}", "a butterfly"), template.replace("{}", "a bug")
        ids = [model.pipe.tokenizer(t).input_ids for t in (template.split("{}")[0], t_c, t_a)]
        before, last_c, last_a = len(ids[0]) - 1, len(ids[1]) - 2, len(ids[2]) - 2
        e_c, e_a = (encode(model, [t])[0].detach() for t in (t_c, t_a))
        length = model.length - 1 - max(last_c, last_a)
        rows_old += [e_c[i] for i in range(before)] + [e_c[last_c + 1 + i] for i in range(length)]
        rows_new += [e_a[i] for i in range(before)] + [e_a[last_a + 1 + i] for i in range(length)]
    assert torch.allclose(old, torch.stack(rows_old), atol=1e-5)
    assert torch.allclose(new, torch.stack(rows_new), atol=1e-5)


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_maces_loss_is_the_sum_of_norms_of_the_concepts_attention_inside_the_mask(
    model: Any, concept: Any, step: Any, threshold: Any
) -> None:
    frozen = model.weights("attn2.kv")
    refined = {k: w * 1.1 for k, w in frozen.items()}
    theta = perturbed(loras(frozen, [OWN], 1, torch.Generator().manual_seed(0)))
    got = replace(MACE, threshold=threshold).loss(step, theta, refined)
    gradient = torch.autograd.grad(got, list(theta.values()), allow_unused=True)
    sentences = texts("a butterfly")
    e = encode(model, sentences)
    where = (
        mask(model.attention(step.x, step.t, e), [model.span(t, "butterfly") for t in sentences], 8, 0.5)
        if threshold
        else torch.ones(3, 8, 8)
    )
    expected = torch.zeros(())
    tuned = {k: refined[k] + theta[f"{OWN}/lowrank.{k}.up"] @ theta[f"{OWN}/lowrank.{k}.down"] for k in frozen}
    for (
        name,
        module,
    ) in model.network.named_modules():  # tensors in the place of parameters, so that the gradient reaches the factors
        if f"{name}.weight" in tuned:
            module.forward = lambda x, w=tuned[f"{name}.weight"]: x @ w.T
    for heads in attention(model, step, e):
        side = round(heads[0].shape[1] ** 0.5)
        inside = F.interpolate(where[:, None], (side, side))[:, 0].flatten(1) > 0
        total = torch.zeros(())
        for row, sentence in enumerate(sentences):
            end = len(model.pipe.tokenizer(sentence).input_ids) - 1
            for p in [*model.span(sentence, "butterfly"), *range(end, model.length)]:
                total = total + sum((a[row][inside[row], p] ** 2).sum() for a in heads)
        expected = expected + total.sqrt()
    for name, module in model.network.named_modules():
        if f"{name}.weight" in tuned:
            del module.forward
    reference = torch.autograd.grad(expected, list(theta.values()), allow_unused=True)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    for a, b in zip(gradient, reference, strict=True):
        assert torch.allclose(*(torch.zeros(()) if g is None else g for g in (a, b)), rtol=1e-3, atol=1e-5)


def test_mace_as_a_whole_equals_its_three_stages_written_out(model: Any, concept: Any, tmp_path: Path) -> None:
    target = Superclass(name="superclass").start(model, concept, 0)
    edit = MACE.erase(model, [target], 0, tmp_path, quiet)
    frozen = {k: w.double() for k, w in model.weights("attn2.kv").items()}
    eye = torch.eye(32).double()
    keep = [row.double() for text in kept(concept) for row in model.encode([text])[0]]

    def least(start: Any, pairs: Any, w0: Any) -> Any:
        left, right = 5.0 * start, 5.0 * eye
        for c, v in pairs:
            left, right = left + v[:, None] @ c[None], right + c[:, None] @ c[None]
        for k in keep:
            left, right = left + 0.2 * (w0 @ k)[:, None] @ k[None], right + 0.2 * k[:, None] @ k[None]
        return left @ torch.inverse(right)

    old, new = (x.double() for x in MACE.matched(model, target))
    refined = {k: least(w, [(c, w @ a) for c, a in zip(old, new, strict=True)], w).float() for k, w in frozen.items()}
    theta = loras(model.weights("attn2.kv"), [OWN], 1, random(0, 3, 0, 0))
    pool = replace(Pool.drawn(model, concept, 4, 0, tmp_path, steps=2, guidance=2.0), times=focus(1000))
    adam = torch.optim.Adam(theta.values(), 1e-2)
    for i in range(3):
        adam.zero_grad()
        MACE.loss(pool.step(i, 0, 2), theta, refined).backward()
        norm = torch.cat([w.grad.flatten() for w in theta.values() if w.grad is not None]).norm()
        for w in theta.values():
            if w.grad is not None:
                w.grad *= min(1.0, 1.0 / float(norm))
        adam.step()
    words = [row.double() for t in concept.templates for row in model.encode([t.replace("{}", "a butterfly")])[0]]
    for k, w in frozen.items():
        lora = (refined[k] + theta[f"{OWN}/lowrank.{k}.up"] @ theta[f"{OWN}/lowrank.{k}.down"]).detach().double()
        assert torch.allclose(edit[k], least(refined[k].double(), [(e, lora @ e) for e in words], w).float(), atol=1e-4)


def test_maces_timesteps_lie_where_the_release_looks(model: Any) -> None:
    p = focus(1000)
    assert float(p.sum()) == pytest.approx(1.0)
    assert 250 <= int(p.argmax()) <= 350
    assert float(p[200:400].sum()) > 0.8


def test_mace_with_the_concept_as_anchor_and_no_steps_changes_nothing(model: Any, concept: Any, tmp_path: Path) -> None:
    edit = replace(MACE, steps=0).erase(model, [Same(name="concept").start(model, concept, 0)], 0, tmp_path, quiet)
    assert all(torch.allclose(v, model.weights("attn2.kv")[k], atol=1e-5) for k, v in edit.items())
