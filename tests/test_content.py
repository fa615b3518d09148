"""What must survive is measured: the rest of the picture, by both detectors, and whether there is a picture at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from PIL import Image
from test_metrics import Points, clouds, painted
from torch import Tensor

from advanchor.core import NOTHING
from advanchor.images import Images
from advanchor.metrics.anchor import AnchorHit
from advanchor.metrics.broken import Broken
from advanchor.metrics.content import Content
from advanchor.metrics.distance import Cmmd, Fid, Kid, PrecisionRecall
from advanchor.metrics.erasure import Erasure
from advanchor.prompts import Prompt, reseeded
from advanchor.report import table

OBJECTS, STYLES = ("fox", "wolf", "penguin", NOTHING), ("noto", "twemoji", NOTHING)


class Both:
    """Two detectors that read what to find from the pixels: the first object and style from red, the second's from
    green, as 10 x object + style.
    """

    name, judges, rejects = "both", ("red", "green"), True

    def labels(self, head: str) -> list[str]:
        return {"object": list(OBJECTS[:-1]), "style": list(STYLES[:-1])}.get(head, [])

    def find(self, images: list[Image.Image], heads: list[str], by: str = "") -> dict[str, list[str]]:
        read = [im.getpixel((0, 0))[self.judges.index(by or "red")] for im in images]
        every = {"object": [OBJECTS[one // 10] for one in read], "style": [STYLES[one % 10] for one in read]}
        return {head: every[head] for head in heads}


class Single(Both):
    """One detector of objects that knows no styles and no picture of nothing; similarity is the length of the text."""

    name, judges, rejects = "single", ("red",), False

    def labels(self, head: str) -> list[str]:
        return super().labels(head) if head == "object" else []

    def similarity(self, images: list[Image.Image], texts: list[str]) -> Tensor:
        return torch.tensor([len(text) / 100 for text in texts])


def drawn(root: Path, prompts: list[Prompt], each: list[tuple[str, str]]) -> Images:
    """Images in which the detectors find these, "fox noto" as one word of each."""

    def number(words: str) -> int:
        thing, style = words.split()
        return 10 * OBJECTS.index(thing) + STYLES.index(style)

    return painted(root, prompts, [(number(one), number(two), 0) for one, two in each])


def values(scores: Any) -> dict[str, Any]:
    return {name: round(score["value"], 4) for name, score in scores.items()}


FOXES = [
    Prompt("a fox in noto style", 0, "object", "fox"),
    Prompt("a fox in noto style", 1, "object", "fox"),
    Prompt("a fox in twemoji style", 0, "object", "fox"),
    Prompt("an emoji of a fox", 0, "object", "fox"),  # names nothing else
    Prompt("a noto fox in twemoji style", 0, "object", "fox"),  # which of the two it should show nobody can say
]
BEFORE = [("fox noto", "fox noto")] * 2 + [("fox twemoji", "fox twemoji"), *[("fox noto", "fox noto")] * 2]
AFTER = [
    ("wolf noto", "wolf noto"),
    ("wolf noto", "wolf twemoji"),
    ("nothing nothing", "wolf noto"),
    ("nothing nothing", "nothing nothing"),
    ("fox noto", "fox noto"),
]


def test_content_is_what_else_the_erased_prompts_name_and_counts_no_sentence_that_names_nothing_else(
    tmp_path: Path,
) -> None:
    images = {"erase": drawn(tmp_path / "a", FOXES, AFTER), "erase@base": drawn(tmp_path / "b", FOXES, BEFORE)}
    scores = Content(name="content")(Both(), images)  # type: ignore[arg-type]
    assert values(scores) == {
        "content/hit": 0.6667, "content/hit2": 0.3333, "content/agree": 0.6667,
        "content/hit@base": 1, "content/hit2@base": 1, "content/agree@base": 1,
    }  # fmt: skip
    assert scores["content/hit"]["values"] == [1, 1, 0]
    assert scores["content/hit"]["texts"] == [p.text for p in FOXES[:3]]
    assert {score["better"] for score in scores.values()} == {"higher"}


def test_content_of_a_style_is_the_object_that_its_sentences_name(tmp_path: Path) -> None:
    style = [Prompt("a twemoji emoji of a penguin", i, "style", "twemoji") for i in range(4)]
    after = drawn(tmp_path, style, [("penguin noto", "penguin noto")] * 3 + [("nothing nothing", "fox noto")])
    images = {"erase": after, "erase@base": after}
    assert Content(name="content")(Both(), images)["content/hit"]["values"] == [1, 1, 1, 0]  # type: ignore[arg-type]
    single = Content(name="content")(Single(), images)  # type: ignore[arg-type]
    assert values(single) == {
        "content/hit": 0.75,
        "content/hit@base": 0.75,
    }  # one detector has no second, nor agreement


def test_of_several_erased_concepts_none_is_content_and_nothing_named_is_no_score(tmp_path: Path) -> None:
    both = [
        Prompt("a fox in twemoji style", 0, "object", "fox"),
        Prompt("a twemoji emoji of a fox", 0, "style", "twemoji"),
    ]
    after = drawn(tmp_path, both, [("wolf noto", "wolf noto")] * 2)
    assert Content(name="content")(Both(), {"erase": after, "erase@base": after}) == {}  # type: ignore[arg-type]
    bare = drawn(tmp_path, [Prompt("fox", 0, "object", "fox")], [("wolf noto", "wolf noto")])
    assert Content(name="content")(Both(), {"erase": bare, "erase@base": bare}) == {}  # type: ignore[arg-type]


def test_where_no_head_can_find_the_rest_content_is_similarity_to_the_sentence_without_the_concept(
    tmp_path: Path,
) -> None:
    prompts = [
        Prompt("a fox in noto style", 0, "object", "fox", instead="an animal in noto style"),
        Prompt("from a file", 0, "object", "fox"),
    ]
    after = drawn(tmp_path, prompts, [("wolf noto", "wolf noto")] * 2)
    scores = Content(name="content")(Single(), {"erase": after, "erase@base": after})  # type: ignore[arg-type]
    length = pytest.approx(len("an animal in noto style"))
    assert values(scores) == {"content/clip": length, "content/clip@base": length}
    assert (scores["content/clip"]["n"], scores["content/clip"]["texts"]) == (1, ["an animal in noto style"])
    assert "content/clip" not in Content(name="content")(Both(), {"erase": after, "erase@base": after})  # type: ignore[arg-type]


def test_broken_is_the_share_of_images_that_are_nothing_to_a_judge_that_can_say_so(tmp_path: Path) -> None:
    after, before = drawn(tmp_path / "a", FOXES, AFTER), drawn(tmp_path / "b", FOXES, BEFORE)
    images = {"erase": after, "keep": before, "erase@base": before, "keep@base": before}
    scores = Broken(name="broken")(Both(), images)  # type: ignore[arg-type]
    assert values(scores) == {
        "broken/erase": 0.4, "broken/erase2": 0.2, "broken/keep": 0, "broken/keep2": 0,
        "broken/erase@base": 0, "broken/erase2@base": 0, "broken/keep@base": 0, "broken/keep2@base": 0,
    }  # fmt: skip
    assert {score["better"] for score in scores.values()} == {"lower"}
    assert Broken(name="broken")(Single(), images) == {}  # type: ignore[arg-type]


def test_hits_are_of_both_detectors_and_what_they_agree_on_and_neighbours_are_not_among_the_kept(
    tmp_path: Path,
) -> None:
    keep = [
        Prompt("a wolf", 0, "object", "wolf", "in"),
        Prompt("a noto penguin", 0, "style", "noto", "cross"),
    ]
    near = [Prompt("a wolf", i, "object", "wolf", "near") for i in (1, 2)]
    fine = [("wolf noto", "wolf noto"), ("penguin noto", "penguin twemoji")]
    images = {"erase": drawn(tmp_path / "a", FOXES, AFTER), "erase@base": drawn(tmp_path / "b", FOXES, BEFORE)}
    images |= {"keep": drawn(tmp_path / "a", keep, fine), "keep@base": drawn(tmp_path / "b", keep, fine)}
    lost = [("fox noto", "wolf noto"), ("fox noto", "fox noto")]
    images |= {"near": drawn(tmp_path / "a", near, lost), "near@base": drawn(tmp_path / "b", near, fine[:1] * 2)}
    found = values(Erasure(name="erasure")(Both(), images))  # type: ignore[arg-type]
    assert {name: value for name, value in found.items() if "@" not in name} == {
        "erasure/hit": 0.2, "erasure/hit2": 0.2, "erasure/agree": 1, "erasure/rate": 0.8,
        "keep/hit": 1, "keep/hit2": 0.5, "keep/agree": 0.5,
        "keep/hit_in": 1, "keep/hit2_in": 1, "keep/hit_cross": 1, "keep/hit2_cross": 0,
        "keep/hit_near": 0, "keep/hit2_near": 0.5,
    }  # fmt: skip
    assert (found["keep/hit_near@base"], found["keep/hit2_near@base"]) == (1, 1)


def test_what_the_anchor_draws_is_looked_at_for_concept_content_and_nothing(tmp_path: Path) -> None:
    scores = AnchorHit(name="anchor")(Both(), {"anchor": drawn(tmp_path, FOXES, AFTER)})  # type: ignore[arg-type]
    assert values(scores) == {
        "anchor/hit": 0.2, "anchor/hit2": 0.2, "anchor/agree": 1, "anchor/content": 0.6667, "anchor/content2": 0.3333,
        "anchor/broken": 0.4, "anchor/broken2": 0.2,
    }  # fmt: skip
    assert all(len(score["texts"]) == len(score["values"]) for score in scores.values())
    assert set(AnchorHit(name="anchor")(Single(), {"anchor": drawn(tmp_path, FOXES, AFTER)})) == {"anchor/hit"}  # type: ignore[arg-type]


def test_the_floor_is_the_distance_of_what_nothing_was_done_to(tmp_path: Path) -> None:
    before = [(10 * i, 0, 0) for i in range(8)]
    images = clouds(tmp_path, before, [(10 * i, 200, 0) for i in range(8)])
    images["keep@floor"] = clouds(tmp_path / "c", [(10 * i, 3, 0) for i in range(8)], before)["keep@base"]
    for metric in (Fid(name="fid"), Kid(name="kid"), Cmmd(name="cmmd")):
        found = values(metric(Points(), images))  # type: ignore[arg-type]
        assert found[f"{metric.name}/erase@floor"] == 0  # here the other seeds drew the same
        assert 0 < found[f"{metric.name}/keep@floor"] < found[f"{metric.name}/keep"]
    found = values(PrecisionRecall(name="p", neighbours=1)(Points(), images))  # type: ignore[arg-type]
    assert (found["precision/keep"], found["precision/keep@floor"]) == (0, 1)


def test_other_seeds_are_as_many_of_the_same_prompts_and_none_that_was_drawn() -> None:
    prompts = [Prompt("a", 3), Prompt("a", 4), Prompt("b", 10**18, "style", "b", "cross")]
    other = reseeded(prompts)
    assert [p.text for p in other] == ["a", "a", "b"]
    assert len({(p.text, p.seed) for p in [*prompts, *other]}) == 6
    assert (other[2].label, other[2].seed < 2**63) == ("b", True)


def test_images_of_other_seeds_are_drawn_only_for_a_metric_that_asks_for_them(tiny: Any, tmp_path: Path) -> None:
    assert "experiment=smoke" in TINY
    without = tiny("metric=[erasure,content,broken]")
    assert "draw@floor" not in without["stages"]
    shown = tmp_path / without["artifacts"]["samples@base"]
    drawn = len(list(shown.glob("*.png")))
    with_floor = tiny("metric=[fid]")
    scores = with_floor["scores"]
    asked = sum(scores[f"fid/{name}"]["n"] for name in ("erase", "keep"))
    assert len(list(shown.glob("*.png"))) == drawn + asked
    assert {scores[f"fid/{name}@floor"]["n"] for name in ("erase", "keep")} == {
        scores[f"fid/{name}"]["n"] for name in ("erase", "keep")
    }


def result_of(scores: Any, judge: str = "emoji", **more: Any) -> dict[str, Any]:
    metrics: dict[str, Any] = {name: {} for name in ("erasure", "content", "broken")}
    config = {"concept": {"name": "twemoji"}, "judge": {"name": judge}, "metric": metrics, "anchor": {"name": "empty"}}
    shown = {"grid": "grid.png", "tracker": "none", "changed": {"tensors": 1, "parameters": 2}, "unmeasured": ""}
    return {"scores": scores, "config": config, "diagnostics": {}, "stages": {}, **shown, **more}


def scored(**values: float) -> Any:
    return {
        name: {"value": value, "n": 100, "low": max(0, value - 0.05), "high": min(1, value + 0.05), "better": "lower"}
        for name, value in values.items()
    }


SMEAR = {
    f"{name}{by}{at}": value
    for name, before, after in (("erasure/hit", 0.97, 0.0), ("content/hit", 1.0, 0.01), ("broken/erase", 0.0, 0.93))
    for by in ("", "2")
    for at, value in (("", after), ("@base", before))
}


def test_the_closing_table_of_a_smear_says_so_before_all_else_and_shows_both_detectors_in_120_columns() -> None:
    fid = {"fid/keep": 0.94, "fid/keep@floor": 0.31, "anchor/content": 0.5, "anchor/content2": 0.4}
    shown = table(result_of(scored(**SMEAR, **fid))).splitlines()
    words = "93 % of the pictures asked for twemoji are no picture of anything"
    assert shown[0] == f"{words}: look at grid.png before calling this an erasure."
    rows = {line[:36].strip(" ↓↑"): line for line in shown}
    found = rows["twemoji: found"].split()
    assert found[-9:] == ["0.970", "/", "0.970", "0.000", "[0.000,", "0.050]", "0.000", "[0.000,", "0.050]"]
    assert "floor 0.31" in rows["kept: FID to before"]
    assert max(map(len, shown)) <= 120
    order = [next(i for i, line in enumerate(shown) if line.startswith(name)) for name in (
        "twemoji: found", "twemoji: rest", "twemoji: no picture", "kept: FID", "under the anchor: rest")]  # fmt: skip
    assert order == sorted(order)


def test_the_closing_table_of_pictures_begins_with_itself_and_says_what_a_judge_cannot_tell() -> None:
    fine = table(result_of(scored(**{**SMEAR, "broken/erase": 0.2, "broken/erase2": 0.1})))
    assert fine.splitlines()[0].lstrip().startswith("images")
    assert "note" not in fine
    one = table(result_of(scored(**{"erasure/hit": 0.5, "erasure/hit@base": 1.0}), judge="sd"))
    assert "judge=sd cannot tell that an image is no picture of anything: look at grid.png." in one
    assert "no sentence names anything else that judge=sd could find" in one
    assert "judge 2" not in one
