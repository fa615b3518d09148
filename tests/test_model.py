"""The model interface keeps its promises: seeds name images, edits are temporary, names are found piece by piece, and a
folder that is no whole model says so.
"""

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from advanchor.core import BadInput
from advanchor.hub import ASSETS
from advanchor.machine import device
from advanchor.models.latent_diffusion import LatentDiffusion
from advanchor.models.noise_schedule import SCHEDULERS
from advanchor.models.sampling import image_seed
from advanchor.models.sentences import add_at
from advanchor.models.stable_diffusion import StableDiffusion
from advanchor.models.tiny import Random
from advanchor.prompts import Prompt

PROMPTS = [Prompt(text, seed, "object", "fox") for text in ("a fox", "an emoji of a car") for seed in (0, 1)]


def pixels(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(i) for i in images]).astype(int)


def test_an_image_depends_on_its_prompt_and_seed_alone(model: Any) -> None:
    together = pixels(model.draw(PROMPTS, steps=3, guidance=3.0))
    alone = pixels([model.draw([p], steps=3, guidance=3.0)[0] for p in reversed(PROMPTS)][::-1])
    assert abs(together - alone).max() <= 1  # rounding of a batched product, at most one grey level
    assert len({image.tobytes() for image in together}) == len(PROMPTS)


@pytest.mark.parametrize(("name", "kind"), [("ddim", "DDIMScheduler"), ("lms", "LMSDiscreteScheduler")])
def test_a_scheduler_draws_what_diffusers_draws_with_it_and_learning_keeps_the_models_own(
    model: Any, name: str, kind: str
) -> None:
    own, before = model.pipe.scheduler, model.trajectory(["a fox"], [0], steps=3, guidance=3.0)
    drawn = pixels(model.draw(PROMPTS[:2], steps=5, guidance=3.0, scheduler=name))
    published = {
        "ddim": {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
        "lms": {"num_train_timesteps": 1000},
    }[name]  # of SD 1's DDIM, of the released evaluation
    try:
        model.pipe.scheduler = getattr(diffusers, kind)(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **published
        )
        texts, seeds = [p.text for p in PROMPTS[:2]], [p.seed for p in PROMPTS[:2]]
        noise = torch.stack(
            [
                torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(image_seed(t, s)))
                for t, s in zip(texts, seeds, strict=True)
            ]
        )
        expected = pixels(model.pipe(texts, latents=noise, num_inference_steps=5, guidance_scale=3.0).images)
    finally:
        model.pipe.scheduler = own
    assert abs(drawn - expected).max() <= 1
    assert model.pipe.scheduler is own
    assert all(
        torch.equal(a, b) for a, b in zip(before, model.trajectory(["a fox"], [0], steps=3, guidance=3.0), strict=True)
    )
    assert bool(abs(drawn - pixels(model.draw(PROMPTS[:2], steps=5, guidance=3.0))).max() > 1) is (
        name == "lms"
    )  # the random model's own is DDIM


def test_an_edit_is_undone_bit_for_bit(model: Any) -> None:
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    plain = pixels(model.draw(PROMPTS[:1], steps=2, guidance=2.0))
    edit = {k: v + 0.5 for k, v in model.weights("attn2").items()}
    with model.edited(edit):
        assert abs(pixels(model.draw(PROMPTS[:1], steps=2, guidance=2.0)) - plain).max() > 1
    with pytest.raises(RuntimeError, match="inside"), model.edited(edit):
        raise RuntimeError("inside")
    assert all(torch.equal(before[k], v) for k, v in model.network.state_dict().items())


def test_other_weights_give_what_an_edited_network_gives(model: Any) -> None:
    x, t, c = torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), model.encode(["a fox", "a car"])
    edit = {k: v * 1.3 for k, v in model.weights("attn2").items()}
    with model.edited(edit), torch.no_grad():
        expected = model.predict(x, t, c)
    with torch.no_grad():
        assert torch.equal(model.predict(x, t, c, edit), expected)
        assert not torch.equal(model.predict(x, t, c), expected)


@pytest.mark.parametrize(
    ("scope", "kept"), [("attn2", ".attn2."), ("attn2.kv", ".attn2.to_"), ("full", ""), ("noxattn", "")]
)
def test_a_scope_holds_what_its_name_says(model: Any, scope: str, kept: str) -> None:
    names = model.weights(scope)
    assert names
    assert all(kept in name for name in names)
    assert (scope == "noxattn") is not any("attn2" in name for name in names)


def test_an_unknown_scope_is_refused(model: Any) -> None:
    with pytest.raises(BadInput, match="choose one of attn2"):
        model.weights("attn3")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a butterfly in noto style", "butterfly"),
        ("an emoji of a birthday cake", "birthday cake"),
        ("a hot dog", "hot dog"),
    ],
)
def test_a_span_holds_every_piece_of_a_name(model: Any, text: str, words: str) -> None:
    span = model.span(text, words)
    assert len(span) > 1
    assert model.pipe.tokenizer.decode([model.pipe.tokenizer(text).input_ids[p] for p in span]).strip() == words


def test_words_that_are_not_there_are_an_error(model: Any) -> None:
    with pytest.raises(BadInput, match="'fox' are not among"):
        model.span("a car", "fox")


def test_delta_at_the_input_moves_the_encoding_and_carries_a_gradient(model: Any) -> None:
    delta = torch.zeros(1, 32, requires_grad=True)
    spans = [model.span("a fox", "fox")]
    assert torch.allclose(model.encode(["a fox"], delta, spans), model.encode(["a fox"]), atol=1e-6)
    model.encode(["a fox"], delta, spans).square().sum().backward()
    assert delta.grad is not None
    assert delta.grad.abs().sum() > 0
    assert not torch.allclose(
        model.encode(["a fox"], delta + torch.arange(32) / 32, spans), model.encode(["a fox"]), atol=1e-3
    )


def test_add_at_touches_the_named_positions_only() -> None:
    out = add_at(torch.zeros(2, 5, 3), torch.ones(2, 3), [[0, 1], [3, 4]])
    assert out.sum((1, 2)).tolist() == [6.0, 6.0]
    assert out[0, 2:].abs().sum() == 0
    assert out[1, :3].abs().sum() == 0


# --- schedulers ------------------------------------------------------------------------------------------------


@pytest.fixture(params=[*SCHEDULERS, "sde-dpmsolver++"])
def scheduled(request: pytest.FixtureRequest, model: Any) -> Any:
    """The random model with each scheduler that a folder may have."""
    own = model.pipe.scheduler
    stochastic = {"algorithm_type": request.param} if request.param not in SCHEDULERS else {}
    kind = getattr(diffusers, "DPMSolverMultistepScheduler" if stochastic else request.param)
    model.pipe.scheduler = kind.from_config(own.config, **stochastic)
    yield model
    model.pipe.scheduler = own


def test_an_image_depends_on_its_prompt_and_seed_alone_with_every_scheduler(scheduled: Any) -> None:
    together = scheduled.draw(PROMPTS, steps=4, guidance=3.0)
    assert [im.tobytes() for im in scheduled.draw(PROMPTS, steps=4, guidance=3.0)] == [im.tobytes() for im in together]
    scheduled.draw(PROMPTS[:1], steps=5, guidance=3.0)  # some schedulers change themselves
    alone = pixels([scheduled.draw([p], steps=4, guidance=3.0)[0] for p in reversed(PROMPTS)][::-1])
    assert abs(pixels(together) - alone).max() <= 1
    assert len({image.tobytes() for image in together}) == len(PROMPTS)


def test_a_trajectory_holds_what_the_network_was_given_and_ends_in_what_diffusers_draws(scheduled: Any) -> None:
    texts, seeds, given = ["a fox", "a car"], [3, 4], []
    hook = scheduled.network.register_forward_pre_hook(
        lambda net, args: given.append((args[0][:2].clone(), float(args[1])))
    )
    try:
        x, t = scheduled.trajectory(texts, seeds, steps=4, guidance=3.0)
    finally:
        hook.remove()
    assert x.shape[1] == len(t) == len(given)
    assert all(torch.equal(x[:, i], seen) and float(t[i]) == at for i, (seen, at) in enumerate(given))
    assert x[:, 0].std() == pytest.approx(
        1, abs=0.2
    )  # noised to unit variance, as the U-Net knows it, whatever the scheduler's own scale
    part, _ = scheduled.trajectory(texts, seeds, steps=4, guidance=3.0, until=2)
    assert torch.equal(part, x[:, :3])
    expected = scheduled.pipe(
        prompt_embeds=scheduled.encode(texts),
        negative_prompt_embeds=scheduled.encode(["", ""]),
        latents=scheduled._noise(texts, seeds),
        num_inference_steps=4,
        guidance_scale=3.0,
        output_type="latent",
        generator=[
            torch.Generator().manual_seed(image_seed(t, s, "scheduler")) for t, s in zip(texts, seeds, strict=True)
        ],
    ).images
    assert torch.equal(scheduled.latents(texts, seeds, steps=4, guidance=3.0), expected)


def test_a_schedulers_noise_is_not_the_start_noise() -> None:
    assert image_seed("a fox", 0, "scheduler") != image_seed("a fox", 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "0 denoising steps will not do: from 1 to 1000"),
        ({"steps": 1001}, "1001 denoising steps"),
        ({"steps": 1000}, "take fewer"),
        ({"guidance": math.inf}, "a guidance of inf"),
        ({"guidance": math.nan}, "a guidance of nan"),
        ({"guidance": 0.5}, "at least 1, which is none"),
        ({"scheduler": "foo"}, "no scheduler 'foo': use one of own, ddim, lms"),
    ],
)
def test_a_setting_of_drawing_out_of_range_is_one_sentence(model: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        model.draw(PROMPTS, **{"steps": 2, "guidance": 3.0, **settings})
    if "scheduler" not in settings:
        with pytest.raises(BadInput, match=said):
            model.trajectory(["a fox"], [0], **{"steps": 2, "guidance": 3.0, **settings})


def test_too_few_steps_for_a_scheduler_are_one_sentence(model: Any) -> None:
    own = model.pipe.scheduler
    model.pipe.scheduler = diffusers.PNDMScheduler.from_config(own.config)
    try:
        with pytest.raises(BadInput, match="PNDMScheduler of random cannot take 2 denoising steps: take more"):
            model.draw(PROMPTS, steps=2, guidance=3.0)
    finally:
        model.pipe.scheduler = own


def test_nothing_to_draw_is_nothing_drawn(model: Any) -> None:
    assert model.draw([], steps=2, guidance=3.0) == []


# --- what is not finite ----------------------------------------------------------------------------------------


def test_an_edit_that_is_not_finite_or_of_another_model_is_refused(model: Any) -> None:
    name, own = next(iter(model.weights("attn2").items()))
    for edit, said in (
        ({name: own * math.nan}, "the edit is not finite"),
        ({"guidance.negative": torch.tensor([math.inf])}, "not finite"),
        ({name: own[:1]}, "made for another model than random"),
        ({"down.nothing": own}, "made for another model"),
        ({"text_encoder.nothing": own}, "made for another model"),
        ({"lowrank.nothing.up": own}, "made for another model"),
        ({"eraser.nothing.up.weight": own}, "made for another model"),
    ):
        with pytest.raises(BadInput, match=said), model.edited(edit):
            pass


def test_latents_and_images_that_are_not_finite_are_no_black_pictures(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match=r"latents of 'a fox' are not finite at guidance 1e\+38 .*: lower the guidance"):
        model.draw(PROMPTS, steps=3, guidance=1e38)
    decode = model.pipe.vae.decode
    monkeypatch.setattr(model.pipe.vae, "decode", lambda z, return_dict: (decode(z, return_dict=False)[0] * math.nan,))
    with pytest.raises(BadInput, match="decoded images are not finite"):
        model.draw(PROMPTS, steps=1, guidance=2.0)


def test_images_are_decoded_a_few_at_a_time_as_they_are_together(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = pixels(model.draw(PROMPTS, steps=2, guidance=3.0))
    monkeypatch.setattr("advanchor.models.sampling.AT_ONCE", 3 * model.pixels**2)
    sizes, decode = [], model.pipe.vae.decode
    monkeypatch.setattr(
        model.pipe.vae, "decode", lambda z, return_dict: sizes.append(len(z)) or decode(z, return_dict=return_dict)
    )
    assert abs(pixels(model.draw(PROMPTS, steps=2, guidance=3.0)) - together).max() <= 1
    assert sizes == [3, 1]


@pytest.mark.parametrize("scheduler", ["own", "lms"])
def test_half_precision_is_the_networks_alone(model: Any, scheduler: str) -> None:
    half = LatentDiffusion("half", model.pipe, "cpu", "bfloat16")
    seen: list[Any] = []
    hook = model.pipe.vae.decoder.conv_in.register_forward_hook(
        lambda net, args, out: seen.append((args[0].dtype, out.dtype))
    )
    dtypes: list[Any] = []
    inner = model.network.conv_in.register_forward_hook(lambda net, args, out: dtypes.append(out.dtype))
    try:
        drawn, full = (pixels(one.draw(PROMPTS, steps=4, guidance=3.0, scheduler=scheduler)) for one in (half, model))
    finally:
        hook.remove(), inner.remove()
    assert set(seen) == {(torch.float32, torch.float32)}
    assert set(dtypes) == {torch.bfloat16, torch.float32}
    assert abs(drawn - full).max() <= 4


# --- prompts that are too long ---------------------------------------------------------------------------------


def test_prompts_that_are_cut_are_known_and_a_concept_that_is_cut_is_refused(model: Any) -> None:
    long = " ".join(["an emoji of a"] * 8)
    assert torch.equal(model.encode([f"{long} fox"]), model.encode([f"{long} car"]))
    assert model.cut([f"{long} fox", "a fox", f"{long} car"]) == [f"{long} fox", f"{long} car"]
    with pytest.raises(BadInput, match="the words 'fox' are cut off: the text encoder reads 24 tokens"):
        model.span(f"{long} fox", "fox")
    assert model.span(f"a fox {long}", "fox") == model.span("a fox", "fox")


def test_a_text_that_just_fits_is_not_cut(model: Any) -> None:
    piece = "a"
    fits = next(
        t for n in range(1, 30) if len(model.pipe.tokenizer(t := " ".join([piece] * n)).input_ids) == model.length
    )
    assert model.cut([fits, f"{fits} {piece}"]) == [f"{fits} {piece}"]
    assert model.end(fits) == model.end(f"{fits} {piece}") == model.length - 1


# --- devices ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["foo", "cuda:7", "cuda:x", "mps", "", "CPU", None, 0])
def test_a_device_that_is_not_there_is_one_sentence(wanted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus in (0, 2):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpus=gpus: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        with pytest.raises(
            BadInput, match=f"device={'null' if wanted is None else wanted} is not available here: use one of auto, cpu"
        ):
            device(wanted)
    assert device("cuda:1") == "cuda:1"


def test_auto_takes_cuda_or_the_cpu_and_never_a_gpu_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for gpus, expected in ((0, "cpu"), (1, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpus=gpus: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert device("auto") == expected
    assert device("mps") == "mps"


# --- a folder --------------------------------------------------------------------------------------------------


def stable(path: Any, **settings: Any) -> StableDiffusion:
    return StableDiffusion(name="sd14", path=None if path is None else str(path), **settings)


@pytest.fixture(scope="module")
def saved(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "m"))


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


PARTS = [
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        half,
        lambda f: f.write_bytes(b""),
        lambda f: f.write_text("[1, 2]"),
        lambda f: f.write_bytes(b"\xff\xfe\x00\x80\x80\x80\x80\x00rest"),
    ],
)
def test_each_file_of_a_model_missing_or_damaged_is_one_sentence_before_anything_is_loaded(
    copied: Path, part: str, damage: Callable[[Path], Any]
) -> None:
    damage(copied / part)
    with pytest.raises(BadInput, match=r"copy it anew|copy it from|copy them from|set model\.path") as refused:
        stable(copied).check()
    assert str(copied) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_whole_part_missing_is_one_sentence(copied: Path, part: str) -> None:
    shutil.rmtree(copied / part)
    with pytest.raises(BadInput, match=f"{part}/.* is missing"):
        stable(copied).check()


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "another pipeline": (
        "model_index.json",
        {"_class_name": "PixArtSigmaPipeline"},
        "is a PixArtSigmaPipeline, and supported are StableDiffusionPipeline",
    ),
    "foreign code": ("model_index.json", {"unet": ["my_module", "MyUNet"]}, "unet of .* is a .*MyUNet"),
    "a part of another kind": (
        "model_index.json",
        {"vae": ["diffusers", "AutoencoderTiny"]},
        "vae of .* is a AutoencoderTiny where Stable Diffusion 1.x or 2.x has a AutoencoderKL",
    ),
    "flow matching": (
        "model_index.json",
        {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]},
        "scheduler of .* is FlowMatch.* put one of DDIMScheduler",
    ),
    "noise of its own": (
        "model_index.json",
        {"scheduler": ["diffusers", "DPMSolverSDEScheduler"]},
        "depend on prompt and seed alone",
    ),
    "no scheduler": ("model_index.json", {"scheduler": None}, "scheduler of .* is None"),
    "a prediction of images": (
        "scheduler/scheduler_config.json",
        {"prediction_type": "sample"},
        "predicts sample, and a U-Net here predicts epsilon or v_prediction",
    ),
    "flow": ("scheduler/scheduler_config.json", {"use_flow_sigmas": True}, "predicts flow, and a U-Net here"),
    "zero terminal SNR": (
        "scheduler/scheduler_config.json",
        {"rescale_betas_zero_snr": True},
        "only a model that predicts v can start from pure noise",
    ),
    "betas of one": ("scheduler/scheduler_config.json", {"beta_end": 1.0}, "alphas_cumprod reaches 0"),
    "betas too large": (
        "scheduler/scheduler_config.json",
        {"beta_start": 0.5, "beta_end": 0.9},
        "alphas_cumprod reaches",
    ),
    "trained betas": ("scheduler/scheduler_config.json", {"trained_betas": [0.1, 1.0]}, "alphas_cumprod reaches 0"),
    "no betas": ("scheduler/scheduler_config.json", {"trained_betas": []}, "alphas_cumprod reaches"),
    "an unknown schedule": (
        "scheduler/scheduler_config.json",
        {"beta_schedule": "nope"},
        "describes no noise schedule .*none of linear",
    ),
    "words for numbers": ("scheduler/scheduler_config.json", {"beta_end": "big"}, "describes no noise schedule"),
    "no timesteps": ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "describes no noise schedule"),
    "inpainting": ("unet/config.json", {"in_channels": 9}, "inpainting model"),
    "further inputs": (
        "unet/config.json",
        {"addition_embed_type": "text_time"},
        'has addition_embed_type "text_time" where Stable Diffusion 1.x or 2.x has null',
    ),
    "oblong": ("unet/config.json", {"sample_size": [8, 16]}, r"sample_size \[8, 16\], and images here are square"),
    "no size": ("unet/config.json", {"sample_size": None}, "sample_size null"),
    "other latents": ("vae/config.json", {"latent_channels": 16}, "4 channels in and 4 out, its VAE 16"),
    "another text encoder": (
        "text_encoder/config.json",
        {"hidden_size": 64},
        "takes embeddings of width 32, and what reads its text makes 64",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_model_that_is_no_stable_diffusion_1_or_2_is_one_sentence_before_loading(copied: Path, what: str) -> None:
    file, settings, said = REFUSED[what]
    change(copied / file, **settings)
    with pytest.raises(BadInput, match=said) as refused:
        stable(copied).check()
    assert "\n" not in str(refused.value)


def test_a_path_that_is_no_model_folder_is_one_sentence(saved: Path, tmp_path: Path) -> None:
    single = tmp_path / "sd14.ckpt"
    single.touch()
    for path, said in (
        (None, "add model.path="),
        ("", "add model.path="),
        (tmp_path / "none", "not a diffusers pipeline"),
        (single, "a pickle can hold more than tensors and is not read"),
    ):
        with pytest.raises(BadInput, match=said):
            stable(path).check()


def test_a_pickle_is_never_opened(copied: Path, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    weights = copied / "unet/diffusion_pytorch_model.safetensors"
    weights.with_suffix(".bin").write_bytes(pickle.dumps({"conv_in.weight": Code()}))
    stable(copied).open("cpu")  # not even beside safetensors
    weights.unlink()
    with pytest.raises(
        BadInput,
        match=r"is a pickle, which can hold more than tensors and is not read: "
        r"take diffusion_pytorch_model\.safetensors",
    ):
        stable(copied).open("cpu")
    assert not (tmp_path / "executed").exists()


def test_weights_that_are_pointers_pieces_or_quantised_are_one_sentence(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = copied / "text_encoder/model.safetensors"
    save_file({k: v.to(torch.int8) for k, v in load_file(weights).items()}, weights)
    with pytest.raises(BadInput, match="holds weights of type I8: use a folder whose weights are not quantised"):
        stable(copied).check()
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(BadInput, match="is a Git LFS pointer, not the weights: run `git lfs pull`"):
        stable(copied).check()
    weights.rename(weights.with_name("model-00001-of-00002.safetensors"))
    weights.with_name("model.safetensors.index.json").write_text("{}")
    with pytest.raises(BadInput, match=r"model\.safetensors\.index\.json is no index: copy it anew"):
        stable(copied).check()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_not_those_of_the_config_are_one_sentence_and_nothing_is_drawn_by_chance(
    copied: Path, part: str
) -> None:
    from safetensors.torch import load_file, save_file

    (weights,) = (copied / part).glob("*.safetensors")
    own = load_file(weights)
    name = next(k for k, v in own.items() if v.ndim > 1)
    for changed, said in (
        ({k: v for k, v in own.items() if k != name}, f"lack {name}"),
        (own | {name: own[name][:, :1].clone()}, f"have another shape for {name}"),
        (own | {"one.more.weight": own[name].clone()}, "hold one.more.weight"),
    ):
        save_file(changed, weights, {"format": "pt"})
        with pytest.raises(BadInput, match=f"{part}.* and config.json are not of one network .*{said}.*: copy"):
            stable(copied).open("cpu")


def test_configs_that_make_no_network_and_a_tokenizer_of_another_model_are_one_sentence(copied: Path) -> None:
    change(copied / "unet/config.json", down_block_types=["NoSuchBlock"] * 2)
    with pytest.raises(BadInput, match=r"unet cannot be loaded .*: copy it anew"):
        stable(copied).open("cpu")
    change(copied / "text_encoder/config.json", vocab_size=700)
    with pytest.raises(BadInput, match="text_encoder"):
        stable(copied).open("cpu")


def test_a_tokenizer_with_more_tokens_than_the_text_encoder_is_one_sentence(copied: Path, model: Any) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(copied / "tokenizer")
    tokenizer.add_tokens(["<mine>"])
    tokenizer.save_pretrained(copied / "tokenizer")
    with pytest.raises(BadInput, match=r"tokenizer has 743 tokens and the text encoder 742: copy both"):
        stable(copied).open("cpu")


def same(a: Any, b: Any) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(
            a.latents(["a fox"], [1], steps=2, guidance=3.0),
            b.latents(["a fox"], [1], steps=2, guidance=3.0),
            strict=True,
        )
    )


def test_a_folder_draws_what_was_saved_in_it(saved: Path, model: Any) -> None:
    assert same(stable(saved).open("cpu"), model)


def test_what_is_predicted_is_read_from_the_folder(copied: Path, model: Any) -> None:
    """Stable Diffusion 2.1's, which starts from pure noise in some fine-tunes."""
    change(copied / "scheduler/scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    change(copied / "model_index.json", scheduler=["diffusers", "DDIMScheduler"])
    v = stable(copied).open("cpu")
    assert (v.predicts, model.predicts) == ("v_prediction", "epsilon")
    assert not same(v, model)
    noise, last = torch.randn(1, 4, 8, 8), torch.tensor([999])
    assert torch.equal(v.noised(torch.ones(1, 4, 8, 8), last, noise), noise)
    assert torch.equal(v.target(torch.ones(1, 4, 8, 8), last, noise), -torch.ones(1, 4, 8, 8))
    change(copied / "model_index.json", scheduler=["diffusers", "PNDMScheduler"])
    with pytest.raises(BadInput, match="under DDIMScheduler or EulerDiscreteScheduler"):
        stable(copied).check()


def test_half_precision_weights_alone_are_loaded_as_float32(copied: Path, model: Any) -> None:
    from safetensors.torch import load_file, save_file

    for weights in [*copied.glob("*/*.safetensors")]:
        save_file(
            {k: v.half() for k, v in load_file(weights).items()},
            weights.with_suffix(".fp16.safetensors"),
            {"format": "pt"},
        )
        weights.unlink()
    loaded = stable(copied).open("cpu")
    assert {
        p.dtype for net in (loaded.network, loaded.pipe.text_encoder, loaded.pipe.vae) for p in net.parameters()
    } == {torch.float32}
    assert torch.equal(loaded.network.conv_in.weight, model.network.conv_in.weight.half().float())
    assert {f.name for f in stable(copied).files()} >= {
        "model.fp16.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
    }


def test_a_tokenizer_that_does_not_know_its_length_has_the_text_encoders(copied: Path, model: Any) -> None:
    file = copied / "tokenizer/tokenizer_config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "model_max_length"}))
    loaded = stable(copied).open("cpu")
    assert loaded.length == model.length == 24
    assert same(loaded, model)
    assert loaded.cut(["a fox", "fox " * 40]) == ["fox " * 40]


def test_a_square_given_as_a_list_is_a_square_and_files_of_older_versions_load(copied: Path, model: Any) -> None:
    from safetensors.torch import load_file, save_file

    change(copied / "unet/config.json", sample_size=[8, 8])
    weights = copied / "text_encoder/model.safetensors"
    save_file(
        {f"text_model.{k}": v for k, v in load_file(weights).items()}
        | {"text_model.embeddings.position_ids": torch.arange(24)[None]},
        weights,
        {"format": "pt"},
    )
    loaded = stable(copied).open("cpu")
    assert loaded.pixels == 32
    assert same(loaded, model)


def test_every_file_that_is_loaded_is_named_once_and_one_folder_is_one_model_however_it_is_written(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.parent)
    (copied / "README.md").touch()
    files = stable("m").files()
    assert (
        files
        == sorted(set(files))
        == stable("./m").files()
        == stable(copied).files()
        == stable("../" + copied.parent.name + "/m").files()
    )
    assert {str(f.relative_to(copied)) for f in files} == {*PARTS}
    bundled = StableDiffusion(name="emoji", path="bundled").files()
    assert bundled == sorted(f for f in (ASSETS / "emoji").rglob("*") if f.is_file())


def test_a_model_is_checked_without_importing_torch(saved: Path) -> None:
    code = f"""
import sys
from advanchor.models.stable_diffusion import StableDiffusion
StableDiffusion(name="x", path={str(saved)!r}).files()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 1.x's architecture, block for block and key for key, with few channels and random weights."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(ASSETS / "emoji/tokenizer", model_max_length=77)
    torch.manual_seed(0)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 16, 16),
            norm_num_groups=4,
            latent_channels=4,
            layers_per_block=2,
            sample_size=64,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16, 16, 16),
            layers_per_block=2,
            norm_num_groups=4,
            cross_attention_dim=32,
            attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        ),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("sd")
    pipe.save_pretrained(folder)
    return folder


def test_the_same_job_runs_on_a_stable_diffusion_1_folder(sd_folder: Path, tiny: Any) -> None:
    result = tiny(
        "model=sd14",
        "judge=sd14",
        f"model.path={sd_folder}",
        "concept=style/van_gogh",
        "concept.evaluate=['{}']",
        "concept.evaluate_cross=['{}']",
        *("method.steps=3", "method.pool=3", "method.pool_steps=3", "anchor.batches=2"),
    )
    assert (
        result["changed"]["tensors"] == 5 * 16
    )  # q, k, v, out and its bias in each of the 16 cross-attention layers, as in SD 1.4
    assert Path(result["grid"]).exists()
    assert "no score is computed" in result["unmeasured"]


def test_no_model_is_given_cudnns_attention_whose_gradients_are_wrong_on_some_gpus() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    Random(name="random").open("cpu")
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_attention_weights_of_the_first_releases_vae_load(sd_folder: Path, tmp_path: Path) -> None:
    """Stable Diffusion 1.4's own VAE has its attention under older names."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(sd_folder, tmp_path / "old"))
    weights, older = (
        folder / "vae/diffusion_pytorch_model.safetensors",
        {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"},
    )
    renamed = {k: v for k, v in load_file(weights).items()}
    for new, old in older.items():
        renamed = {k.replace(f".{new}.", f".{old}."): v for k, v in renamed.items()}
    save_file(renamed, weights, {"format": "pt"})
    a, b = (stable(f).open("cpu").pipe.vae.state_dict() for f in (folder, sd_folder))
    assert all(torch.equal(a[k], b[k]) for k in b)
