"""Stable Diffusion 3 and FLUX: folders as people have them, where the name's tokens are, what an anchor moves of
several streams, and the closed form.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from test_conf import options
from test_families import channels, noised, opened

from advanchor.anchors.adversarial import Adversarial
from advanchor.anchors.noise import Noise
from advanchor.anchors.similarity import similarity
from advanchor.anchors.slot import Slot
from advanchor.anchors.words import Superclass
from advanchor.build import build
from advanchor.compose import CONF, compose
from advanchor.core import BadInput
from advanchor.methods.uce import UnifiedConceptEditing
from advanchor.models import anatomy, layout
from advanchor.models.sampling import image_seed
from advanchor.models.stable_diffusion import StableDiffusion
from advanchor.prompts import Prompt

CONFIGS = {"sd3": "sd3", "flux": "flux_dev"}
POOLED = [one for one in options("method") if "pool_guidance" in (Path(CONF) / f"method/{one}.yaml").read_text()]


@pytest.fixture(scope="module", params=["sd3", "sd35", "flux"])
def joint(request: pytest.FixtureRequest) -> Any:
    return opened(request.param, "velocity")


def family(model: Any) -> str:
    return "flux" if model.streams == ("t5",) else "sd3"


def checkpoint(model: Any, path: Path, **settings: Any) -> StableDiffusion:
    told = {"distilled": 3.5} if family(model) == "flux" else {}
    return StableDiffusion(name="m", path=str(path), **{**told, **settings})


@pytest.mark.parametrize("shard", ["100GB", "5KB"], ids=["whole", "cut into several files"])
def test_a_folder_is_the_model_that_was_saved(joint: Any, tmp_path: Path, shard: str) -> None:
    joint.pipe.save_pretrained(tmp_path, max_shard_size=shard)
    assert bool(list(tmp_path.glob("*/*.index.json"))) == (shard == "5KB")
    if family(joint) == "flux":  # whose transformer takes latents of any size
        with pytest.raises(BadInput, match=r"guidance-distilled: set model\.distilled"):
            checkpoint(joint, tmp_path, distilled=None).check()
    made = checkpoint(joint, tmp_path)
    assert {file.parent.name for file in made.files()} >= {"transformer", "text_encoder_2", "tokenizer_2"}
    assert build(compose(["model=random", f"model.family={family(joint)}"]).model, "model").offers == made.offers
    loaded = made.open("cpu")
    assert torch.allclose(
        loaded.encode(["a fox", ""]), joint.encode(["a fox", ""]), atol=1e-5
    )  # where it lies in memory
    step = torch.randn(2, channels(joint), 8, 8), torch.tensor([10, 900]), joint.encode(["a fox", ""])
    assert torch.allclose(loaded.predict(*step), joint.predict(*step), atol=1e-5)


def test_the_command_takes_such_a_folder_and_says_what_it_would_do(joint: Any, tmp_path: Path) -> None:
    joint.pipe.save_pretrained(tmp_path)
    words = [f"model={CONFIGS[family(joint)]}", f"model.path={tmp_path}", "judge=none"]
    assert compose(words).sample.guidance == (1.0 if family(joint) == "flux" else 4.0)
    with pytest.raises(BadInput, match="needs a diffusion's noise schedule as it is set"):
        compose([*words, "sample.scheduler=lms"])


@pytest.mark.parametrize("method", POOLED)
def test_flux_learns_from_pictures_drawn_without_classifier_free_guidance(method: str, tmp_path: Path) -> None:
    for model in ("flux_dev", "flux_schnell"):
        file = Path(CONF) / f"method_for/{model}_{method}.yaml"
        if method in ("fmn", "mace", "receler"):  # which flows refuse
            assert not file.exists()
            continue
        assert OmegaConf.load(file).method.pool_guidance == 1.0


def test_stable_diffusion_3_without_t5_has_zeros_in_its_place_as_in_diffusers(tmp_path: Path) -> None:
    model = opened("sd3", "velocity")
    model.pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(
        json.dumps({**index, "text_encoder_3": [None, None], "tokenizer_3": [None, None]})
    )
    made = checkpoint(model, tmp_path)
    assert made.offers == checkpoint(model, tmp_path).offers
    assert "T5's tokens" not in made.offers
    loaded = made.open("cpu")
    tokens, _, pooled, _ = loaded.pipe.encode_prompt(["a fox"], None, None, do_classifier_free_guidance=False)
    ours = loaded.encode(["a fox"])
    assert torch.equal(ours[:, :-1], tokens)
    assert torch.equal(ours[:, -1, : loaded.pooled], pooled)
    assert not ours[:, loaded.length - 256 : loaded.length].any()
    assert loaded.streams == ("clip",)


def test_a_transformer_whose_text_is_one_clip_encoders_has_no_other_rows_and_draws_as_diffusers_does(
    tmp_path: Path,
) -> None:
    pipe = opened("sd3", "velocity").pipe
    pipe.register_modules(text_encoder_2=None, tokenizer_2=None, text_encoder_3=None, tokenizer_3=None)
    pipe.transformer.register_to_config(pooled_projection_dim=16)
    pipe.save_pretrained(tmp_path / "refused")
    with pytest.raises(BadInput, match="are not of one network"):  # its weights were made for two encoders
        StableDiffusion(name="m", path=str(tmp_path / "refused")).open("cpu")
    settings = {k: v for k, v in pipe.transformer.config.items() if not k.startswith("_")}
    pipe.register_modules(transformer=type(pipe.transformer)(**settings))
    pipe.save_pretrained(tmp_path / "whole")
    made = StableDiffusion(name="m", path=str(tmp_path / "whole"))
    assert {"a single text encoder", "CLIP's tokens"} <= made.offers
    model = made.open("cpu")
    cond = model.encode(["a fox"])
    assert cond.shape == (1, model.pipe.tokenizer.model_max_length + 1, 56)
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(image_seed("a fox", 1)))
    expected = model.pipe(
        prompt_embeds=cond[:, :-1], pooled_prompt_embeds=cond[:, -1, :16], latents=noise, num_inference_steps=3,
        guidance_scale=1.0,
    ).images[0]  # fmt: skip
    (ours,) = model.draw([Prompt("a fox", 1)], steps=3, guidance=1.0)
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(expected).astype(int)).max() <= 1
    moved = model.encode(["a fox"], torch.ones(1, 32), [model.span("a fox", "fox")[:1]])
    assert not torch.allclose(moved[0, -1], cond[0, -1])  # what moves its input moves the sentence too


def test_flux_schnell_reads_half_as_much_as_dev() -> None:
    long = opened("schnell", "velocity")
    assert long.streams == ("t5",)
    long.pipe.tokenizer_2.model_max_length = 1000
    assert anatomy.of(long.pipe, torch.device("cpu"), None).sentences.length == 256
    long.network.register_to_config(guidance_embeds=True)
    assert anatomy.of(long.pipe, torch.device("cpu"), 3.5).sentences.length == 512


REFUSED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a scheduler of diffusion": ("sd3", "model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "a flow is"),
    "turned sigmas": ("flux", "scheduler/scheduler_config.json", {"invert_sigmas": True}, "with invert_sigmas, and a"),
    "no shift": ("sd3", "scheduler/scheduler_config.json", {"shift": 0}, r"describes no schedule .*shift 0"),
    "a shift of no slope": ("flux", "scheduler/scheduler_config.json", {"max_image_seq_len": 256}, "describes no sch"),
    "no largest shift": ("flux", "scheduler/scheduler_config.json", {"max_shift": None}, "max_shift None"),
    "two ways": (
        "sd3",
        "scheduler/scheduler_config.json",
        {"use_karras_sigmas": True, "use_beta_sigmas": True},
        "use_beta_sigmas",
    ),
    "words for channels": ("flux", "transformer/config.json", {"in_channels": "64"}, 'in_channels "64", which must be'),
    "no projection": ("sd3", "text_encoder/config.json", {"projection_dim": None}, "projection_dim null, which must"),
    "another width": ("sd3", "transformer/config.json", {"joint_attention_dim": 64}, "takes embeddings of width 64"),
    "another sentence": (
        "flux",
        "transformer/config.json",
        {"pooled_projection_dim": 40},
        "takes embeddings of width 40",
    ),
    "other latents": ("flux", "vae/config.json", {"latent_channels": 4}, "transformer of .* has 16 channels in and 16"),
    "oblong": ("sd3", "transformer/config.json", {"sample_size": [8, 16]}, r"sample_size \[8, 16\], which must be"),
    "no T5": ("flux", "model_index.json", {"text_encoder_2": [None, None]}, "where FLUX has a T5EncoderModel"),
    "a slow tokenizer": ("sd3", "model_index.json", {"tokenizer_3": ["transformers", "X"]}, "has a T5TokenizerFast"),
    "told no scale": ("sd3", "model_index.json", {}, r"not guidance-distilled, and model\.distilled=3\.5"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_folder_that_will_not_do_is_one_sentence_before_anything_is_loaded(what: str, tmp_path: Path) -> None:
    kind, file, settings, said = REFUSED[what]
    opened(kind, "velocity").pipe.save_pretrained(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(BadInput, match=said) as refused:
        StableDiffusion(name="m", path=str(tmp_path), distilled=3.5).check()
    assert "\n" not in str(refused.value)


def test_of_two_copies_of_the_weights_the_one_is_looked_at_that_is_loaded(tmp_path: Path) -> None:
    model = opened("sd3", "velocity")
    model.pipe.save_pretrained(tmp_path, max_shard_size="5KB")
    once = tmp_path / "once"
    with torch.no_grad():
        kept = model.network.proj_out.bias.clone()
        model.network.proj_out.bias.add_(1)
    model.pipe.save_pretrained(once)
    for part in ("transformer", "text_encoder_3"):
        for file in (once / part).glob("*.safetensors"):
            file.rename(tmp_path / part / file.name)
    (transformer, encoder) = (layout.weights(tmp_path / part) for part in ("transformer", "text_encoder_3"))
    assert transformer[0].name.endswith(".index.json")
    assert [file.name for file in encoder] == ["model.safetensors"]
    assert torch.equal(checkpoint(model, tmp_path).open("cpu").network.proj_out.bias, kept)
    for file in transformer[1:]:
        file.unlink()
    with pytest.raises(BadInput, match=r"-of-.*\.safetensors is missing"):
        layout.check(tmp_path)


def test_a_tokenizer_of_t5_without_its_file_is_one_sentence(tmp_path: Path) -> None:
    opened("flux", "velocity").pipe.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_2/tokenizer.json").unlink()
    with pytest.raises(BadInput, match=r"tokenizer_2/tokenizer\.json is missing"):
        layout.check(tmp_path)


def test_a_missing_part_of_the_weights_is_one_sentence(tmp_path: Path) -> None:
    opened("sd3", "velocity").pipe.save_pretrained(tmp_path, max_shard_size="5KB")
    gone = sorted((tmp_path / "transformer").glob("*-of-*"))[1]
    gone.unlink()
    with pytest.raises(BadInput, match=re.escape(f"{gone} is missing")):
        layout.check(tmp_path)


@pytest.mark.parametrize("sentence", ["a butterfly", "a butterfly, (butterfly) and a fox", "an emoji of a butterfly's"])
def test_the_names_tokens_are_found_in_every_tokenizer(joint: Any, concept: Any, sentence: str) -> None:
    for stream, kind in enumerate(joint.streams):
        tokenizer = joint.pipe.tokenizer if kind == "clip" else joint._streams[stream].tokenizer
        first = 0 if stream == 0 else joint._streams[0].length
        ids = tokenizer(sentence).input_ids
        for at in (place.start() for place in re.finditer("butterfly", sentence)):
            rows = joint.span(sentence, "butterfly", at, stream)
            pieces = tokenizer.convert_ids_to_tokens([ids[row - first] for row in rows])
            assert "".join(pieces).replace("▁", "").replace("</w>", "") == "butterfly"
        assert joint.end(sentence, stream) == first + len(ids) - 1
    texts = [sentence.replace("a butterfly", "{}", 1)]
    rows = Slot(joint, concept).places(texts)[0]
    assert len(rows) == sentence.count("butterfly")
    assert all(rows)


def test_a_name_that_a_tokenizer_splits_in_two_ways_is_refused_by_a_perturbation(concept: Any) -> None:
    model = opened("flux", "velocity")
    twice = replace(concept, templates=("{}", "a picture ({})"), phrase="butterfly")
    with pytest.raises(BadInput, match=r"has not the same tokens in all of concept\.templates: reword them"):
        anchor().start(model, twice, 0)


def test_a_name_behind_the_last_token_is_one_sentence(joint: Any) -> None:
    text = " ".join(["emoji"] * 40) + " butterfly"
    for stream in range(len(joint.streams)):
        with pytest.raises(BadInput, match="'butterfly' are cut off: the text encoder reads"):
            joint.span(text, "butterfly", stream=stream)
        with pytest.raises(BadInput, match="'car' are not among the tokens of 'a scarf'"):
            joint.span("a scarf", "car", stream=stream)
    assert joint.cut([text, "a fox"]) == [text]
    if family(joint) == "sd3":  # T5 reads 32 tokens, CLIP 24
        assert joint.cut([" ".join(["emoji"] * 26)]) == []


def anchor(**settings: Any) -> Adversarial:
    base = {"loss": "direction", "schedule": "alternating", "place": "output", "steps": 1, "lr": 0.1, "init": 0.3}
    return Adversarial(name="a", **{**base, **settings})


@pytest.mark.parametrize(
    ("settings", "moved"),
    [
        ({}, {"clip": True, "t5": True, "sentence": False}),
        ({"streams": "clip"}, {"clip": True, "t5": False, "sentence": False}),
        ({"streams": "t5", "sentence": True}, {"clip": False, "t5": True, "sentence": True}),
    ],
)
def test_a_perturbation_moves_what_its_settings_say_of_several_streams(
    concept: Any, settings: dict[str, Any], moved: dict[str, bool]
) -> None:
    model = opened("sd3", "velocity")
    target = anchor(**settings).start(model, concept, 0)
    template, text = "{} and a butterfly", "a butterfly and a butterfly"
    changed = (target.condition([template]) - model.encode([text]))[0].abs().sum(-1) > 0
    first = model._streams[0].length
    assert bool(changed[:first].any()) == moved["clip"]
    assert bool(changed[first:-1].any()) == moved["t5"]
    assert bool(changed[-1]) == moved["sentence"]
    assert (similarity(model, target)["anchor/cosine_pooled"] < 0.999) == moved["sentence"]
    if moved["sentence"]:  # once for the sentence, however often the name stands in it
        assert torch.allclose(target.condition([template])[0, -1] - model.encode([text])[0, -1], target.parameter[-1])
    before = target.parameter.detach().clone()
    target.descend(noised(model, concept), 1)
    assert ((target.parameter - before).abs().sum(-1) > 0).all()


def test_the_control_of_a_moved_sentence_has_the_norm_where_the_model_reads_it(concept: Any) -> None:
    model = opened("flux", "velocity")
    settings = {"loss": "direction", "schedule": "alternating", "place": "output", "steps": 1, "lr": 0.1, "init": 0.3}
    control = Noise(name="n", sentence=True, **settings)  # type: ignore[arg-type]
    target = control.start(model, concept, 0)
    moved = (target.condition(["{}"]) - model.encode(["a butterfly"]))[0]
    assert not moved[-1, model.pooled :].any()
    assert float(moved.norm()) == pytest.approx(float(target.parameter.detach().norm()), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.family=sd", "anchor.streams=t5"], "anchor=adversarial needs T5's tokens as it is set"),
        (["model.family=flux", "anchor.streams=clip"], "anchor=adversarial needs CLIP's tokens as it is set"),
        (["model.family=sd", "anchor.sentence=true"], "needs an embedding of the whole sentence as it is set"),
        (["model.family=sd", "anchor.sentence=true", "anchor.place=input"], "place=input moves the sentence by itself"),
        (["model.family=sd3", "model.predicts=epsilon"], "family=sd3 does not predict epsilon"),
        (["model.family=flux", "attack=[noise]"], "attack=noise needs a diffusion's noise schedule"),
        (["model.family=sd3", "method=spm_faithful"], "method=spm_faithful needs a diffusion's noise schedule"),
    ],
)
def test_what_a_family_has_not_is_refused_before_anything_is_loaded(words: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        compose(["model=random", "anchor=adversarial", *words])


def test_the_closed_form_maps_tokens_and_sentence_to_the_anchors(joint: Any, concept: Any, tmp_path: Path) -> None:
    method = UnifiedConceptEditing(
        name="uce", lamb=1e-6, erase_scale=1.0, preserve_scale=0.0, templates=1, preserve_templates=1, anchor_steps=0,
        anchor_batch=1, pool=1, pool_steps=1, pool_guidance=1.0,
    )  # fmt: skip
    edit = method.erase(joint, [Superclass(name="superclass").start(joint, concept, 0)], 0, tmp_path, lambda *a: None)
    embedder, linear = "context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight"
    assert set(edit) == {embedder, linear}
    template = concept.templates[0]
    own, above = template.format(concept.phrase), template.format(concept.superclass)
    e_c, e_a = joint.encode([own])[0], joint.encode([above])[0]
    frozen = joint.weights("full")
    for stream in range(len(joint.streams)):
        c = e_c[joint.span(own, concept.name, stream=stream)[-1]]
        a = e_a[joint.span(above, concept.superclass, stream=stream)[-1]]
        assert torch.allclose(edit[embedder] @ c, frozen[embedder] @ a, atol=1e-2)
        assert not torch.allclose(frozen[embedder] @ c, frozen[embedder] @ a, atol=1e-2)
    c, a = e_c[-1, : joint.pooled], e_a[-1, : joint.pooled]
    assert torch.allclose(edit[linear] @ c, frozen[linear] @ a, atol=1e-2)
    assert not torch.allclose(frozen[linear] @ c, frozen[linear] @ a, atol=1e-3)


def test_what_a_scope_means_in_each_family_is_what_the_page_says(model: Any) -> None:
    page = (Path(__file__).parents[1] / "docs/families.md").read_text()
    for scope in ("attn2", "attn2.kv", "noxattn", "full", "transformers"):
        assert f"| `{scope}` |" in page
    for kind in ("sd3", "sd35", "flux"):
        names = {scope: set(opened(kind, "velocity").weights(scope)) for scope in ("attn2", "attn2.kv", "noxattn")}
        assert {name.split(".")[-2] for name in names["attn2.kv"]} == {"add_k_proj", "add_v_proj"}
        assert names["attn2.kv"] < names["attn2"]
        assert {name.split(".")[-2] for name in names["attn2"]} == {
            "add_k_proj", "add_q_proj", "add_v_proj", "to_add_out",
        }  # fmt: skip
        assert not names["noxattn"] & names["attn2"]


def test_inside_a_flows_picture_is_painted_and_the_rest_stays(joint: Any) -> None:
    z = joint.latents(["a fox"], [0], steps=2, guidance=1.0)
    stays = torch.zeros(1, 1, 8, 8)
    stays[..., :4] = 1
    around = torch.cat([z, stays], 1)
    painted, _ = joint._denoise(["a car"], [1], 4, 1.0, joint._parts.solver(), None, around=around)
    assert torch.equal(painted[..., :4], z[..., :4])
    assert not torch.allclose(painted[..., 4:], z[..., 4:], atol=0.1)
