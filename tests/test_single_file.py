"""A checkpoint in one file, with the names of the first releases, is the model that was written to it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from conftest import script
from safetensors.torch import save_file

import advanchor.torchvision_ops  # noqa: F401  (diffusers imports its networks when they are first used)
from advanchor.build import build
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.models import layout, single_file
from advanchor.models.architectures import ARCHITECTURES
from advanchor.models.stable_diffusion import StableDiffusion

CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
NARROW = {
    "Stable Diffusion 1.x": ({"block_out_channels": (8, 16, 16, 16), "cross_attention_dim": 32}, [CLIP]),
    "Stable Diffusion 2.x": (
        {"block_out_channels": (8, 16, 16, 16), "cross_attention_dim": 32, "attention_head_dim": (1, 2, 2, 2)},
        [{**CLIP, "projection_dim": 32}],
    ),
    "Stable Diffusion XL": (
        {
            "block_out_channels": (8, 16, 16),
            "cross_attention_dim": 32 + 48,
            "attention_head_dim": (1, 2, 2),
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 48 + 48,
        },
        [CLIP, {**CLIP, "hidden_size": 48, "projection_dim": 48}],
    ),
}


@pytest.fixture(params=NARROW)
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, Any, Path]:
    """What it is, a pipeline of the published architecture with few channels and random weights, and its one file."""
    unet, texts = NARROW[request.param]
    full = ARCHITECTURES[request.param]
    narrow = replace(
        full,
        unet={**full.unet, **unet, "norm_num_groups": 4, "sample_size": 8},
        vae={**full.vae, "block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4},
        encoders={part: {**own, **few} for (part, own), few in zip(full.encoders.items(), texts, strict=True)},
    )
    monkeypatch.setitem(ARCHITECTURES, request.param, narrow)
    torch.manual_seed(0)
    family = layout.FAMILIES[narrow.pipeline]
    parts: dict[str, Any] = {
        "unet": diffusers.UNet2DConditionModel(**narrow.unet),
        "vae": diffusers.AutoencoderKL(**narrow.vae),
    }
    for (part, settings), pad in zip(narrow.encoders.items(), narrow.pads, strict=True):
        parts[part] = getattr(transformers, family.encoders[part])(transformers.CLIPTextConfig(**settings))
        parts[part.replace("text_encoder", "tokenizer")] = single_file.tokenizer(pad, 77)
    file = tmp_path / "model.safetensors"
    save_file({name: tensor.contiguous().clone() for name, tensor in released(request.param, parts).items()}, file)
    return request.param, parts, file


def released(what: str, parts: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors under the names that the first releases have for them, written out from CompVis' and Stability's
    networks.
    """
    found = {f"model.diffusion_model.{of_unet(n, parts['unet'])}": t for n, t in parts["unet"].state_dict().items()}
    for name, tensor in parts["vae"].state_dict().items():
        own = of_vae(name)
        found[f"first_stage_model.{own}"] = (
            tensor[:, :, None, None] if ".attn_1." in own and tensor.ndim == 2 else tensor
        )
    for part, at in (("text_encoder", 0), ("text_encoder_2", 1)):
        if part not in parts:
            continue
        tensors = {
            name.removeprefix("text_model."): tensor
            for name, tensor in parts[part].state_dict().items()
            if "position_ids" not in name
        }
        if what == "Stable Diffusion 2.x" or at == 1:
            prefix = "conditioner.embedders.1.model." if at else "cond_stage_model.model."
            found |= {f"{prefix}{name}": tensor for name, tensor in of_open_clip(tensors).items()}
            found[f"{prefix}logit_scale"] = torch.tensor(4.6)
        else:
            prefix = {"Stable Diffusion 1.x": "cond_stage_model."}.get(what, "conditioner.embedders.0.")
            found |= {f"{prefix}transformer.text_model.{name}": tensor for name, tensor in tensors.items()}
            found[f"{prefix}transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return found | {"betas": torch.zeros(1000), "model_ema.decay": torch.zeros(1)}


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
PLAIN = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def of_unet(name: str, unet: Any) -> str:
    module, kind = name.rsplit(".", 1)
    if module in PLAIN:
        return f"{PLAIN[module]}.{kind}"
    side, *rest = name.split(".")
    if side == "mid_block":
        sort, i, *inner = rest
        place = f"middle_block.{1 if sort == 'attentions' else 2 * int(i)}"
    else:
        block, sort, i, *inner = rest
        first = 3 * int(block) + (side == "down_blocks")
        place = f"{'input' if side == 'down_blocks' else 'output'}_blocks.{first + int(i)}.{int(sort == 'attentions')}"
        if sort == "downsamplers":
            return f"input_blocks.{3 * int(block) + 3}.0.op.{kind}"
        if sort == "upsamplers":
            looks = "CrossAttn" in type(unet.up_blocks[int(block)]).__name__
            return f"output_blocks.{3 * int(block) + 2}.{1 + looks}.conv.{kind}"
    if sort == "resnets":
        inner[0] = RESNET[inner[0]]
    return ".".join([place, *inner])


def of_vae(name: str) -> str:
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("conv_norm_out", "norm_out").replace("group_norm", "norm").replace("to_out.0", "proj_out")
    return re.sub(r"to_([qkv])\.", r"\1.", name)


def of_open_clip(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {
        "positional_embedding": tensors.pop("embeddings.position_embedding.weight"),
        "token_embedding.weight": tensors.pop("embeddings.token_embedding.weight"),
        "text_projection": tensors.pop("text_projection.weight", torch.zeros(32, 32)).T,
    }
    for name, tensor in tensors.items():
        name = name.replace("encoder.layers", "transformer.resblocks").replace("self_attn", "attn")
        for ours, theirs in (("layer_norm", "ln_"), ("fc1", "c_fc"), ("fc2", "c_proj"), ("final_ln_", "ln_final")):
            name = name.replace(ours, theirs)
        if piece := re.fullmatch(r"(.*attn\.)([qkv])_proj\.(weight|bias)", name):
            key = f"{piece[1]}in_proj_{piece[3]}"
            found.setdefault(key, torch.zeros(3 * len(tensor), *tensor.shape[1:]))
            at = "qkv".index(piece[2]) * len(tensor)
            found[key][at : at + len(tensor)] = tensor
        else:
            found[name] = tensor
    return found


def test_a_file_is_the_model_that_was_written_to_it(made: tuple[str, Any, Path]) -> None:
    what, parts, file = made
    asked: Any = "v_prediction" if what == "Stable Diffusion 2.x" else None  # which a file of 2.x does not say
    model = StableDiffusion(name="m", path=str(file), predicts=asked)
    assert model.files() == [file]
    loaded = model.open("cpu")
    assert loaded.predicts == (asked or "epsilon")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if part in parts:
            own, read = parts[part].state_dict(), getattr(loaded.pipe, part).state_dict()
            assert all(torch.equal(tensor, read[name]) for name, tensor in own.items())
    assert loaded.draw([], steps=2, guidance=2.0) == []
    assert torch.isfinite(loaded.latents(["a fox"], [1], steps=2, guidance=2.0)).all()


def test_a_step_at_full_size_is_a_line_of_the_page(
    made: tuple[str, Any, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["full_size.py", made[0], "--side", "8"])
    script("full_size").main()
    row = capsys.readouterr().out.strip().split(" | ")
    layers = 70 if made[0] == "Stable Diffusion XL" else 16  # of cross-attention, as published
    assert (row[0], row[-1]) == (f"| {made[0]}, 64 px, float32", f"{layers * 5} tensors, 0 M |")


def test_a_file_that_lacks_or_holds_too_much_is_one_sentence(made: tuple[str, Any, Path]) -> None:
    from safetensors.torch import load_file

    what, _, file = made
    tensors = load_file(file)
    model = StableDiffusion(name="m", path=str(file), predicts="epsilon")
    (out,) = (name for name in tensors if name.endswith("diffusion_model.out.2.bias"))
    save_file({n: t for n, t in tensors.items() if n != out}, file)
    with pytest.raises(BadInput, match=r"the weights lack conv_out\.bias"):
        model.open("cpu")
    save_file({**tensors, out: torch.zeros(5)}, file)
    with pytest.raises(BadInput, match=r"have another shape for conv_out\.bias"):
        model.open("cpu")
    save_file({n: t for n, t in tensors.items() if n != single_file.MARKS[what]}, file)
    with pytest.raises(BadInput, match=r"is no checkpoint of Stable Diffusion 1\.x, Stable Diffusion 2\.x"):
        model.check()


def test_what_a_file_of_2_predicts_must_be_said(made: tuple[str, Any, Path]) -> None:
    what, _, file = made
    if what == "Stable Diffusion 2.x":
        with pytest.raises(BadInput, match=r"does not say what it predicts: add model\.predicts=v_prediction"):
            StableDiffusion(name="m", path=str(file)).check()
        assert "a prediction of noise" in StableDiffusion(name="m", path=str(file), predicts="epsilon").offers
    else:
        StableDiffusion(name="m", path=str(file)).check()
    (file.parent / "x.ckpt").write_bytes(b"a pickle")
    with pytest.raises(BadInput, match="a pickle can hold more than tensors and is not read"):
        StableDiffusion(name="m", path=str(file.parent / "x.ckpt")).check()


def test_a_file_predicts_no_velocity(made: tuple[str, Any, Path]) -> None:
    with pytest.raises(BadInput, match="which predict no velocity: take the model= that it is"):
        StableDiffusion(name="sd3", path=str(made[2]), predicts="velocity").check()


def test_a_folder_that_predicts_something_else_than_was_asked_is_one_sentence(model: Any, tmp_path: Path) -> None:
    model.pipe.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"predicts epsilon, and model\.predicts=v_prediction: take the model= that"):
        build(compose(["model=sd21", "judge=none", f"model.path={tmp_path}"]).model, "model")


def test_the_tokenizer_is_clips() -> None:
    """Numbers of the published vocabulary."""
    tokenizer = single_file.tokenizer("!", 77)
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("Café, 3 dogs!").input_ids[1:-1] == tokenizer("café, 3 dogs!").input_ids[1:-1]
    assert tokenizer.pad_token_id == 0
    assert single_file.tokenizer("<|endoftext|>", 77).pad_token_id == 49407
