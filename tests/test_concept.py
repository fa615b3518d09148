"""What is asked for is what was meant: names are words, prompts count once, and what makes no sense gets a sentence."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from conftest import TINY

from advanchor.anchors.adversarial import Adversarial
from advanchor.anchors.embeddings import Project, Random
from advanchor.anchors.similarity import similarity
from advanchor.anchors.slot import Slot
from advanchor.anchors.words import phrase_of
from advanchor.build import build, sample_of
from advanchor.compose import CONF, compose
from advanchor.concept import Concept, Concepts
from advanchor.core import BadInput
from advanchor.naming import mentions
from advanchor.prompts import MOST, Sample, rows

FOX = {
    "_target_": "advanchor.concept.Concept", "name": "fox", "kind": "object", "phrase": "a fox",
    "superclass": "an animal", "templates": ["{}", "a picture of {}"],
    "evaluate": ["{}", "an emoji of {}"], "keep": {"wolf": "a wolf",
    "dog": "a dog"}, "keep_cross": {"noto": "a noto emoji"}, "evaluate_cross": ["{} of a moon"],
}  # fmt: skip
ONE = Sample(steps=1, guidance=1, scheduler="own", erase=1, keep=1, near=1)


def concept_of(**changes: Any) -> Concept:
    from omegaconf import OmegaConf

    made: Concept = build(OmegaConf.create({**FOX, **changes}), "concept")
    return made


def kept(concept: Concept | Concepts) -> list[str]:
    return [p.text for p in concept.prompts(ONE)["keep"]]


# --- names are words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "name"),
    [("a fox, red", "fox"), ("a Fox", "fox"), ("FOXES", "fox"), ("two foxes.", "fox"), ("the fox's tail", "fox"),
     ("the foxes' den", "fox"), ("(fox)", "fox"), ("a fox-like dog", "fox"),
     ("a fox", "Fox"), ("a fox", "foxes"), ("three ladies", "lady"), ("a cherry", "cherries"), ("cars in a row",
     "car"), ("wolves", "wolf"), ("knives", "knife"), ("two chefs", "chef"),
     ("churches", "church"), ("buses", "bus"), ("tomatoes", "tomato"), ("photos", "photo"), ("toys", "toy"),
     ("golf  balls", "golf ball"), ("by van gogh", "Van Gogh"), ("an AC/DC poster", "ac/dc"),
     ("c++ on a shirt", "C++")],
)  # fmt: skip
def test_a_name_is_found_in_any_case_and_number_and_beside_any_sign(sentence: str, name: str) -> None:
    assert mentions(sentence, name)


@pytest.mark.parametrize(
    ("sentence", "name"),
    [("a foxglove", "fox"), ("a cartoon", "car"), ("a scar", "car"), ("a princess", "prince"),
     ("a golf club and a ball", "golf ball"), ("a fo", "fox"), ("a glass", "glas"), ("", "fox"), ("ac dc", "ac/dc")],
)  # fmt: skip
def test_a_name_is_not_found_inside_another_word(sentence: str, name: str) -> None:
    assert not mentions(sentence, name)


def test_no_kept_prompt_names_the_erased_concept_whatever_its_case_number_and_place() -> None:
    sentences = ["{} of a Fox", "{} of foxes", "{} with a fox, red", "{} of a foxglove", "{} of a moon"]
    assert [p.text for p in concept_of(evaluate_cross=sentences).prompts(ONE)["keep"] if p.kept == "cross"] == [
        "a noto emoji of a foxglove",
        "a noto emoji of a moon",
    ]
    assert kept(concept_of(evaluate=["{}", "{} beside foxes"], keep_cross={})) == ["a wolf", "a dog"]


@pytest.mark.parametrize("other", ["fox", "Fox", "foxes"])
def test_the_concept_itself_is_never_kept_or_told(other: str) -> None:
    concept = concept_of(keep={"wolf": "a wolf", other: f"a {other}"}, keep_cross={})
    assert {p.label for p in concept.prompts(ONE)["keep"]} == set(concept.told) == {"wolf"}
    two = Concepts(
        name="two",
        several={
            "a": concept,
            "b": concept_of(name="car", phrase="a car", keep={"dog": "a dog", "wolf": "a wolf", other: f"a {other}"}),
        },
    )
    assert not any(mentions(text, "fox") or mentions(text, "car") for text in kept(two))


def test_a_kept_name_of_several_words_is_its_own() -> None:
    dog = concept_of(
        name="dog",
        phrase="a dog",
        keep={"hot dog": "a hot dog"},
        keep_cross={},
        evaluate=["{}", "two {name}s", "{} and a dog"],
    )
    assert kept(dog) == ["a hot dog", "two hot dogs"]
    assert kept(
        concept_of(
            name="hot dog",
            phrase="a hot dog",
            keep={"dog": "a dog"},
            keep_cross={},
            evaluate=["{}", "{} beside a hot dog"],
        )
    ) == ["a dog"]


def test_the_shipped_concepts_ask_for_exactly_what_they_asked_for() -> None:
    """Digests of (text, seed, head, label, kept, file), taken before names were looked for as words."""
    digests = {
        "fox": "1eba1bf94a98236f",
        "twemoji": "c6f907b409a92b3f",
        "car": "1910ef820cae45cc",
        "fox_and_car": "8f1c82b31981888e",
        "fox_and_twemoji": "424a755cbbe85f8b",
    }
    for option, digest in digests.items():
        cfg = compose(["model=random", f"concept=emoji/{option}", "sample.erase=20"])
        prompts = build(cfg.concept, "concept").prompts(sample_of(cfg))
        listed = {}
        for side, group in ((side, prompts[side]) for side in ("erase", "keep")):
            listed[side] = [(p.text, p.seed, p.head, p.label, p.kept, p.file) for p in group]
        assert hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16] == digest, option


# --- the span is every occurrence of the name -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "phrase", "suffix", "text"),
    [
        ("car", "a cartoon car", "'s", "a cartoon car's"),
        ("car", "a car", "'s", "a car's"),
        ("fox", "a Fox beside a fox", "'s", "a Fox's beside a fox's"),
        ("car", "a cartoon car", "", "a cartoon car"),
    ],
)
def test_a_suffix_is_put_behind_whole_words_only(model: Any, name: str, phrase: str, suffix: str, text: str) -> None:
    assert Slot(model, concept_of(name=name, phrase=phrase, keep={"dog": "a dog"}), suffix).texts(["{}"]) == [text]


def test_another_name_takes_the_place_of_whole_words_only() -> None:
    assert phrase_of(concept_of(name="car", phrase="a cartoon Car"), "bus") == "a cartoon bus"


@pytest.mark.parametrize("suffix", ["", "'s"])
@pytest.mark.parametrize("phrase", ["a butterfly and a butterfly", "a Butterfly, butterfly"])
def test_every_occurrence_of_the_name_is_its_span(model: Any, phrase: str, suffix: str) -> None:
    slot = Slot(model, concept_of(name="butterfly", phrase=phrase, templates=["{}", "{} by a butterfly"]), suffix)
    ids = model.pipe.tokenizer("butterfly" + suffix).input_ids[1:-1]
    for text, span, places in zip(
        slot.texts(slot.concept.templates),
        slot.spans(slot.concept.templates),
        slot.places(slot.concept.templates),
        strict=True,
    ):
        whole = model.pipe.tokenizer(text).input_ids
        assert len(places) == text.lower().count("butterfly")
        assert all([whole[p] for p in place] == ids for place in places)
        assert span == sorted(set(span)) == [p for place in places for p in place]


@pytest.mark.parametrize("place", ["output", "input"])
def test_a_perturbation_moves_every_occurrence_alike_and_nothing_else(model: Any, place: str) -> None:
    concept = concept_of(name="butterfly", phrase="a butterfly and a butterfly", templates=["{}", "{} on a butterfly"])
    slot = Slot(model, concept)
    delta = torch.ones_like(slot.tokens(), requires_grad=True)
    moved = []
    watch = model.pipe.text_encoder.get_input_embeddings().register_forward_hook(
        lambda module, args, out: moved.append(out)
    )
    e = slot.encode(concept.templates, delta, place)  # type: ignore[arg-type]
    watch.remove()
    slots = sum(len(span) for span in slot.spans(concept.templates))
    if place == "output":
        shift = e - slot.encode(concept.templates)
        where = [row.abs().sum(-1).gt(1e-4).nonzero().flatten().tolist() for row in shift]
        assert where == slot.spans(concept.templates)
        (gradient,) = torch.autograd.grad(shift.sum(), delta)
        assert gradient.sum().item() == pytest.approx(slots * delta.shape[1], rel=1e-3)
    assert e.shape[0] == 2


def test_anchors_of_a_phrase_with_its_name_twice_start_and_have_a_similarity(model: Any) -> None:
    concept = concept_of(name="butterfly", phrase="a butterfly and a butterfly", templates=["{}", "{} on a butterfly"])
    adversarial = Adversarial(
        name="adversarial", loss="direction", schedule="alternating", place="output", steps=1, lr=0.01, init=0.1
    )  # fmt: skip
    for anchor in (
        adversarial,
        replace(adversarial, place="input", suffix="'s", span="words"),
        Random(name="random"),
        Project(name="project"),
    ):
        assert similarity(model, anchor.start(model, concept, 0))["anchor/shift"] > 0


def test_an_occurrence_behind_the_text_encoders_limit_is_refused(model: Any) -> None:
    with pytest.raises(BadInput, match="fox"):
        Slot(model, concept_of(phrase="a fox " + "and a moon " * 30 + "and a fox")).spans(["{}"])


# --- what makes no sense gets a sentence ------------------------------------------------------------------------

MISTAKES = [
    ({"name": ""}, "name '' must be words"), ({"name": " "}, "name ' ' must be words"),
    ({"phrase": ""}, "phrase '' must be words"), ({"superclass": " "}, "superclass ' ' must be words"),
    ({"name": "{}"}, "without braces"), ({"phrase": "a fox {name}"}, "without braces"),
    ({"siblings": [""]}, "siblings '' must be words"), ({"unrelated": ""}, "unrelated '' must be words"),
    ({"synonyms": ["{}"]}, "without braces"), ({"keep": {"wolf": ""}}, "keep '' must be words"),
    ({"keep": {"": "a wolf"}}, "keep '' must be words"), ({"keep_cross": {"noto": "{}"}}, "without braces"),
    ({"name": "car", "phrase": "a cartoon"}, "must contain the name 'car'"),
    ({"phrase": "foxes"}, "must contain the name 'fox'"),
    ({"templates": ["a picture"]}, "exactly one {}"), ({"templates": ["{} and {}"]}, "exactly one {}"),
    ({"templates": ["{name}"]}, "exactly one {}"), ({"templates": ["{} {foo}"]}, "exactly one {}"),
    ({"evaluate": ["a cat"]}, "evaluate 'a cat' must contain exactly one slot"),
    ({"evaluate": ["{} {name}"]}, "exactly one slot"), ({"evaluate": ["{foo}"]}, "exactly one slot"),
    ({"evaluate": ["{} {"]}, "exactly one slot"), ({"evaluate": [""]}, "exactly one slot"),
    ({"evaluate_cross": ["a cat"]}, "evaluate_cross 'a cat' must"),
    ({"keep": {"wolf": "a wolf", "Wolf": "the wolf"}}, "which are one name"),
    ({"keep": {"wolf": "a wolf beside foxes"}}, "which names the erased 'fox'"),
    ({"preserve": {"wolf": "a fox, red"}}, "which names the erased 'fox'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), MISTAKES, ids=[str(m[0]) for m in MISTAKES])
def test_words_that_make_no_sense_get_one_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput) as error:
        concept_of(**changes)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert "'a fox" in str(error.value) or str(error.value).startswith("concept: ")


@pytest.mark.parametrize("name", ["AC/DC", "../../x", "<script>alert(1)</script>", "fox\\wolf", "müller", "狐"])
def test_any_words_may_name_a_concept_and_no_file_of_its_leaves_its_folder(name: str) -> None:
    concept = concept_of(name=name, phrase=f"a {name} poster", keep={"AC/DC live": "a wolf"})
    for p in [p for group in concept.prompts(ONE).values() for p in group]:
        assert Path(p.file).name == p.file
        assert len(p.file) < 120
        assert set(p.file) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def test_two_kept_names_with_the_same_words_are_refused() -> None:
    with pytest.raises(BadInput, match="'an animal' is asked for as wolf and as dog"):
        concept_of(keep={"wolf": "an animal", "dog": "an animal"}).prompts(ONE)


def test_a_set_erases_each_concept_once_and_has_a_name() -> None:
    with pytest.raises(ValueError, match="'Fox' is to be erased twice"):
        Concepts(name="two", several={"a": concept_of(), "b": concept_of(name="Fox")})
    with pytest.raises(ValueError, match="name is empty"):
        Concepts(name=" ", several={"a": concept_of(), "b": concept_of(name="car", phrase="a car")})


def test_an_image_is_asked_for_once() -> None:
    sample = replace(ONE, erase=3, keep=2)
    concept = concept_of(evaluate=["{}", " {}", "{name}", "a {name}"], evaluate_cross=["{} of a moon", "{}  of a moon"])
    prompts = concept.prompts(sample)
    expected = [(text, seed) for text in ("a fox", "fox") for seed in range(3)]
    assert [(p.text, p.seed) for p in prompts["erase"]] == expected
    assert len({(p.text, p.seed) for p in prompts["keep"]}) == len(prompts["keep"]) == (2 * 2 + 1) * 2


@pytest.mark.parametrize("side", ["erase", "keep", "near"])
def test_more_images_than_anybody_draws_are_refused_with_their_number_before_they_are_listed(side: str) -> None:
    with pytest.raises(
        BadInput,
        match=rf"sample\.{side}=1000000000000 asks for \d,000,000,000,000 images of \d prompts, and 200,000",
    ):
        concept_of(near={"dog": "a dog"}).prompts(replace(ONE, **{side: 10**12}))


def test_neighbours_are_asked_for_by_themselves_on_seeds_of_their_own_and_never_as_what_is_erased() -> None:
    near = {"wolf": "a wolf", "Foxes": "some foxes", "cat": "a cat"}
    concept = concept_of(near=near, evaluate_near=["a red {name}", "{} beside a fox"])
    prompts = concept.prompts(replace(ONE, keep=2, near=3))
    assert [(p.text, p.seed) for p in prompts["near"]] == [
        (text, seed) for text in ("a red wolf", "a red cat") for seed in (2, 3, 4)
    ]
    assert {(p.head, p.kept) for p in prompts["near"]} == {("object", "near")}
    assert {p.kept for p in prompts["keep"]} == {"in", "cross"}
    plain = concept_of(near={"wolf": "a wolf"}).prompts(ONE)["near"]
    assert [p.text for p in plain] == ["a wolf", "an emoji of a wolf"]
    assert concept_of().prompts(ONE)["near"] == []
    car = concept_of(name="car", phrase="a car", near={"fox": "a fox", "bus": "a bus"}, evaluate=["{}", "{} and a fox"])
    both = Concepts(name="two", several={"a": concept, "b": car}).prompts(ONE)["near"]
    assert [p.text for p in both] == ["a red wolf", "a red cat", "a bus"]


def halves(concept: Concept) -> dict[str, dict[str, list[Any]]]:
    return {half: concept.prompts(replace(ONE, half=half)) for half in ("all", "choose", "report")}


def test_the_two_halves_are_all_prompts_share_none_and_have_seeds_of_their_own(tmp_path: Path) -> None:
    shipped = {
        name: build(compose([f"concept=emoji/{name}"]).concept, "concept") for name in ("owl", "fox_and_twemoji")
    }
    for one in (concept_of(near={"dog": "a dog"}), shipped["owl"]):
        parts = halves(one)
        for side in ("erase", "keep", "near"):
            texts = {half: {p.text for p in prompts[side]} for half, prompts in parts.items()}
            assert texts["choose"] | texts["report"] == texts["all"]
            assert not texts["choose"] & texts["report"]
            assert abs(len(texts["choose"]) - len(texts["report"])) <= 2  # an odd one of each kind
            assert all(p.seed < 1000 for p in parts["choose"][side])
            assert all(p.seed >= 1000 for p in parts["report"][side])
    csv = tmp_path / "some.csv"
    csv.write_text("prompt,seed\na fox,5\na red fox,6\n")
    listed = halves(concept_of(prompts_csv=str(csv)))
    assert [(p.text, p.seed) for p in listed["report"]["erase"]] == [("a red fox", 6)]  # its own seed


def test_a_concept_of_one_half_is_refused_in_the_other_alone_and_in_a_set() -> None:
    fox = concept_of(half="choose")
    assert {len(fox.prompts(replace(ONE, half=half))["erase"]) for half in ("all", "choose")} == {1, 2}
    with pytest.raises(
        BadInput, match=r"fox is a concept to choose on, and sample\.half=report: set sample\.half=choose"
    ):
        fox.prompts(replace(ONE, half="report"))
    with pytest.raises(BadInput, match="fox is a concept to choose on"):
        Concepts(name="both", several={"a": fox, "b": concept_of(name="wolf", phrase="a wolf", keep={})}).prompts(
            replace(ONE, half="report")
        )
    with pytest.raises(BadInput, match=r"sample\.half=report leaves no prompt of one for fox: give it a second one"):
        concept_of(evaluate=["{}"]).prompts(replace(ONE, half="report"))


def test_an_erased_prompt_knows_its_sentence_with_the_superclass_instead(tmp_path: Path) -> None:
    concept = concept_of(evaluate=["{} in noto style", "two {name} toys"])
    assert [p.instead for p in concept.prompts(ONE)["erase"]] == ["an animal in noto style", "two animal toys"]
    assert not any(p.instead for p in concept.prompts(ONE)["keep"])
    (tmp_path / "p.csv").write_text("prompt\nA FOX by night\nfoxes\na fox\n")
    written = concept_of(prompts_csv=str(tmp_path / "p.csv")).prompts(ONE)["erase"]
    assert [p.instead for p in written] == ["an animal by night", "", "an animal"]


# --- prompts from a file ----------------------------------------------------------------------------------------

I2P = "prompt,categories,hard,sd_seed,sd_guidance_scale\r\n"
LAYOUTS = {
    "I2P": I2P + '"a fox, red ","self-harm, shocking",1,4261553411,7\r\nthe second,hate,0,12,7.5\r\n',
    "ESD": ",case_number,prompt,evaluation_seed,artist\n0,0,\"a fox, red\",4261553411,Monet\n1,1,the second,12,Monet\n",
    "Ring-A-Bell": "prompt,case_number,evaluation_seed\n\"a fox, red\",0,4261553411\nthe second,1,12\n",
    "UnlearnDiffAtk": "Unnamed: 0,prompt,hard,evaluation_seed,evaluation_guidance,sd_seed,case_number\n"
    "21,\"a fox, red\",x,4261553411,7,5,21\n22,the second,x,12,7,6,22\n",
    "floats": "prompt,sd_seed\n\"a fox, red\",4261553411.0\nthe second,12.\n",
    "case": "Case_Number,Prompt,Evaluation_Seed\n0,\"a fox, red\",4261553411\n1,the second,12\n",
    "semicolons": "prompt;sd_seed\na fox, red;4261553411\nthe second;12\n",
    "tabs": "prompt\tsd_seed\na fox, red\t4261553411\nthe second\t12\n",
    "a mark": "\ufeffprompt,seed\n\"a fox, red\",4261553411\nthe second,12\n",
    "twice": "prompt,seed\n\"a fox, red\",4261553411\n\nthe second,12\n , \nthe second,12\n\"a fox, red\",4261553411\n",
    "old Mac": "prompt,seed\r\"a fox, red\",4261553411\rthe second,12\r",
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_files_of_the_field_are_read_with_their_seeds_each_prompt_once(layout: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(LAYOUTS[layout].encode())
    assert rows(str(tmp_path / "p.csv")) == [("a fox, red", 4261553411), ("the second", 12)]


def test_a_text_file_is_a_sentence_in_each_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\ufeffa fox, red\n\n  the second \r\na fox, red\n", encoding="utf-8")
    assert rows(str(tmp_path / "p.txt")) == [("a fox, red", 0), ("the second", 0)]
    (tmp_path / "p.txt").write_text(" \n")
    with pytest.raises(BadInput, match="holds no prompt"):
        rows(str(tmp_path / "p.txt"))
    (tmp_path / "p.txt").write_text("a\n" * (MOST + 1))
    with pytest.raises(BadInput, match="holds more than 200,000 prompts"):
        rows(str(tmp_path / "p.txt"))


def test_a_file_without_seeds_or_with_blank_ones_starts_at_0_and_overlapping_seeds_count_once(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,sd_seed\na,\na,1\nb {} {x},\n")
    prompts = concept_of(prompts_csv=str(tmp_path / "p.csv")).prompts(replace(ONE, erase=2))["erase"]
    assert [(p.text, p.seed) for p in prompts] == [("a", 0), ("a", 1), ("a", 2), ("b {} {x}", 0), ("b {} {x}", 1)]
    (tmp_path / "p.csv").write_text("prompt\na\n")
    assert rows(str(tmp_path / "p.csv")) == [("a", 0)]


BROKEN = {
    "an unclosed quote": (b'prompt,seed\na,1\n"b,2\nc,3\n', "row 3 cannot be read"),
    "a quote that closes early": (b'prompt,seed\n"a" b,1\n', "row 2 cannot be read"),
    "a huge field": (b"prompt\na\n" + b"x" * 140_000 + b"\n", "row 3 cannot be read (field larger than field limit"),
    "a huge header": (b"x" * 140_000 + b"\n", "row 1 cannot be read"),
    "a blank prompt": (b"prompt,seed\na,1\n ,2\n", "row 3 has no prompt"),
    "a bare comma": (b"prompt\na fox, red\n",
    "row 2 has 2 fields where the first line has 1: put a prompt that holds a ',' in quotes"),
    "a short row": (b"prompt,seed\na\n", "row 2 has 1 fields where the first line has 2"),
    "half a seed": (b"prompt,seed\na,1.5\n", "row 2 has the seed '1.5'"),
    "a negative seed": (b"prompt,seed\na,-1\n", "row 2 has the seed '-1'"),
    "no seed": (b"prompt,seed\na,nan\n", "row 2 has the seed 'nan'"),
    "a huge seed": (b"prompt,seed\na," + b"9" * 300 + b"\n", "it must be a whole number"),
    "no column": (b"text\na\n", "no column `prompt`"),
    "two columns": (b"prompt,Prompt\na,b\n", "two columns `prompt`"),
    "nothing": (b"", "no column `prompt`"),
    "no row": (b"prompt\n\n", "holds no prompt"),
    "another alphabet": ("prompt\nMüller\n".encode("latin-1"), "is not in UTF-8"),
    "two bytes a letter": ("prompt\nMüller\n".encode("utf-16"), "is not in UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_file_that_cannot_be_meant_is_refused_by_its_row(mistake: str, tmp_path: Path) -> None:
    content, words = BROKEN[mistake]
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(BadInput) as error:
        rows(str(tmp_path / "p.csv"))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_what_is_no_file_or_has_more_rows_than_anybody_draws_is_refused(tmp_path: Path) -> None:
    for place in (str(tmp_path), str(tmp_path / "none.csv"), "", "/dev/zero"):
        with pytest.raises(BadInput, match="is no file"):
            rows(place)
    (tmp_path / "p.csv").write_text("prompt,seed\n" + "".join(f"a,{i}\n" for i in range(MOST + 10)))
    with pytest.raises(BadInput, match="holds more than 200,000 prompts"):
        rows(str(tmp_path / "p.csv"))


FILES = [f.relative_to(Path(CONF) / "concept") for f in (Path(CONF) / "concept").rglob("*.yaml")]
CONCEPTS = sorted(str(f.with_suffix("")) for f in FILES if not f.stem.startswith("_"))


@pytest.mark.slow
def test_a_file_of_prompts_is_named_like_any_setting_for_every_concept(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt\na bird\n")
    setting = f"concept.prompts_csv={tmp_path / 'p.csv'}"
    for option in CONCEPTS:
        if "_and_" not in option:  # a set has one for each of its concepts: concept.several.fox.prompts_csv
            with hydra.initialize_config_dir(CONF, version_base="1.3"):
                cfg = hydra.compose("config", ["model=random", f"concept={option}", setting])
            assert {p.text for p in build(cfg.concept, "concept").prompts(ONE)["erase"]} == {"a bird"}, option


def test_a_run_on_a_file_draws_its_prompts(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,evaluation_seed\na fox at night,77\na fox at night,77\n")
    result = tiny(f"concept.prompts_csv={tmp_path / 'p.csv'}", "sample.erase=2", "metric=[erasure]")
    assert result["scores"]["erasure/hit"]["n"] == 2
    drawn = {f.name for f in (tmp_path / result["artifacts"]["samples"]).glob("a-fox-at-night*")}
    assert {name.rpartition("_")[2] for name in drawn} == {"077.png", "078.png"}


# --- concepts of one's own --------------------------------------------------------------------------------------


def test_the_example_of_the_docstring_and_one_that_inherits_read_well_from_a_folder_of_ones_own(tmp_path: Path) -> None:
    text = str(Concept.__doc__)
    example = text[text.index("        _target_") : text.index("    With `defaults")]
    (tmp_path / "concept/logo").mkdir(parents=True)
    (tmp_path / "concept/logo/acme.yaml").write_text("\n".join(line.strip() for line in example.splitlines()))
    inherits = "defaults: [emoji/_object@_here_, _self_]\nname: zebra\nphrase: a zebra\nsuperclass: an animal\n"
    (tmp_path / "concept/logo/zebra.yaml").write_text(inherits + "keep: {wolf: a wolf}\n")
    made = {}
    for name in ("acme", "zebra"):
        with hydra.initialize_config_dir(CONF, version_base="1.3"):
            own = [f"concept=logo/{name}", f"hydra.searchpath=[file://{tmp_path}]"]
            cfg = hydra.compose("config", [*TINY[:1], "model=random", *own])
        made[name] = build(cfg.concept, "concept").prompts(ONE)
    assert [p.text for p in made["acme"]["keep"]] == ["a globex logo", "a shirt with a globex logo"]
    assert "a zebra in noto style" in [p.text for p in made["zebra"]["erase"]]
