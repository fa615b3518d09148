"""Every family of models draws what diffusers draws and learns what a plain transcription learns."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_conf import options
from test_every_method import METHODS, NO_ANCHOR, equal, erase
from test_spaces import METHODS as LEARNED
from torch import Tensor

from advanchor.anchors.adversarial import Adversarial
from advanchor.anchors.words import Superclass
from advanchor.build import build
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.models.sampling import image_seed
from advanchor.models.stable_diffusion import StableDiffusion
from advanchor.prompts import Prompt
from advanchor.protocols import Step
from advanchor.training import loop as training
from advanchor.training.pools import Pool, Trajectories

FAMILIES = [
    ("sd", "epsilon"),
    ("sd", "v_prediction"),
    ("sdxl", "epsilon"),
    ("sdxl", "v_prediction"),
    ("sd3", "velocity"),
    ("flux", "velocity"),
]
NEW = [FAMILIES[i] for i in (1, 2, 4, 5)]  # each way to differ once
OF_U_NETS = ("fmn", "mace", "receler", "sld_max", "sld_medium", "sld_strong", "spm_faithful")
TEXTS = ["a butterfly", "an emoji of a car"]


@pytest.fixture(scope="module", params=NEW, ids="-".join)
def other(request: pytest.FixtureRequest) -> Any:
    """A model of a family that is not the one of every other test."""
    return opened(*request.param)


def opened(family: str, predicts: str) -> Any:
    words = ["model=random", f"model.family={family}", f"model.predicts={predicts}"]
    return build(compose(words).model, "model").open("cpu")


def plain(model: Any, x: Tensor, t: Tensor, texts: list[str], shift: Tensor | None = None) -> Tensor:
    """The network's output for sentences as diffusers encodes them, without our conditions; `shift` is added to what
    the text encoders make of each token.
    """
    kind = type(model.pipe).__name__
    if kind == "FluxPipeline":
        tokens, pooled, txt = model.pipe.encode_prompt(texts, None, max_sequence_length=32)
        tokens = tokens if shift is None else tokens + shift
        img = model.pipe._prepare_latent_image_ids(len(x), x.shape[2] // 2, x.shape[3] // 2, "cpu", torch.float32)
        out = model.network(
            model.pipe._pack_latents(x, len(x), 16, *x.shape[2:]), timestep=t / 1000, encoder_hidden_states=tokens,
            pooled_projections=pooled, txt_ids=txt, img_ids=img, guidance=torch.full((len(x),), 3.5), return_dict=False,
        )[0]  # fmt: skip
        factor = model.pipe.vae_scale_factor
        return model.pipe._unpack_latents(out, x.shape[2] * factor, x.shape[3] * factor, factor)  # type: ignore[no-any-return]
    if kind == "StableDiffusion3Pipeline":
        tokens, _, pooled, _ = model.pipe.encode_prompt(
            texts, None, None, do_classifier_free_guidance=False, max_sequence_length=32
        )
        tokens = tokens if shift is None else tokens + shift
        named = {"timestep": t, "encoder_hidden_states": tokens, "pooled_projections": pooled}
        return model.network(x, **named, return_dict=False)[0]  # type: ignore[no-any-return]
    if hasattr(model.pipe, "text_encoder_2"):
        tokens, _, pooled, _ = model.pipe.encode_prompt(texts, do_classifier_free_guidance=False)
        size = model.pixels
        ids = torch.tensor([[size, size, 0, 0, size, size]]).float().expand(len(x), -1)
        more = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}
    else:
        tokens, more = model.pipe.encode_prompt(texts, "cpu", 1, False)[0], {}
    tokens = tokens if shift is None else tokens + shift
    return model.network(x, t, encoder_hidden_states=tokens, return_dict=False, **more)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_we_draw_what_the_pipeline_of_diffusers_draws(other: Any, guidance: float) -> None:
    draws_what_diffusers_draws(other, guidance)


@pytest.mark.parametrize("family", ["sd35", "schnell"])
def test_so_do_the_other_models_of_a_family(family: str) -> None:
    """Stable Diffusion 3.5 medium has layers in which the image looks at itself twice, FLUX.1 schnell no scale."""
    draws_what_diffusers_draws(opened(family, "velocity"), 3.0)


def draws_what_diffusers_draws(other: Any, guidance: float) -> None:
    seeds = [3, 4]
    drawn = other.draw([Prompt(t, s) for t, s in zip(TEXTS, seeds, strict=True)], steps=4, guidance=guidance)
    noise = torch.stack(
        [
            torch.randn(channels(other), 8, 8, generator=torch.Generator().manual_seed(image_seed(t, s)))
            for t, s in zip(TEXTS, seeds, strict=True)
        ]
    )
    told: dict[str, Any] = {"latents": noise, "num_inference_steps": 4, "guidance_scale": guidance}
    if type(other.pipe).__name__ == "StableDiffusion3Pipeline":
        told["max_sequence_length"] = 32
    if type(other.pipe).__name__ == "FluxPipeline":
        told |= {"guidance_scale": 3.5, "true_cfg_scale": guidance, "negative_prompt": ["", ""]}
        told |= {"max_sequence_length": 32, "latents": other.pipe._pack_latents(noise, 2, 16, 8, 8)}
    expected = other.pipe(TEXTS, **told).images
    for a, b in zip(drawn, expected, strict=True):
        assert a.size == b.size == (other.pixels, other.pixels)
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max() <= 1
    assert np.asarray(drawn[0]).std() > 0


def test_no_prompt_is_zeros_or_the_empty_prompt_as_the_folder_says(tmp_path: Path) -> None:
    model = opened("sdxl", "epsilon")
    model.pipe.save_pretrained(tmp_path)
    pictures = []
    index = json.loads((tmp_path / "model_index.json").read_text())
    for blank in (True, False):
        (tmp_path / "model_index.json").write_text(json.dumps({**index, "force_zeros_for_empty_prompt": blank}))
        loaded = StableDiffusion(name="sdxl", path=str(tmp_path)).open("cpu")
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(image_seed("a fox", 1)))
        (ours,) = loaded.draw([Prompt("a fox", 1)], steps=3, guidance=4.0)
        (theirs,) = loaded.pipe("a fox", latents=noise, num_inference_steps=3, guidance_scale=4.0).images
        assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int)).max() <= 1
        pictures.append(np.asarray(ours).astype(int))
        if blank:
            latents = [one.latents(["a fox"], [1], steps=2, guidance=2.0) for one in (model, loaded)]
            assert torch.allclose(*latents, atol=1e-5)
    assert np.abs(pictures[0] - pictures[1]).max() > 1


def channels(model: Any) -> int:
    return int(model.pipe.vae.config.latent_channels)


def noised(model: Any, concept: Any) -> Step:
    g = torch.Generator().manual_seed(3)
    templates = ("{}", "an emoji of {}")
    return Step(model, concept, torch.randn(2, channels(model), 8, 8, generator=g), torch.tensor([40, 700]), templates)


@pytest.mark.parametrize("method", LEARNED, ids=lambda one: one.name)
def test_loss_and_gradient_equal_the_formula(other: Any, concept: Any, method: Any) -> None:
    step = noised(other, concept)
    e_a = Superclass(name="superclass").start(other, concept, 0).embed(step)
    theta = {k: (v * 1.1).requires_grad_() for k, v in other.weights("attn2").items()}
    got = method.loss(step, theta, e_a)
    gradient = torch.autograd.grad(got, list(theta.values()))
    own, above = ["a butterfly", "an emoji of a butterfly"], ["a bug", "an emoji of a bug"]
    with torch.no_grad():
        n_c, n_b = (plain(other, step.x, step.t, texts) for texts in (own, above))
    with other.edited(theta):
        trained = [other.network.get_parameter(name).requires_grad_() for name in theta]
        said = plain(other, step.x, step.t, own)
        if method.name == "esd":
            expected = (said - (n_b - 2.0 * (n_c - n_b))).square().mean()
        else:
            kept = plain(other, step.x, step.t, above)
            expected = (said - n_b).square().mean() + 10 * (kept - n_b).square().mean()
        reference = torch.autograd.grad(expected, trained)
        other.network.requires_grad_(False)
    assert got.item() == pytest.approx(expected.item(), rel=1e-4)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradient, reference, strict=True))


@pytest.mark.parametrize("method", LEARNED, ids=lambda one: one.name)
def test_three_steps_equal_plain_adam(other: Any, concept: Any, tmp_path: Path, method: Any) -> None:
    anchor = Superclass(name="superclass")
    three = replace(method, steps=3, batch=2)
    edit = three.erase(other, [anchor.start(other, concept, 0)], 0, tmp_path, lambda i, **s: None)
    saved = load_file(next(tmp_path.glob("butterfly-*/*.safetensors")))
    if method.name == "ac":
        source: Any = Pool(other, concept, saved["latents"], concept.templates[:4], 0)
    else:
        templates = tuple(concept.templates[i % len(concept.templates)] for i in range(len(saved["latents"])))
        source = Trajectories(other, concept, saved["latents"], saved["timesteps"], templates, 0)
    theta = {k: v.clone().requires_grad_() for k, v in other.weights("attn2").items()}
    adam = torch.optim.Adam(theta.values(), 1e-3)
    for i in range(3):
        s = source.step(i, 0, 2)
        own, above = s.texts(concept.phrase), s.texts(concept.superclass)
        n_c, n_b = s.frozen(concept.phrase), s.frozen(concept.superclass)
        goal = n_b if method.name == "ac" else n_b - 2.0 * (n_c - n_b)
        loss = (other.predict(s.x, s.t, other.encode(own), theta) - goal).square().mean()
        if method.name == "ac":
            loss = loss + 10 * (other.predict(s.x, s.t, other.encode(above), theta) - n_b).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert any(not torch.equal(edit[k], other.weights("attn2")[k]) for k in edit)
    assert all(torch.allclose(edit[k], theta[k], atol=1e-5) for k in theta)


@pytest.mark.parametrize("loss", ["direction", "product"])
def test_an_adversarial_anchor_moves_the_names_tokens_by_the_formulas_gradient(
    other: Any, concept: Any, loss: Any
) -> None:
    step = noised(other, concept)
    anchor = Adversarial(name="a", loss=loss, schedule="alternating", place="output", steps=1, lr=0.1, init=0.3)
    target = anchor.start(other, concept, 0)
    delta = target.parameter.detach().clone().requires_grad_()
    own, above = ["a butterfly", "an emoji of a butterfly"], ["a bug", "an emoji of a bug"]
    shift = torch.zeros(2, other.length, delta.shape[1])
    rows = [
        [place for stream in range(len(other.streams)) for place in other.span(text, "butterfly", stream=stream)]
        for text in own
    ]
    for row, places in enumerate(rows):
        shift[row, places] = delta
    n_a = plain(other, step.x, step.t, own, shift)
    with torch.no_grad():
        n_c, n_b = (plain(other, step.x, step.t, texts) for texts in (own, above))
    if loss == "product":
        n_a, n_c = (other.as_noise(one, step.x, step.t) for one in (n_a, n_c))
        expected = (n_a * n_c).mean()
    else:
        expected = ((n_a - n_b) * (n_c - n_b)).mean()
    expected.backward()
    got = target.loss(step)
    (gradient,) = torch.autograd.grad(got, target.parameter)
    assert got.item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-6)
    assert torch.allclose(gradient, delta.grad, atol=1e-6)  # type: ignore[arg-type]
    moved = (target.condition(step.templates) - other.encode(own)).abs().sum(-1) > 0
    for row, places in zip(moved, rows, strict=True):
        assert row.nonzero().flatten().tolist() == places


USUAL = ("ac", "esd", "uce", "spm", "mace")


@pytest.mark.parametrize("method", [pytest.param(m, marks=() if m in USUAL else pytest.mark.slow) for m in METHODS])
def test_a_method_erases_in_every_family_goes_back_and_resumes_to_the_same_bits(
    other: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    # MACE's perturbation moves the input of a text encoder, of which XL has two
    own = {**dict.fromkeys(NO_ANCHOR, "concept"), "mace": "published"}
    anchor = own.get(method, "adversarial")
    if other.predicts == "velocity" and method in OF_U_NETS:
        with pytest.raises(BadInput, match="as it is set, and model=random has none"):
            compose(["model=random", "model.family=sd3", f"method={method}", "anchor=concept"])
        return
    whole = erase(other, tmp_path / "whole", method, anchor)
    prompt: dict[str, Any] = dict(texts=["a butterfly"], seeds=[1], steps=2, guidance=2.0)
    before = other.latents(**prompt)
    with other.edited(whole):
        assert torch.isfinite(other.latents(**prompt)).all()
    assert torch.equal(other.latents(**prompt), before)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    class Killed(Exception): ...

    def log(i: int, **scalars: float) -> None:
        if i == 1:
            raise Killed

    with suppress(Killed):  # a closed form has no second step
        erase(other, tmp_path / "killed", method, anchor, log=log)
    assert equal(erase(other, tmp_path / "killed", method, anchor), whole)


def test_the_whole_story_runs_on_xl_with_every_attack_that_it_takes(tiny: Any) -> None:
    taken = [one for one in options("attack") if one not in (*TOKENS, "prompts", "implicit")]
    result = tiny("model.family=sdxl", f"attack=[{','.join(taken)}]", "metric=[erasure,content,anchor]")
    assert {name.split("/")[1] for name in result["scores"] if name.startswith("attack/")} == set(taken)
    assert result["changed"]["tensors"] > 0


def test_text_encoders_of_xl_are_edited_together_and_undone() -> None:
    model = opened("sdxl", "epsilon")
    edit = {name: tensor + 0.01 for name, tensor in model.weights("text_encoder").items()}
    assert {name.partition(".")[0] for name in edit} == {"text_encoder", "text_encoder_2"}
    before, learned = model.encode(TEXTS), model.encode(TEXTS, weights=edit)
    with model.edited(edit):
        assert torch.allclose(model.encode(TEXTS), learned, atol=1e-5)
        assert not torch.allclose(learned, before, atol=1e-3)
    assert torch.equal(model.encode(TEXTS), before)


def table() -> str:
    """What works with which family, as docs/families.md has it: each method with its published anchor, each anchor in
    AC, each attack.
    """
    names = ["SD 1.x, 2.x noise", "SD 1.x, 2.x v", "SDXL noise", "SDXL v", "SD 3", "FLUX"]
    lines = [f"| | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    parts = [(f"method={one}", [f"method={one}", "anchor=published"]) for one in METHODS]
    parts += [(f"anchor={one}", [f"anchor={one}"]) for one in options("anchor")]
    parts += [
        (f"attack=[{one}]", [f"attack=[{one}]"]) for one in options("attack") if one not in ("prompts", "implicit")
    ]
    for name, words in parts:
        cells = []
        for family, predicts in FAMILIES:
            try:
                compose(["model=random", f"model.family={family}", f"model.predicts={predicts}", *words])
                cells.append("yes")
            except BadInput as refused:
                cells.append(str(refused).partition("needs ")[2].partition(" as it is")[0].join(("needs ", "")))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_the_page_of_families_says_what_works_with_which() -> None:
    page = (Path(__file__).parents[1] / "docs/families.md").read_text()
    assert page.partition("<!-- table -->\n")[2].partition("<!-- end -->")[0] == table()


TOKENS = ["concept_inversion", "mma", "p4d", "ring_a_bell", "soft_prompt", "unlearn_diff"]


@pytest.mark.parametrize(
    "words", [["anchor=adversarial", "anchor.place=input"], *([f"attack=[{one}]"] for one in TOKENS)]
)
def test_what_needs_one_text_encoder_is_refused_for_two_before_anything_is_loaded(words: list[str]) -> None:
    compose(["model=random", *words])
    with pytest.raises(BadInput, match="needs a single text encoder as it is set, and model=random has none"):
        compose(["model=random", "model.family=sdxl", *words])


def test_what_moves_the_input_of_one_text_encoder_is_refused_where_there_are_two(concept: Any) -> None:
    model = opened("sdxl", "epsilon")
    anchor = Adversarial(name="a", loss="direction", schedule="alternating", place="input", steps=1, lr=0.1)
    with pytest.raises(BadInput, match=r"several text encoders.*anchor\.place=output"):
        anchor.start(model, concept, 0).loss(noised(model, concept))
    with pytest.raises(BadInput, match="attacks that search for tokens"):
        model.vocabulary()
