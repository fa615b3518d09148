"""The model interface keeps its promises: seeds name images, edits are temporary, names are found piece by piece."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from advanchor.concept import Prompt
from advanchor.core import BadInput
from advanchor.latent_diffusion import add_at, image_seed

PROMPTS = [Prompt(text, seed, "object", "fox") for text in ("a fox", "an emoji of a car") for seed in (0, 1)]


def pixels(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(i) for i in images]).astype(int)


def test_an_image_depends_on_its_prompt_and_seed_alone(model: Any) -> None:
    together = pixels(model.draw(PROMPTS, steps=3, guidance=3.0))
    alone = pixels([model.draw([p], steps=3, guidance=3.0)[0] for p in reversed(PROMPTS)][::-1])
    assert abs(together - alone).max() <= 1  # rounding of a batched product, at most one grey level
    assert len({image.tobytes() for image in together}) == len(PROMPTS)


@pytest.mark.parametrize(("name", "kind"), [("ddim", "DDIMScheduler"), ("lms", "LMSDiscreteScheduler")])
def test_a_scheduler_draws_what_diffusers_draws_with_it_and_learning_keeps_the_models_own(model: Any, name: str, kind: str) -> None:
    own, before = model.pipe.scheduler, model.trajectory(["a fox"], [0], steps=3, guidance=3.0)
    drawn = pixels(model.draw(PROMPTS[:2], steps=5, guidance=3.0, scheduler=name))
    published = {"ddim": {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}, "lms": {"num_train_timesteps": 1000}}[
        name
    ]  # of SD 1's DDIM, of the released evaluation
    try:
        model.pipe.scheduler = getattr(diffusers, kind)(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **published)
        texts, seeds = [p.text for p in PROMPTS[:2]], [p.seed for p in PROMPTS[:2]]
        noise = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(image_seed(t, s))) for t, s in zip(texts, seeds, strict=True)])
        expected = pixels(model.pipe(texts, latents=noise, num_inference_steps=5, guidance_scale=3.0).images)
    finally:
        model.pipe.scheduler = own
    assert abs(drawn - expected).max() <= 1
    assert model.pipe.scheduler is own
    assert all(torch.equal(a, b) for a, b in zip(before, model.trajectory(["a fox"], [0], steps=3, guidance=3.0), strict=True))
    assert bool(abs(drawn - pixels(model.draw(PROMPTS[:2], steps=5, guidance=3.0))).max() > 1) is (name == "lms")  # the random model's own is DDIM


def test_an_edit_is_undone_bit_for_bit(model: Any) -> None:
    before = {k: v.clone() for k, v in model.unet.state_dict().items()}
    plain = pixels(model.draw(PROMPTS[:1], steps=2, guidance=2.0))
    edit = {k: v + 0.5 for k, v in model.weights("attn2").items()}
    with model.edited(edit):
        assert abs(pixels(model.draw(PROMPTS[:1], steps=2, guidance=2.0)) - plain).max() > 1
    with pytest.raises(RuntimeError, match="inside"), model.edited(edit):
        raise RuntimeError("inside")
    assert all(torch.equal(before[k], v) for k, v in model.unet.state_dict().items())


def test_other_weights_give_what_an_edited_network_gives(model: Any) -> None:
    x, t, c = torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), model.encode(["a fox", "a car"])
    edit = {k: v * 1.3 for k, v in model.weights("attn2").items()}
    with model.edited(edit), torch.no_grad():
        expected = model.eps(x, t, c)
    with torch.no_grad():
        assert torch.equal(model.eps(x, t, c, edit), expected)
        assert not torch.equal(model.eps(x, t, c), expected)


@pytest.mark.parametrize(("scope", "kept"), [("attn2", ".attn2."), ("attn2.kv", ".attn2.to_"), ("full", ""), ("noxattn", "")])
def test_a_scope_holds_what_its_name_says(model: Any, scope: str, kept: str) -> None:
    names = model.weights(scope)
    assert names
    assert all(kept in name for name in names)
    assert (scope == "noxattn") is not any("attn2" in name for name in names)


def test_an_unknown_scope_is_refused(model: Any) -> None:
    with pytest.raises(BadInput, match="choose one of attn2"):
        model.weights("attn3")


@pytest.mark.parametrize(("text", "words"), [("a butterfly in noto style", "butterfly"), ("an emoji of a birthday cake", "birthday cake"), ("a hot dog", "hot dog")])
def test_a_span_holds_every_piece_of_a_name(model: Any, text: str, words: str) -> None:
    span = model.span(text, words)
    assert len(span) > 1
    assert model.tokenizer.decode([model.tokenizer(text).input_ids[p] for p in span]).strip() == words


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
    assert not torch.allclose(model.encode(["a fox"], delta + torch.arange(32) / 32, spans), model.encode(["a fox"]), atol=1e-3)


def test_add_at_touches_the_named_positions_only() -> None:
    out = add_at(torch.zeros(2, 5, 3), torch.ones(2, 3), [[0, 1], [3, 4]])
    assert out.sum((1, 2)).tolist() == [6.0, 6.0]
    assert out[0, 2:].abs().sum() == 0
    assert out[1, :3].abs().sum() == 0


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 1.x's architecture, block for block and key for key, with few channels and random weights."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from advanchor.model import ASSETS

    tokenizer = CLIPTokenizer.from_pretrained(ASSETS / "emoji/tokenizer", model_max_length=77)
    torch.manual_seed(0)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 16, 16), norm_num_groups=4, latent_channels=4, layers_per_block=2, sample_size=64,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            )
        ),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16, 16, 16), layers_per_block=2, norm_num_groups=4, cross_attention_dim=32,
            attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        ),
        scheduler=PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sd")
    pipe.save_pretrained(folder)
    return folder


def test_the_same_job_runs_on_a_stable_diffusion_1_folder(sd_folder: Path, tiny: Any) -> None:
    result = tiny("model=sd14", "judge=sd14", f"model.path={sd_folder}", "concept=style/van_gogh", "concept.evaluate=['{}']", "concept.evaluate_cross=['{}']")
    assert result["changed"]["tensors"] == 5 * 16  # q, k, v, out and its bias in each of the 16 cross-attention layers, as in SD 1.4
    assert Path(result["grid"]).exists()
    assert "no score is computed" in result["unmeasured"]
