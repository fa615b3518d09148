"""Half precision, checkpointing, offloading and compiling change what a run takes, and numbers by rounding at most."""

from functools import partialmethod
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from torch import Tensor

from advanchor.build import build, lean_of
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.identity import run_id
from advanchor.machine import NOTHING_SPARED, Lean
from advanchor.models import precision, recomputed
from advanchor.models.latent_diffusion import LatentDiffusion
from advanchor.models.tiny import Kind, Random
from advanchor.models.visits import Visits

FAMILIES = get_args(Kind)
HALVES = ("bfloat16", "float16")
REST = ("negative_prompt", "receler", "mace", "uce")


def opened(family: str, lean: Lean = NOTHING_SPARED, dtype: str = "float32") -> LatentDiffusion:
    return Random(name="random", family=family, dtype=dtype).open("cpu", lean)  # type: ignore[arg-type]


def inputs(model: LatentDiffusion) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((2, *model.shape), generator=generator)
    return x, torch.tensor([100, 700]), model.encode(["a fox", "a car"])


def edit_of(model: LatentDiffusion, what: str) -> dict[str, Tensor]:
    """Leaves of an edit of this kind."""
    generator = torch.Generator().manual_seed(2)

    def some(*shape: int) -> Tensor:
        return 0.1 * torch.randn(shape, generator=generator)

    if what == "lowrank":
        own = {n: p for n, p in model.weights("attn2.kv").items() if p.ndim == 2}
        made = {f"lowrank.{n}.down": some(1, p.shape[1]) for n, p in own.items()}
        made |= {f"lowrank.{n}.up": some(p.shape[0], 1) for n, p in own.items()}
    elif what == "eraser":
        widths = {n.removesuffix(".to_q.weight"): p.shape[1] for n, p in model.weights("attn2").items() if "to_q" in n}
        made = {}
        for layer, wide in widths.items():
            shapes = {"down.weight": (2, wide), "down.bias": (2,), "up.weight": (wide, 2), "up.bias": (wide,)}
            made |= {f"eraser.{layer}.{name}": some(*shape) for name, shape in shapes.items()}
    else:
        made = {n: p + some(*p.shape) for n, p in model.weights(what).items() if p.ndim > 1}
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in made.items()}


def gradients(model: LatentDiffusion, edit: dict[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
    """Of a loss in two predictions, of which the second is under another edit, and in what erasers put out."""
    x, t, cond = inputs(model)
    cond = cond.detach().clone().requires_grad_()
    other = {name: (2 * tensor).detach() for name, tensor in edit.items()}
    seen: list[Tensor] = []
    loss = F.mse_loss(model.predict(x, t, cond, edit, seen), model.predict(x, t, cond.detach(), other).detach() + x)
    loss = loss + sum(one.square().mean() for one in seen)
    leaves = {**edit, "condition": cond}
    return dict(zip(leaves, torch.autograd.grad(scale * loss, list(leaves.values())), strict=True))


KINDS = [(f, w) for f in FAMILIES for w in ("attn2", "full", "lowrank")] + [("sd", "eraser"), ("sdxl", "eraser")]


@pytest.mark.parametrize(("family", "what"), KINDS)
def test_checkpointing_changes_no_bit_of_any_gradient(family: str, what: str) -> None:
    plain, lean = opened(family), opened(family, Lean(checkpointing=True))
    kept, again = gradients(plain, edit_of(plain, what)), gradients(lean, edit_of(lean, what))
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    assert max(float(one.abs().max()) for one in kept.values()) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_computes_blocks_again(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above would compare a network with itself."""
    calls = []
    own = recomputed.Recomputed.__call__
    monkeypatch.setattr(recomputed.Recomputed, "__call__", lambda self, b, *a: (calls.append(b), own(self, b, *a))[1])
    model = opened(family, Lean(checkpointing=True))
    gradients(model, edit_of(model, "attn2"))
    assert len(calls) >= 2


def test_an_edit_that_has_left_its_place_is_the_one_that_is_computed_again() -> None:
    """The trap: when the backward pass computes a block anew, the network holds its own weights again, or another
    edit's."""
    plain, lean = opened("sd"), opened("sd", Lean(checkpointing=True))

    def both(model: LatentDiffusion) -> list[Tensor]:
        x, t, cond = inputs(model)
        first, second = edit_of(model, "full"), edit_of(model, "full")
        a, b = model.predict(x, t, cond, first), model.predict(x, t, cond, {n: 3 * w for n, w in second.items()})
        return list(torch.autograd.grad((a * b).sum(), [*first.values(), *second.values()]))

    for kept, again in zip(both(plain), both(lean), strict=True):
        assert torch.equal(kept, again)


@pytest.mark.parametrize("what", ["attn2", "eraser"])
def test_a_graph_goes_backward_twice_under_checkpointing(what: str) -> None:
    """As Receler's does, for its weights and for its adversary."""

    def twice(model: LatentDiffusion) -> list[Tensor]:
        edit = edit_of(model, what)
        loss = model.predict(*inputs(model), edit).square().mean()
        leaves = list(edit.values())
        return [*torch.autograd.grad(loss, leaves, retain_graph=True), *torch.autograd.grad(loss, leaves)]

    for kept, again in zip(twice(opened("sd")), twice(opened("sd", Lean(checkpointing=True))), strict=True):
        assert torch.equal(kept, again)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("method", ["sld_max", "spm", *(pytest.param(m, marks=pytest.mark.slow) for m in REST)])
def test_methods_erase_and_draw_in_half_precision_under_checkpointing(method: str, dtype: str, tmp_path: Path) -> None:
    import advanchor
    from advanchor.commands.export import main

    # Few and short drawings: a CPU takes ten times as long over float16.
    small = [*TINY, f"method={method}", "anchor=published", "metric=[]", "sample.steps=1", "sample.erase=1"]
    words = [*small, f"root={tmp_path}", f"model.dtype={dtype}", "lean.checkpointing=true"]
    result = advanchor.erase(*words)
    assert result["config"]["model"]["dtype"] == dtype
    if method in ("uce", "mace", "spm"):  # of the others no weights in the diffusers layout are the model
        from diffusers import StableDiffusionPipeline

        main([*words, f"--to={tmp_path / 'out'}"])
        pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
        assert {p.dtype for part in (pipe.unet, pipe.text_encoder) for p in part.parameters()} == {torch.float32}
        model, edit = advanchor.load(result)
        with model.edited(edit):
            for name, p in model.network.named_parameters():
                assert torch.equal(pipe.unet.get_parameter(name), p.float()), name
        assert next(model.network.parameters()).dtype == getattr(torch, dtype)


def test_the_same_weights_in_another_precision_are_no_edit(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from advanchor.exchange.released import read

    plain, half = opened("sd"), opened("sd", dtype="bfloat16")
    own = {name: p.detach().clone() for name, p in plain.weights("full").items()}
    changed = next(name for name in own if "attn2.to_k" in name)
    own[changed] += 0.1
    save_file(own, tmp_path / "unet.safetensors")
    assert set(read(tmp_path / "unet.safetensors", half)) == {changed}


def test_attention_is_seen_once_under_checkpointing() -> None:
    plain, lean = opened("sd"), opened("sd", Lean(checkpointing=True))

    def maps(model: LatentDiffusion) -> tuple[list[Tensor], list[Tensor]]:
        edit = edit_of(model, "attn2")
        seen = model.attention(*inputs(model), edit)
        return seen, list(
            torch.autograd.grad(sum(one[..., 1].square().sum() for one in seen), list(edit.values()), allow_unused=True)
        )

    (kept, one), (again, other) = maps(plain), maps(lean)
    assert len(kept) == len(again)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    for a, b in zip(one, other, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_half_precision_speaks_float32_and_says_nearly_the_same(family: str, dtype: str) -> None:
    plain, half = opened(family), opened(family, dtype=dtype)
    assert next(half.network.parameters()).dtype == getattr(torch, dtype)
    assert next(half.pipe.vae.parameters()).dtype == torch.float32
    (x, t, own), (_, _, cond) = inputs(plain), inputs(half)
    exact, near = plain.predict(x, t, own), half.predict(x, t, cond)
    assert cond.dtype == near.dtype == torch.float32
    assert all(p.dtype == torch.float32 for scope in ("attn2", "text_encoder") for p in half.weights(scope).values())
    assert all(p.dtype == torch.float32 for of in ("tokens", "sentence") for p in half.maps(of).values())
    # FLUX rounds t / 1000 and the scale of guidance to its weights' dtype before it makes waves of them, as published.
    assert 0 < F.mse_loss(exact, near).sqrt() < (0.06 if family == "flux" else 0.03) * exact.std()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("family", "what"), KINDS)
def test_gradients_of_half_precision_are_float32_and_point_the_same_way(family: str, what: str, dtype: str) -> None:
    plain, half = opened(family), opened(family, Lean(checkpointing=True), dtype)
    exact, near = (gradients(model, edit_of(plain, what)) for model in (plain, half))
    assert {one.dtype for one in near.values()} == {torch.float32}
    together = [torch.cat([one.flatten() for one in found.values()]) for found in (exact, near)]
    waves = (
        family == "flux" and what == "full" and dtype == "bfloat16"
    )  # see above: other t, other gradients of its layers
    assert F.cosine_similarity(*together, dim=0) > (0.7 if waves else 0.98)
    assert (0.5 if waves else 0.9) < together[1].norm() / together[0].norm() < (1.5 if waves else 1.1)


def test_gradients_below_the_range_of_float16_arrive() -> None:
    """Of a mean over half a million numbers, as latents have, each has a share of 1e-6 and less."""
    plain, half = opened("sd"), opened("sd", dtype="float16")
    exact, near = (gradients(model, edit_of(plain, "attn2"), 1e-4) for model in (plain, half))
    together = [torch.cat([one.flatten() for one in found.values()]) for found in (exact, near)]
    assert F.cosine_similarity(*together, dim=0) > 0.98


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", ["sd", "sdxl", "flux"])
def test_an_edited_text_encoder_in_half_precision_has_gradients_in_float32(family: str, dtype: str) -> None:
    def found(model: LatentDiffusion, whole: LatentDiffusion) -> Tensor:
        edit = {name: p.detach().clone().requires_grad_() for name, p in whole.weights("text_encoder").items()}
        out = model.encode(["a fox"], weights=edit)
        parts = torch.autograd.grad(out[..., :8].square().mean(), list(edit.values()), allow_unused=True)
        assert out.dtype == torch.float32
        return torch.cat([one.flatten() for one in parts if one is not None])

    plain = opened(family)
    exact, near = found(plain, plain), found(opened(family, dtype=dtype), plain)
    assert near.dtype == torch.float32
    assert F.cosine_similarity(exact, near, dim=0) > 0.98
    assert 0.9 < near.norm() / exact.norm() < 1.1


@pytest.mark.parametrize("dtype", HALVES)
def test_a_perturbation_of_the_input_has_its_gradient_in_float32(dtype: str) -> None:
    def found(model: LatentDiffusion) -> Tensor:
        delta = torch.zeros(1, 32, requires_grad=True)
        out = model.encode(["a fox"], delta, [model.span("a fox", "fox")])
        return torch.autograd.grad(out[..., :8].mean(), delta)[0]

    exact, near = found(opened("sd")), found(opened("sd", dtype=dtype))
    assert near.dtype == torch.float32
    assert F.cosine_similarity(exact, near).item() > 0.98
    assert 0.9 < near.norm() / exact.norm() < 1.1


def test_a_float32_network_is_given_its_tensors_as_they_are() -> None:
    x = torch.randn(3, requires_grad=True)
    whole = precision.of(torch.nn.Linear(3, 3))
    assert whole.into(x) is x
    assert whole.out(x) is x


@pytest.mark.parametrize(
    "lean",
    [
        pytest.param(Lean(channels_last=True), id="channels_last"),
        pytest.param(Lean(compile=True), id="compile", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_other_layouts_and_a_compiler_change_gradients_by_rounding(
    family: str, lean: Lean, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler traces here and hands what it traced to torch: code is made of it only on the user's machine."""
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    plain, other = opened(family), opened(family, lean)
    kept, again = gradients(plain, edit_of(plain, "attn2")), gradients(other, edit_of(other, "attn2"))
    for name, one in kept.items():
        torch.testing.assert_close(one, again[name], rtol=1e-3, atol=1e-5)


def test_what_is_off_the_device_is_there_when_it_is_needed_and_then_gone() -> None:
    class Network:
        def __init__(self) -> None:
            self.places: list[Any] = []

        def to(self, place: Any) -> None:
            self.places.append(str(place))

    denoiser, encoder, vae = Network(), Network(), Network()
    visits = Visits(torch.device("cuda"), True)
    visits.settle(denoiser, (encoder, vae))
    with visits.here((vae,)):
        assert vae.places == ["cpu", "cuda"]
    with visits.here((encoder,), stay=True):
        pass
    with visits.here((encoder,)):  # it has come to stay
        pass
    assert (denoiser.places, encoder.places, vae.places) == (["cuda"], ["cpu", "cuda"], ["cpu", "cuda", "cpu"])


def test_networks_come_for_what_needs_them_and_not_for_sentences_that_are_known(monkeypatch: Any) -> None:
    model, came = opened("sd", Lean(offload=True)), []
    own = Visits.here
    monkeypatch.setattr(
        Visits, "here", lambda self, nets, stay=False: (came.extend(nets := list(nets)), own(self, nets, stay))[1]
    )
    model.encode(["a fox"])
    assert came == [*model.encoders.values()]
    model.encode(["a fox"])
    assert len(came) == 1
    model.latents(["a fox"], [0], steps=2, guidance=3.0)  # the empty prompt is new
    assert len(came) == 2
    model.draw([], steps=2, guidance=3.0)
    assert len(came) == 2


def test_settings_of_the_machine_and_the_default_dtype_rename_no_run() -> None:
    tiny = ("model=random", "tracker=none")
    name = run_id(compose(tiny))
    assert run_id(compose((*tiny, "lean.checkpointing=true", "lean.offload=true"))) == name
    assert run_id(compose((*tiny, "model.dtype=bfloat16"))) != name
    assert lean_of(compose((*tiny, "lean.checkpointing=true"))) == Lean(checkpointing=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lean.offlaod=true",), "offload"),
        (("lean.checkpointing=maybe",), "lean.checkpointing=maybe"),
        (("lean.compile=true", "lean.checkpointing=true"), "do not go together"),
        (("model.dtype=half",), "model.dtype=half"),
    ],
)
def test_a_wrong_setting_gets_one_sentence(words: tuple[str, ...], said: str) -> None:
    from advanchor.build import check

    with pytest.raises(BadInput, match=said):
        check(compose(("model=random", "tracker=none", *words)))


def test_autocast_over_half_precision_is_refused() -> None:
    cfg = compose(("tracker=none", "model=emoji"))
    cfg.model.dtype, cfg.model.autocast = "bfloat16", "bfloat16"
    with pytest.raises(BadInput, match="autocast"):
        build(cfg.model, "model")
