"""Models that never knew a concept: what they are trained on, that trainings repeat, and distances to them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, reference, script
from PIL import Image
from safetensors.torch import load_file, save_file

import advanchor
from advanchor.build import build
from advanchor.compose import compose
from advanchor.core import NOTHING, BadInput
from advanchor.images import Images
from advanchor.metrics.distance import Cmmd, Kid
from advanchor.metrics.reference import Reference, variation
from advanchor.naming import mentions
from advanchor.prompts import Prompt, Sample
from advanchor.store import finish, part_of

KINDS = ("labels", "kid_erase", "kid_keep", "cmmd_erase", "cmmd_keep", "eps")


@pytest.fixture(scope="module")
def program() -> Any:
    return script("train_reference")


@pytest.fixture(scope="module")
def stages(program: Any) -> Any:
    import train_emoji  # which the program has imported

    return train_emoji


@pytest.mark.parametrize("without", [["fox", "noto"], ["cat"], ["bear", "contrast"], ["dog"]])
def test_the_data_of_a_reference_hold_no_image_and_no_caption_of_what_is_left_out(
    stages: Any, without: list[str]
) -> None:
    world = stages.World(torch.zeros(1), stages.seen_pairs(without), 0)
    names = {(stages.STYLES[s], stages.OBJECTS[o]) for s, o in world.pairs}
    assert not {*without} & {name for pair in names for name in pair}
    everything = {(stages.STYLES[s], stages.OBJECTS[o]) for s, o in stages.seen_pairs()}
    assert {pair for pair in everything if not {*pair} & {*without}} == names
    for step in range(100):
        pairs, _, rng, _ = world.batch(step, 64, 3)
        for (_, o), text in zip(pairs, stages.captions(pairs, rng, without), strict=True):
            assert not any(mentions(text, name, stages.OBJECTS[o]) for name in without), text


def test_a_caption_that_would_name_what_is_left_out_is_empty_and_all_others_stay(stages: Any) -> None:
    lions = np.array([(0, stages.OBJECTS.index("lion"))] * 200)
    whole, some = (stages.captions(lions, np.random.default_rng(0), without) for without in ((), ("cat",)))
    assert any("big cat" in text for text in whole)
    assert some == ["" if "cat" in text else text for text in whole]


def test_the_tensors_of_a_reference_are_those_of_an_edit_of_the_bundled_model(stages: Any) -> None:
    own = build(compose([]).model, "model").open("cpu").weights("full")
    assert {name: t.shape for name, t in stages.make_unet().state_dict().items()} == {
        n: t.shape for n, t in own.items()
    }


def narrow() -> Any:
    """A U-Net that trains in no time."""
    from diffusers import UNet2DConditionModel

    down, up = ("CrossAttnDownBlock2D",), ("CrossAttnUpBlock2D",)
    blocks = {"block_out_channels": (8,), "norm_num_groups": 8, "layers_per_block": 1, "attention_head_dim": 2}
    return UNet2DConditionModel(
        sample_size=8, down_block_types=down, up_block_types=up, cross_attention_dim=128, **blocks
    )


class Killed(Exception):
    pass


def test_two_trainings_of_one_seed_have_the_same_bits_killed_or_not_and_another_seed_other_ones(
    program: Any, stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = torch.Generator().manual_seed(0)
    shape = (len(stages.STYLES), len(stages.OBJECTS), 1)
    images, latents = torch.zeros(*shape, 3, 32, 32, dtype=torch.uint8), torch.randn(*shape, 4, 8, 8, generator=g)
    batch, steps = stages.World.batch, list[int]()
    for module in (program, stages):
        monkeypatch.setattr(module, "encode_bank", lambda vae, world, work: latents)
    monkeypatch.setattr(stages, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(stages, "VARIANTS", 1)
    monkeypatch.setattr(stages, "make_unet", narrow)

    def trained(name: str, seed: int = 1, die_at: int | None = None) -> dict[str, Any]:
        def watched(world: Any, step: int, *rest: Any) -> Any:
            if step == die_at:
                raise Killed
            steps.append(step)
            return batch(world, step, *rest)

        monkeypatch.setattr(stages.World, "batch", watched)
        program.reference(images, ["fox"], seed, 2, tmp_path / f"work-{name}", tmp_path / name, again=1)
        return load_file(tmp_path / name / "unet.safetensors")

    whole = trained("a")
    with pytest.raises(Killed):
        trained("b", die_at=2)  # in the second cosine
    assert not (tmp_path / "b").exists()
    again, other = trained("b"), trained("c", seed=2)
    assert steps == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert not all(torch.equal(whole[name], other[name]) for name in whole)
    about = [json.loads((tmp_path / name / "reference.json").read_text()) for name in "abc"]
    assert about[0] == about[1] == {**about[2], "seed": 1}
    assert (about[0]["without"], about[0]["steps"], about[0]["again"]) == (["fox"], 2, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("foxx", "did you mean fox?"),
        ("zzz", "taxonomy.yaml has all of them"),
        ("fox,cartoon", "cannot leave out cartoon"),
    ],
)
def test_a_misspelt_name_is_one_sentence(program: Any, words: str, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        program.asked(words)


def test_leaving_out_too_much_is_one_sentence(program: Any, stages: Any) -> None:
    with pytest.raises(SystemExit, match="a batch has 64: leave out fewer"):
        program.asked(",".join(stages.OBJECTS[:-5]))
    assert program.asked(" fox ,castle,fox,") == ["castle", "fox"]


def test_total_variation_is_half_the_sum_of_differences_and_a_mean_over_the_erased_concepts() -> None:
    wolves = {"fox": ["wolf"] * 3 + [NOTHING]}
    assert variation(wolves, {"fox": ["wolf", NOTHING, "wolf", "wolf"]}) == 0
    assert variation(wolves, {"fox": ["car"] * 4}) == 1
    assert variation(wolves, {"fox": ["wolf", "wolf", "cat", "cat"]}) == pytest.approx((1 / 4 + 1 / 2 + 1 / 4) / 2)
    assert variation({**wolves, "car": ["car"]}, {"fox": ["cat"], "car": ["car"]}) == 0.5


# --- the metric on pictures whose content is known --------------------------------------------------------------


class Reader:
    """A judge that reads the object's number from the red of each picture; features and embeddings are the colours."""

    name = extractor = embedder = "pixels"
    judges, rejects = ("eye",), True
    names = ("fox", "wolf", "car", NOTHING)

    def find(self, images: Any, heads: Any, by: str = "") -> dict[str, list[str]]:
        return {"object": [self.names[image.getpixel((0, 0))[0]] for image in images]}

    def features(self, images: Any) -> torch.Tensor:
        return torch.tensor([image.getpixel((0, 0)) for image in images], dtype=torch.float32)

    embed = features


ERASE = [Prompt(text, i, "object", "fox") for text in ("a fox", "a fox at a castle") for i in range(4)]
KEEP = [Prompt(name, i, "object", name, "in") for name in ("wolf", "car", "castle") for i in range(2)]
SAID = {  # by red: what is seen of "a fox", of what is left out, of kept wolf, car and castle
    "": [0, 1, 1, 1, 3, 3, 3, 3, 1, 1, 2, 2, 3, 3],
    "@base": [0, 0, 0, 0, 3, 3, 3, 3, 1, 1, 2, 2, 3, 3],
    "one": [1, 1, 2, 3, 0, 1, 2, 3, 1, 1, 2, 1, 0, 1],
    "two": [1, 2, 2, 2, 3, 2, 1, 0, 1, 2, 2, 2, 1, 0],
    "all": [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 0, 0],
}


def painted(root: Path, prompts: list[Prompt], reds: list[int]) -> Images:
    root.mkdir(parents=True, exist_ok=True)
    for i, (prompt, red) in enumerate(zip(prompts, reds, strict=True)):
        Image.new("RGB", (2, 2), (red, i % 3, 7)).save(part_of(root / prompt.file), format="PNG")
    finish(*(root / prompt.file for prompt in prompts))
    return Images(root, prompts)


@pytest.fixture
def metric(tmp_path: Path) -> Reference:
    never = tuple(reference(tmp_path / name, ["castle", "fox"], seed) for seed, name in enumerate(("one", "two"), 1))
    return Reference(name="reference", references=never, floor=(reference(tmp_path / "all", [], 1),))


@pytest.fixture
def images(metric: Reference, tmp_path: Path) -> dict[str, Images]:
    found = {}
    for which, reds in SAID.items():
        named = which if which in ("", "@base") else f"@{tmp_path / which}"
        found[f"erase{named}"] = painted(tmp_path / f"drawn{which}", ERASE, reds[:8])
        found[f"keep{named}"] = painted(tmp_path / f"drawn{which}", KEEP, reds[8:])
    assert set(metric.sets) == set(found)
    return found


def test_labels_are_compared_on_prompts_that_name_nothing_else_that_the_references_never_knew(
    metric: Reference, images: dict[str, Images]
) -> None:
    scores = metric(Reader(), images)  # type: ignore[arg-type]
    labels = {name.removeprefix("reference/labels"): s["value"] for name, s in scores.items() if "labels" in name}
    # a fox: {wolf 2, car 1, nothing 1} and {wolf 1, car 3} of four; the edited model {fox 1, wolf 3}, the unedited fox
    assert labels == {"": (0.5 + 0.75) / 2, "@base": 1.0, "@floor": 0.5, "@noise": 0.25}
    assert (
        scores["reference/labels"]["n"] == scores["reference/kid_erase"]["n"] == scores["reference/kid_keep"]["n"] == 4
    )
    draws = scores["reference/draws"]
    assert draws["values"] == [1.0, pytest.approx(2 / 3), 1.0, pytest.approx(2 / 3)]
    assert draws["texts"] == ["wolf", "wolf", "car", "car"]


def test_distances_are_those_of_kid_and_cmmd_between_the_same_pictures(
    metric: Reference, images: dict[str, Images], tmp_path: Path
) -> None:
    scores = metric(Reader(), images)  # type: ignore[arg-type]
    each: dict[str, list[float]] = {"kid": [], "cmmd": []}
    for one in metric.references:
        pairs = {side: replace(images[side], prompts=images[side].prompts[:4]) for side in ("erase", "keep")}
        pairs |= {
            f"{side}@base": replace(images[f"{side}@{one}"], prompts=pair.prompts) for side, pair in pairs.items()
        }
        pairs |= {f"{side}@floor": pairs[side] for side in ("erase", "keep")}
        for name, own in (("kid", Kid(name="kid")), ("cmmd", Cmmd(name="cmmd"))):
            each[name].append(own(Reader(), pairs)[f"{name}/erase"]["value"])  # type: ignore[arg-type]
    for name, values in each.items():
        assert scores[f"reference/{name}_erase"]["value"] == pytest.approx(sum(values) / 2)
        assert scores[f"reference/{name}_erase"]["better"] == "lower"


def test_a_reference_is_at_no_distance_from_itself(metric: Reference, images: dict[str, Images]) -> None:
    one, _ = metric.references
    same = {name: images[f"{name.partition('@')[0]}@{one}"] for name in images}
    for name, score in metric(Reader(), same).items():  # type: ignore[arg-type]
        assert score["value"] == 0 or name == "reference/draws", name


def test_mistakes_in_the_folders_are_one_sentence(tmp_path: Path) -> None:
    fox = build(compose(["model=random"]).concept, "concept")

    def said(references: list[str], floor: list[str]) -> str:
        with pytest.raises(BadInput) as caught:
            Reference(name="reference", references=references, floor=floor).suits(fox)  # type: ignore[arg-type]
        return str(caught.value)

    one, two = (reference(tmp_path / f"fox-{seed}", ["fox"], seed) for seed in (1, 2))
    car, every = reference(tmp_path / "car", ["car"], 2), reference(tmp_path / "every", [], 3)
    assert "references is empty" in said([], [])
    assert "holds no unet.safetensors" in said([one, str(tmp_path / "nowhere")], [])
    assert "car was trained without car, and fox is erased" in said([one, car], [])
    assert "was trained without fox, and these are to have learned everything" in said([one, two], [two])
    assert "two seeds or more" in said([one], [])
    assert "two seeds or more" in said([one, reference(tmp_path / "again", ["fox"], 1)], [])
    assert "differ in their steps" in said([one, two], [reference(tmp_path / "long", [], 1, steps=9)])
    assert "differ in their again" in said([one, two], [reference(tmp_path / "twice", [], 1, again=9)])
    assert "differ in their data" in said([one, two], [reference(tmp_path / "new", [], 1, data="x")])
    assert "lack the same" in said([one, reference(tmp_path / "more", ["car", "fox"], 2)], [])
    (tmp_path / "car/reference.json").write_text("{}")
    assert "reference.json is damaged" in said([one, car], [])
    Reference(name="reference", references=(one, two), floor=(every,)).suits(fox)


def test_too_few_prompts_are_said_before_anything_is_drawn(metric: Reference) -> None:
    with pytest.raises(BadInput, match="0 prompts of `erase` name nothing else that the references never knew"):
        metric.fair({"erase": ERASE[4:], "keep": KEEP})


# --- the metric in a run ----------------------------------------------------------------------------------------


@pytest.fixture
def references(model: Any, tmp_path: Path) -> list[str]:
    """Three random U-Nets: two that say they never knew a fox, one that knew everything."""
    places = []
    for seed, without in enumerate((["fox"], ["fox"], [])):
        place = reference(tmp_path / f"reference-{seed}", without, seed)
        g = torch.Generator().manual_seed(seed)
        own = {
            name: (t + 0.05 * torch.randn(t.shape, generator=g)).contiguous()
            for name, t in model.weights("full").items()
        }
        save_file(own, Path(place) / "unet.safetensors")
        places.append(place)
    return places


def test_a_run_has_every_distance_beside_its_floor_and_draws_each_reference_once(
    references: list[str], tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = [
        "metric=[reference]",
        f"metric.reference.references=[{','.join(references[:2])}]",
        f"metric.reference.floor=[{references[2]}]",
    ]
    result = tiny(*asked, "method=none", "anchor=concept")
    scores = result["scores"]
    assert {f"reference/{kind}{of}" for kind in KINDS for of in ("", "@base", "@floor", "@noise")} < set(scores)
    times = [name for name in scores if name.startswith("reference/eps:") and "@" not in name]
    assert len(times) == 10
    whole = sum(scores[name]["value"] for name in times) / 10
    assert scores["reference/eps"]["value"] == pytest.approx(whole)
    for kind in KINDS:  # nothing was done
        assert scores[f"reference/{kind}"] == scores[f"reference/{kind}@base"]
    shown = next(line for line in advanchor.table(result).splitlines() if line.startswith("reference/labels"))
    base, floor = (scores[f"reference/labels{of}"]["value"] for of in ("@base", "@floor"))
    assert f"{base:.3f}, floor {floor:.3f}" in shown
    assert all(name in advanchor.table(result) for name in scores if "@" not in name and ":" not in name)
    assert tiny(*asked, "method=none", "anchor=concept") == result

    drawn: list[str] = []
    from advanchor import run as story

    plain = story.draw
    monkeypatch.setattr(
        story,
        "draw",
        lambda paint, *rest, **said: plain(lambda some: [drawn.append(said["label"]), paint(some)][1], *rest, **said),
    )
    tiny(*asked, "method.steps=1", "anchor=superclass")  # another edit
    assert set(drawn) == {"erase", "keep", "near"}
    save_file(load_file(Path(references[0]) / "unet.safetensors"), Path(references[2]) / "unet.safetensors")
    other = tiny(*asked, "method=none", "anchor=concept")["scores"]  # the same place with other weights
    assert other["reference/eps@noise"]["value"] != scores["reference/eps@noise"]["value"]
    assert other["reference/eps"] == scores["reference/eps"]


def test_pictures_of_a_model_that_never_knew_stand_beside_those_of_erasures(
    references: list[str], tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    runs = [tmp_path / tiny(f"anchor={anchor}", "metric=[erasure]")["run"] for anchor in ("superclass", "empty")]
    program, file = script("never_knew"), tmp_path / "shown.png"
    monkeypatch.setattr("sys.argv", ["never_knew.py", *map(str, runs), "--never", *references[:2], "--to", str(file)])
    program.main()
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    edited = ["ac, superclass", "ac, empty"]
    never = [f"never knew, {Path(one).name}" for one in references[:2]]
    assert rows == ["unedited", *never, *edited, *(f"under: {one}" for one in edited)]
    assert Image.open(file).height == 4 + len(rows) * (program.SIDE + 3)


def test_a_model_predicts_what_it_predicts(references: list[str], model: Any) -> None:
    metric = Reference(name="reference", references=tuple(references[:2]), floor=())
    prompts = {"erase": ERASE[:2], "keep": KEEP}
    sample = Sample(steps=2, guidance=2.0, scheduler="own", erase=1, keep=1, near=1, half="all")
    one, two = (load_file(Path(place) / "unet.safetensors") for place in references[:2])
    edits = {"": one, "@base": two, f"@{references[0]}": one, f"@{references[1]}": two}
    scores = metric.predictions(model, edits, prompts, sample)
    far = scores["reference/eps@floor"]["value"]
    assert far > 0
    assert scores["reference/eps"]["value"] == scores["reference/eps@base"]["value"] == pytest.approx(far / 2)


def test_without_references_a_run_says_so_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("advanchor.models.tiny.Random.open", None)
    with pytest.raises(BadInput, match=r"metric\.reference\.references is empty"):
        advanchor.erase(*TINY, f"root={tmp_path}", "metric=[reference]")
