"""Every config file composes and every component it names can be built; mistakes get one sentence."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from conftest import reference
from omegaconf import OmegaConf

from advanchor.build import build, sample_of, target
from advanchor.compose import CONF, compose, compose_all, expand, validate
from advanchor.core import BadInput
from advanchor.identity import plain, run_id


def options(group: str) -> list[str]:
    folder = Path(CONF) / group
    found = sorted(
        str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.yaml") if not f.stem.startswith("_")
    )
    assert found, f"conf/{group} is empty, so this test would pass without looking at anything"
    return found


PARTS = [(g, o) for g in ("model", "judge", "anchor", "method", "metric", "tracker") for o in options(g)]


@pytest.mark.parametrize(("group", "option"), PARTS)
def test_every_option_builds(group: str, option: str, tmp_path: Path) -> None:
    path = ["model.path=bundled", "model.predicts=null", "model.distilled=null"]
    path = path if option.startswith(("sd", "flux")) and group == "model" else []
    if (group, option) == ("metric", "reference"):
        never = [reference(tmp_path / str(seed), ["fox"], seed) for seed in (1, 2)]
        path = [f"metric.reference.references=[{','.join(never)}]"]
    if (group, option) == ("method", "load"):
        (tmp_path / "edit.safetensors").touch()
        path = [f"method.edit={tmp_path}/edit.safetensors"]
    models = [] if group == "model" else ["model=random"]
    cfg = compose([*models, f"{group}=[{option}]" if group == "metric" else f"{group}={option}", *path])
    node = cfg.metric[option] if group == "metric" else cfg[group]
    assert (
        build(node, group).name.replace(" ", "_").lower() == option.split("/")[-1]
        or group == "judge"
        or option == "published"
    )


@pytest.mark.parametrize(
    ("group", "option"), [p for p in PARTS if p != ("anchor", "published")]
)  # published is a name for another anchor
def test_every_setting_stands_in_its_yaml_so_that_it_is_seen_overridden_and_part_of_the_key(
    group: str, option: str
) -> None:
    node = OmegaConf.load(Path(CONF) / group / f"{option}.yaml")
    node = node[option] if group == "metric" else node
    assert set(node) - {"_target_"} == {
        field.name for field in fields(target(node["_target_"], group, group)) if field.init
    }


@pytest.mark.parametrize("option", options("concept"))
def test_every_concept_asks_for_what_it_erases_and_keeps_it_out_of_what_it_keeps(option: str) -> None:
    cfg = compose(["model=random", "judge=none", f"concept={option}"])  # the emoji judge knows its own concepts only
    concept = build(cfg.concept, "concept")
    assert concept.name.replace(" ", "_").lower() == option.split("/")[-1]
    prompts = concept.prompts(sample_of(cfg))
    names = {part.name for part in concept.parts}
    assert {p.label for p in prompts["erase"]} == names
    assert all(p.label in p.text for p in prompts["erase"])
    assert all(p.label not in names and not names & set(p.text.split()) for p in prompts["keep"])
    assert {p.kept for p in prompts["keep"]} == {"in", "cross"} or option.startswith(
        "sd_"
    )  # the released evaluation measures one kind
    assert not any("{" in p.text for group in prompts.values() for p in group)
    assert len({p.file for p in prompts["erase"]}) == len(prompts["erase"])
    if option.startswith("emoji/"):
        assert len(prompts["erase"]) >= 100
        assert len(prompts["keep"]) >= 200
        assert len(prompts["near"]) >= 300


@pytest.mark.usefixtures("references_there")
@pytest.mark.parametrize("name", [o for o in options("experiment") if o != "base"])
def test_every_experiment_changes_something(name: str) -> None:
    model = ["model=sd14", "model.path=bundled"] if "sd14" in name else ["model=random"]
    base, changed = (plain(compose(expand([*model, f"experiment={e}"])[0])) for e in ("base", name))
    assert {k for k in base if base[k] != changed[k]} - {"study"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [o for o in options("experiment") if "sd14" in o])
def test_every_run_of_a_table_on_stable_diffusion_composes(name: str) -> None:
    overrides = [f"experiment={name}", "model.path=bundled"]
    validate(overrides)
    configs = compose_all(expand(overrides))
    assert len({run_id(cfg) for cfg in configs}) == len(configs) >= 7
    assert {cfg.judge.name for cfg in configs} == {"sd"}


def test_values_found_for_a_model_apply_to_it_alone_and_yield_to_the_command_line() -> None:
    emoji, other = compose(["model=emoji"]), compose(["model=random"])
    assert emoji.method.lr != other.method.lr
    assert compose(["model=emoji", "method.lr=0.5"]).method.lr == 0.5
    assert compose(["model=emoji", "anchor=superclass"]).anchor.name == "superclass"


MISTAKES = {
    "model=sd14": "model.path",
    "model=sd14 model.path=/no/such/folder": "is not a diffusers pipeline",
    "concept=emoji/foxx": "did you mean emoji/fox?",
    "anchor=adversarail": "did you mean adversarial?",
    "methd=ac": "did you mean method?",
    "hydra/launcher=wrkers": "there is no hydra/launcher=wrkers: did you mean workers?",
    "model=random method.lrr=1": "did you mean method.lr?",
    "model=random +method.lrr=1": "did you mean method.lr?",
    "model=random +smaple.steps=1": "did you mean sample?",
    "model=random method.lr=fast": "method.lr=fast will not do",
    "model=random method.steps=-1": "method.steps=-1 will not do",
    "model=random sample.steps=0": "sample.steps=0 will not do",
    "model=random sample.guidance=0.5": "sample.guidance=0.5 will not do",
    "model=random concept.templates=[]": "concept.templates is empty",
    "model=random concept.evaluate=[]": "concept.evaluate is empty",
    "model=random ~concept.keep ~concept.keep_cross": "concept.keep is missing",
    "model=random ~concept.keep ~concept.keep_cross +concept.keep={}": "fill `keep`",
    "model=random concept.keep={wombat:a-wombat}": "~concept.keep +concept.keep={...}",
    "model=random method=uce method.lr=1e-4": "no setting 'method.lr' with this method: it has lamb",
    "model=random anchor=superclass anchor.bound=1": "no setting 'anchor.bound' with this anchor: it has none",
    "model=random method=sld_max anchor=concept sample.guidance=1": "changes classifier-free guidance",
    "model=random method=spm method.scope=text_encoder": "method.scope=text_encoder will not do",
    "model=null": "model cannot be null",
    "model=random sample.steps=5000": "less than or equal to 1000",
    "model=random concept.name=wombat": "must contain the name 'wombat'",
    "model=random seed=first": "seed=first will not do",
    "model=random batch=0": "batch=0 will not do",
    "model=random metric=[fidd]": "did you mean fid?",
    "model=random seed=1,two": "seed=two will not do",
    "model=random method.lr=1e-3,abc": "method.lr=abc will not do",
    "model=random method.lr={": "",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence_before_anything_is_loaded(mistake: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("advanchor.models.tiny.Random.open", None)
    with pytest.raises(BadInput) as error:
        validate(mistake.split(" "))
    assert MISTAKES[mistake] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("group", ["model", "judge", "concept", "anchor", "method", "tracker", "metric"])
@pytest.mark.parametrize(
    "name",
    [
        "advanchor.machine.subprocess.Popen", "subprocess.Popen", "os.system", "advanchor.run.run", "advanchor", "",
        "advanchor.core.BadInput", "advanchor.prompts.Prompt", "advanchor.prompts.Sample", "advanchor.nope.X",
        "advanchor.trackers.os.system", "advanchor..x", "advanchor.judges.emoji_classifier.EmojiClassifier",
    ],
)  # fmt: skip
def test_nothing_but_our_own_options_of_the_right_group_is_ever_built(group: str, name: str) -> None:
    with pytest.raises(BadInput, match=f"which is no {group} of advanchor"):
        build(OmegaConf.create({"_target_": name}), group)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="not for a command to change"):
        compose(["model=random", f"{'metric.erasure' if group == 'metric' else group}._target_={name}"])


def test_an_option_of_another_group_is_refused() -> None:
    with pytest.raises(BadInput, match="no judge of advanchor"):
        build(OmegaConf.create({"_target_": "advanchor.trackers.none.NoTracker"}), "judge")


@pytest.mark.parametrize(
    "setting",
    [
        "method.lr=true",
        "method.lr=inf",
        "method.lr=nan",
        "anchor.stop=nan",
        "method.steps='5'",
        "sample.guidance=inf",
        "sample.erase=true",
    ],
)
def test_a_number_is_a_finite_number(setting: str) -> None:
    with pytest.raises(BadInput, match=setting.partition("=")[0]):
        compose(["model=random", setting])
