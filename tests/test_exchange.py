"""An erased model leaves in the formats of the field and comes back as it was, and those of others come in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import advanchor
import advanchor.torchvision_ops
from advanchor.build import build
from advanchor.commands.export import export, main
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.exchange import released
from advanchor.models import saving
from advanchor.prompts import Prompt
from advanchor.store import read_json

PROMPTS = [Prompt("a butterfly in noto style", 3), Prompt("an emoji of a wolf", 4)]


def pixels(images: Any) -> Any:
    return np.stack([np.asarray(image, dtype=int) for image in images])


def plainly(folder: Path, model: Any, prompts: list[Prompt] = PROMPTS, lora: Path | None = None) -> Any:
    """What plain diffusers draws with a folder, from our noise."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    if lora:
        pipe.load_lora_weights(lora)
    texts, seeds = [p.text for p in prompts], [p.seed for p in prompts]
    noise = model._noise(texts, seeds)
    return pixels(pipe(texts, latents=noise, num_inference_steps=5, guidance_scale=3.0).images)


@pytest.fixture
def run(tiny: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return tiny("method=esd", "method.lr=1e-2")


def test_an_exported_folder_draws_in_plain_diffusers_what_the_run_draws(run: dict[str, Any], tmp_path: Path) -> None:
    to = export(run, tmp_path / "out")
    model, edit = advanchor.load(run)
    with model.edited(edit):
        ours = pixels(model.draw(PROMPTS, steps=5, guidance=3.0))
    assert abs(plainly(to, model) - ours).max() <= 1
    assert abs(pixels(model.draw(PROMPTS, steps=5, guidance=3.0)) - ours).max() > 1
    saved = load_file(to / "unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in edit.items())  # bit for bit


def test_an_edit_of_the_bundled_model_draws_in_plain_diffusers_and_comes_back_with_its_scores(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    run = tiny("model=emoji", "method=esd", "method.steps=3", "method.lr=1e-3", "method.pool=2", "anchor=empty")
    to = export(run, tmp_path / "out")
    model, edit = advanchor.load(run)
    with model.edited(edit):
        ours = pixels(model.draw(PROMPTS, steps=5, guidance=3.0))
    assert abs(plainly(to, model) - ours).max() <= 1
    again = tiny("model=emoji", "method=load", "anchor=published", f"method.edit={to}")
    measured = {name: score["value"] for name, score in run["scores"].items() if "anchor" not in name}
    assert measured == {name: score["value"] for name, score in again["scores"].items() if "anchor" not in name}


def test_an_exported_folder_does_not_say_where_it_was_made(tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """diffusers writes into a config where it was loaded from; the bundled model is loaded from the package."""
    result = tiny("model=emoji", "method=esd", "method.steps=1", "method.pool=2", "anchor=empty")
    to = export(result, tmp_path / "out")
    for file in (*to.rglob("*.json"), to / "README.md"):
        assert str(tmp_path) not in file.read_text(), file
        assert str(Path(advanchor.__file__).parent) not in file.read_text(), file


@pytest.mark.parametrize("form", ["folder", "tensors"])
def test_what_was_exported_comes_back_with_the_same_edit_pictures_and_scores(
    form: str, run: dict[str, Any], tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    to = export(run, tmp_path / "out", form)
    place = to if form == "folder" else to / "unet.safetensors"
    model, edit = advanchor.load(run)
    back = released.read(place, model)
    assert back.keys() == edit.keys()
    assert all(torch.equal(back[name], edit[name]) for name in edit)
    again = tiny("method=load", "anchor=published", f"method.edit={place}")
    measured = {name: (score["value"], score["n"]) for name, score in run["scores"].items() if "anchor" not in name}
    assert measured
    assert measured == {n: (s["value"], s["n"]) for n, s in again["scores"].items() if "anchor" not in n}


def test_a_low_rank_edit_is_a_lora_that_diffusers_draws_the_same_with(
    tiny: Callable[..., dict[str, Any]], run: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    result = tiny("method=spm", "method.lr=1e-1")
    model, edit = advanchor.load(result)
    base = tmp_path / "base"
    model.pipe.save_pretrained(base)
    to = export(result, tmp_path / "lora", "lora")
    with model.edited(edit):
        ours = pixels(model.draw(PROMPTS, steps=5, guidance=3.0))
    assert abs(plainly(base, model, lora=to) - ours).max() <= 1
    assert abs(plainly(base, model) - ours).max() > 1
    back = released.read(to / "pytorch_lora_weights.safetensors", model)
    assert back.keys() == edit.keys()
    assert all(torch.equal(back[name], edit[name]) for name in edit)
    with pytest.raises(BadInput, match="is not of low rank"):
        export(run, tmp_path / "no", "lora")


def test_a_card_says_what_was_measured_and_is_one_of_the_hubs(run: dict[str, Any], tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    to = export(run, tmp_path / "out")
    card = ModelCard.load(to / "README.md")
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert found["erasure/hit"] == pytest.approx(run["scores"]["erasure/hit"]["value"], abs=1e-6)
    assert not any("@" in name for name in found)
    assert "No attack was tried" in card.text
    assert str(tmp_path) not in card.content
    kept = read_json(to / "result.json")
    assert kept["scores"] == json.loads(json.dumps(run["scores"]))
    assert str(tmp_path) not in json.dumps(kept)


def test_a_low_rank_edits_card_counts_the_tensors_that_differ_and_nothing_of_others_is_touched(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "out.part").mkdir()
    (tmp_path / "file").touch()
    result = tiny("method=spm")
    to = export(result, tmp_path / "out")
    model, _ = advanchor.load(result)
    back = released.read(to, model)
    said = f"{len(back)} tensors, {sum(t.numel() for t in back.values()):,} parameters"
    assert said in " ".join((to / "README.md").read_text().split())
    assert (tmp_path / "out.part").exists()
    with pytest.raises(BadInput, match="cannot be written"):
        export(result, tmp_path / "file/out")


def test_a_card_of_a_pipeline_without_some_encoders_says_what_diffusers_must_be_told(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    result = tiny("model=emoji_flow", "method=esd", "method.steps=1", "method.pool=2", "anchor=empty")
    card = (export(result, tmp_path / "out") / "README.md").read_text()
    (said,) = [line for line in card.splitlines() if "from_pretrained" in line]
    call = said.partition(" = ")[2].replace("<this folder>", str(tmp_path / "out"))
    pipe = eval(call, {"diffusers": diffusers})
    assert type(pipe).__name__ == "StableDiffusion3Pipeline"


def test_methods_whose_edit_is_no_weight_are_not_exported(tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    for overrides, what in (
        (("method=receler",), "networks of its own"),
        (("method=sld_medium", "anchor=published", "sample.guidance=3"), "how it is sampled"),
    ):
        result = tiny(*overrides)
        for form in ("folder", "tensors"):
            with pytest.raises(BadInput, match=what):
                export(result, tmp_path / "out", form)
        assert not list(tmp_path.glob("*out*"))


# --- what others release ------------------------------------------------------------------------------------------


def changed(model: Any, scope: str) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {name: t + 0.01 * torch.randn(t.shape, generator=g) for name, t in model.weights(scope).items()}


def test_the_formats_of_released_checkpoints_are_the_edits_that_they_say(model: Any, tmp_path: Path) -> None:
    kv, whole = changed(model, "attn2.kv"), changed(model, "full")
    text = changed(model, "text_encoder")
    bare = {name.removeprefix("text_encoder."): t for name, t in text.items()}
    unedited = {**dict(model.weights("full")), **kv}
    half = {name: t.half() for name, t in kv.items()}
    save_file(half, tmp_path / "uce.safetensors")  # ESD, UCE
    torch.save({"unet": kv, "modifier_token": {}}, tmp_path / "ac.bin")  # Ablating Concepts
    torch.save(unedited, tmp_path / "old_esd.pt")
    torch.save({"unet": whole, "text_encoder": bare}, tmp_path / "both.pt")
    torch.save({f"text_model.{name}": t for name, t in bare.items()}, tmp_path / "advunlearn.pt")
    read = {file.name: released.read(file, model) for file in tmp_path.iterdir()}
    for name, expected in {
        "uce.safetensors": {n: t.float() for n, t in half.items()},
        "ac.bin": kv,
        "old_esd.pt": kv,  # of a whole network what differs
        "both.pt": {**whole, **text},
        "advunlearn.pt": text,
    }.items():
        assert read[name].keys() == expected.keys(), name
        assert all(torch.equal(read[name][n], expected[n]) for n in expected), name
    with model.edited(read["both.pt"]):
        model.draw(PROMPTS[:1], steps=2, guidance=3.0)


@pytest.mark.parametrize("alpha", [None, 1.0, 8.0])
def test_a_membrane_as_spm_releases_it_adds_up_times_down_times_alpha_over_rank(
    alpha: float | None, model: Any, tmp_path: Path
) -> None:
    frozen = {n: t for n, t in model.weights("transformers").items() if t.ndim > 1}
    g, rank = torch.Generator().manual_seed(2), 4
    tensors, expected = {}, {}
    for name, w in frozen.items():
        module = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        down = torch.randn(rank, *w.shape[1:], generator=g)
        up = torch.randn(len(w), rank, *(1 for _ in w.shape[2:]), generator=g)
        tensors |= {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up}
        if alpha is not None:
            tensors[f"{module}.alpha"] = torch.tensor(alpha)
        scale = 1.0 if alpha is None else alpha / rank
        expected[name] = w + scale * (up.flatten(1) @ down.flatten(1)).view_as(w)
    save_file(tensors, tmp_path / "spm.safetensors")
    edit = released.read(tmp_path / "spm.safetensors", model)
    with model.edited(edit):
        assert all(torch.allclose(model.weights("full")[n], t, atol=1e-5) for n, t in expected.items())


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "sd35", "flux"])
def test_an_edited_folder_and_its_tensors_come_back_in_every_family(kind: str, tmp_path: Path) -> None:
    model = build(compose(["model=random", f"model.family={kind}"]).model, "model").open("cpu")
    edit = changed(model, "attn2") | dict(list(changed(model, "text_encoder").items())[-3:])
    saving.pipeline(model, edit, tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    saving.tensors(model, edit, tmp_path / "parts")
    for place in ("whole", "parts"):
        back = released.read(tmp_path / place, model)
        assert back.keys() == edit.keys()
        assert all(torch.equal(back[name], edit[name]) for name in edit)
    last = [name.partition(".")[0] for name in edit if name.startswith("text_encoder")][-1]
    alone = released.read(tmp_path / f"parts/{last}.safetensors", model)
    assert {name.partition(".")[0] for name in alone} == {last}


def test_a_network_in_half_precision_is_no_edit_but_where_it_differs(model: Any, tmp_path: Path) -> None:
    whole = {name: t.detach().half() for name, t in model.weights("full").items()}
    save_file(whole, tmp_path / "same.safetensors")
    with pytest.raises(BadInput, match="it erases nothing"):
        released.read(tmp_path / "same.safetensors", model)
    name = next(iter(whole))
    save_file({**whole, name: whole[name] + 1}, tmp_path / "one.safetensors")
    assert list(released.read(tmp_path / "one.safetensors", model)) == [name]


def test_a_lora_of_diffusers_is_multiplied_as_its_header_says_and_text_encoders_are_merged(
    model: Any, tmp_path: Path
) -> None:
    names = [name for name, t in model.weights("full").items() if name.endswith("attn2.to_k.weight")]
    text = next(name for name in model.weights("text_encoder") if name.endswith("q_proj.weight"))
    g = torch.Generator().manual_seed(4)
    tensors, expected = {}, {}
    for name in (*names, text):
        own = model.weights("text_encoder" if name == text else "full")[name]
        down, up = (torch.randn(size, generator=g) for size in ((2, own.shape[1]), (len(own), 2)))
        module = ("" if name == text else "unet.") + name.removesuffix(".weight")
        tensors |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
        expected[name] = own + (0.5 if name == text else 4.0) * up @ down
    about = {"unet.r": 2, "unet.lora_alpha": 8, "text_encoder.r": 2, "text_encoder.lora_alpha": 1}
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": json.dumps(about)})
    with model.edited(released.read(tmp_path / "lora.safetensors", model)):
        now = {**model.weights("full"), **model.weights("text_encoder")}
        assert all(torch.allclose(now[name], tensor, atol=1e-5) for name, tensor in expected.items())
    about["unet.use_rslora"] = True
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": json.dumps(about)})
    with pytest.raises(BadInput, match="is a LoRA with use_rslora"):
        released.read(tmp_path / "lora.safetensors", model)


class Thing:
    """What a pickle must not be able to make."""


def test_what_is_no_checkpoint_of_this_model_is_refused_in_one_sentence(model: Any, tmp_path: Path) -> None:
    kv = changed(model, "attn2.kv")
    name, tensor = next(iter(kv.items()))
    files = {
        "other.safetensors": {**kv, "somewhere.else.weight": torch.zeros(2)},
        "shape.safetensors": {name: tensor[:, :1].contiguous()},
        "same.safetensors": {n: t.detach().clone() for n, t in model.weights("attn2.kv").items()},
        "wide.safetensors": {
            f"{name.removesuffix('.weight')}.lora_A.weight": torch.zeros(1, tensor.shape[1] + 3),
            f"{name.removesuffix('.weight')}.lora_B.weight": torch.zeros(len(tensor), 1),
        },
        "nan.safetensors": {name: tensor * float("nan")},
        "twice.safetensors": {name: tensor, f"unet.{name}": tensor + 1},
        "guidance.safetensors": {"guidance.negative": torch.zeros(2)},
        "half.safetensors": {f"{name.removesuffix('.weight')}.lora_A.weight": torch.zeros(1, tensor.shape[1])},
        "part.safetensors": {"model.diffusion_model.input_blocks.1.1.proj_in.weight": torch.zeros(2)},
    }
    for file, tensors in files.items():
        save_file(tensors, tmp_path / file)
    torch.save({"unet": kv, "who": Thing()}, tmp_path / "pickle.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "damaged.safetensors").write_bytes(b"no")
    (tmp_path / "text.txt").write_text("hello")
    torch.save({"unet": kv, "unet_ema": kv}, tmp_path / "ema.pt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad/unet").mkdir(parents=True)
    (tmp_path / "bad/unet/diffusion_pytorch_model.safetensors").write_bytes(b"no")
    for file, why in {
        "other.safetensors": "has no place for somewhere.else.weight",
        "shape.safetensors": "has shape",
        "same.safetensors": "as they are: it erases nothing",
        "half.safetensors": "half a low-rank pair",
        "part.safetensors": "a part of a U-Net",
        "wide.safetensors": "does not fit the shape",
        "nan.safetensors": "is not finite: copy the checkpoint anew",
        "twice.safetensors": "twice: keep the one that is meant",
        "guidance.safetensors": "is how a run samples",
        "ema.pt": "has tensors under 'unet_ema'",
        "bad": "cannot be read as tensors alone",
        "pickle.pt": "cannot be read as tensors alone",
        "list.pt": "holds no tensors by their names",
        "damaged.safetensors": "cannot be read as tensors alone",
        "text.txt": "convert it to one of them",
        "empty": "is no folder in the diffusers layout",
        "missing.pt": "is not there",
    }.items():
        with pytest.raises(BadInput, match=why) as caught:
            released.read(tmp_path / file, model)
        assert "\n" not in str(caught.value)


def test_load_refuses_before_a_model_is_loaded_and_takes_no_anchor(
    tiny: Callable[..., dict[str, Any]], run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = export(run, tmp_path / "out", "tensors")
    with pytest.raises(BadInput, match="has no place for an anchor: add anchor=concept"):
        tiny("method=load", f"method.edit={to / 'unet.safetensors'}", "anchor=superclass")
    monkeypatch.setattr("advanchor.models.tiny.Random.open", lambda *a: pytest.fail("loaded"))
    with pytest.raises(BadInput, match=r"add method\.edit=<file or folder>"):
        tiny("method=load", "anchor=published")
    with pytest.raises(BadInput, match="is not there"):
        tiny("method=load", "anchor=published", "method.edit=/no/such/file.pt")


def test_export_refuses_what_it_cannot_do_before_anything_is_loaded(
    run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advanchor.load", lambda *a: pytest.fail("loaded"))
    (tmp_path / "there").mkdir()
    with pytest.raises(BadInput, match="is there already"):
        export(run, tmp_path / "there")
    small = ["experiment=smoke", "tracker=none", f"root={tmp_path}"]
    for args, why in (
        (small, "say where, --to=<folder>"),
        ([*small, "--to=x", "seed=1,2"], "this is a sweep of 2"),
        ([*small, "--to=x", "seed=77"], "make the run first"),
        ([*small, "--to=x", "--as=onnx"], "export does not know --as=onnx"),
    ):
        with pytest.raises(BadInput, match=why):
            main(args)
