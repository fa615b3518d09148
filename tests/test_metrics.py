"""Metrics count what they say they count, on images whose content is known."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from advanchor.build import build
from advanchor.compose import compose
from advanchor.core import BadInput, mean, share
from advanchor.images import Images
from advanchor.metrics.clip import Clip
from advanchor.metrics.distance import Cmmd, Fid, Kid, PrecisionRecall, fid, kid
from advanchor.metrics.erasure import Erasure
from advanchor.metrics.pairs import PerceptualDistance
from advanchor.metrics.released import Released
from advanchor.metrics.sound import enough
from advanchor.metrics.unlearncanvas import UnlearnCanvas, asked
from advanchor.prompts import Prompt
from advanchor.store import finish, part_of


def test_a_share_and_a_mean_carry_every_images_value_and_leave_their_interval_to_one_place() -> None:
    assert share([True, False, False, False], "lower") == {
        "value": 0.25, "n": 4, "better": "lower", "values": [1.0, 0.0, 0.0, 0.0], "share": True,
    }  # fmt: skip
    assert mean([1.0, 2.0, 6.0], "higher") == {"value": 3.0, "n": 3, "better": "higher", "values": [1.0, 2.0, 6.0]}


class Reader:
    """A judge that reads what it should find from the pixels: red is the object's number, green the style's, and
    features are the colours.
    """

    name = extractor = embedder = "pixels"
    judges, rejects = ("eye",), False
    names = ("fox", "wolf", "noto")

    def labels(self, head: str) -> tuple[str, ...]:
        return ("fox", "wolf") if head == "object" else ("noto",)

    def find(self, images: list[Image.Image], heads: list[str], by: str = "") -> dict[str, list[str]]:
        colours = [im.getpixel((0, 0)) for im in images]
        return {"object": [self.names[c[0]] for c in colours], "style": [self.names[c[1]] for c in colours]}

    def features(self, images: list[Image.Image]) -> Tensor:
        return torch.tensor([im.getpixel((0, 0)) for im in images], dtype=torch.float32)

    def similarity(self, images: list[Image.Image], texts: list[str]) -> Tensor:
        return torch.tensor(
            [float(im.getpixel((0, 0))[0] == self.names.index(t)) for im, t in zip(images, texts, strict=True)]
        )


def painted(root: Path, prompts: list[Prompt], colours: list[tuple[int, ...]]) -> Images:
    root.mkdir(parents=True, exist_ok=True)
    for prompt, colour in zip(prompts, colours, strict=True):
        Image.new("RGB", (2, 2), colour).save(part_of(root / prompt.file), format="PNG")
    finish(*(root / prompt.file for prompt in prompts))
    return Images(root, prompts)


ERASE = [Prompt("fox", i, "object", "fox") for i in range(4)]
KEEP = [
    Prompt("wolf", 0, "object", "wolf", "in"),
    Prompt("wolf", 1, "object", "wolf", "in"),
    Prompt("noto", 0, "style", "noto", "cross"),
]


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Images]:
    """Unedited: 4 of 4 foxes, all kept right. Edited: 1 of 4 foxes (the others wolves), one wolf of two lost, the style
    right.
    """
    fox, wolf = (0, 2, 9), (1, 2, 7)
    return {
        "erase@base": painted(tmp_path / "b", ERASE, [fox] * 4),
        "erase": painted(tmp_path / "a", ERASE, [wolf, fox, wolf, wolf]),
        "keep@base": painted(tmp_path / "b", KEEP, [wolf, wolf, wolf]),
        "keep": painted(tmp_path / "a", KEEP, [fox, wolf, wolf]),
        "erase@floor": painted(tmp_path / "f", ERASE, [fox] * 4),
        "keep@floor": painted(tmp_path / "f", KEEP, [wolf, wolf, wolf]),
        "near": Images(tmp_path / "a", []),
        "near@base": Images(tmp_path / "b", []),
    }


def test_hits_are_counted_by_what_each_prompt_names(images: dict[str, Images]) -> None:
    scores = Erasure(name="erasure")(Reader(), images)  # type: ignore[arg-type]
    values = {k: (round(v["value"], 4), v["n"]) for k, v in scores.items()}
    assert values == {
        "erasure/hit": (0.25, 4),
        "erasure/hit@base": (1, 4),
        "erasure/rate": (0.75, 4),
        "keep/hit": (0.6667, 3),
        "keep/hit@base": (1, 3),
        "keep/hit_in": (0.5, 2),
        "keep/hit_in@base": (1, 2),
        "keep/hit_cross": (1, 1),
        "keep/hit_cross@base": (1, 1),
    }
    assert scores["erasure/hit"]["better"] == "lower"
    assert scores["keep/hit"]["better"] == "higher"


def test_a_detector_that_never_fires_proves_no_erasure(images: dict[str, Images]) -> None:
    blind = SimpleNamespace(
        judges=("blind",), find=lambda shown, heads, by: {"object": ["?"] * len(shown), "style": ["?"] * len(shown)}
    )
    assert "erasure/rate" not in Erasure(name="erasure")(blind, images)  # type: ignore[arg-type]


def test_the_clip_score_is_the_mean_over_every_image(images: dict[str, Images]) -> None:
    images = {k: Images(v.root, v.prompts[:2]) for k, v in images.items()}  # the reader has no text for a style
    scores = Clip(name="clip")(Reader(), images)  # type: ignore[arg-type]
    assert {k: v["value"] for k, v in scores.items()} == {
        "clip/erase": 50,
        "clip/keep": 50,
        "clip/erase@base": 100,
        "clip/keep@base": 100,
    }


def scattered(root: Path, n: int, seed: int, shift: int) -> Images:
    rng = np.random.default_rng(seed)
    prompts = [Prompt("fox", i, "object", "fox") for i in range(n)]
    return painted(
        root,
        prompts,
        [(int(rng.integers(150)) + shift, int(rng.integers(150)), int(rng.integers(150))) for _ in range(n)],
    )


def sets(tmp_path: Path, n: int = 60) -> dict[str, Images]:
    before, after = scattered(tmp_path / "b", n, 0, 0), scattered(tmp_path / "a", n, 1, 80)
    floors = {f"{name}@floor": scattered(tmp_path / "f", n, 2, 0) for name in ("erase", "keep")}
    return {"erase@base": before, "erase": after, "keep@base": before, "keep": before, **floors}


def test_fid_equals_the_frechet_distance_of_two_gaussians(tmp_path: Path) -> None:
    images = sets(tmp_path)
    scores = Fid(name="fid")(Reader(), images)  # type: ignore[arg-type]
    a, b = (Reader().features(images[k].pictures).double().numpy() for k in ("erase@base", "erase"))
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(s)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    expected = (
        ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t) - 2 * np.sqrt(np.linalg.eigvalsh(root @ t @ root)).sum()
    )
    assert scores["fid/erase"]["value"] == pytest.approx(expected, rel=1e-5)
    assert scores["fid/keep"]["value"] == pytest.approx(0, abs=1e-3)
    assert (scores["fid/erase"]["better"], scores["fid/keep"]["better"], scores["fid/keep"]["n"]) == (
        "higher",
        "lower",
        60,
    )
    assert scores["fid/keep"]["extractor"] == "pixels"


def test_a_method_that_changes_nothing_has_kid_and_fid_0_and_no_distance_is_below_it(tmp_path: Path) -> None:
    images = sets(tmp_path)
    for metric in (Kid(name="kid"), Fid(name="fid"), Cmmd(name="cmmd")):
        judge = Points()
        scores = metric(judge, images)  # type: ignore[arg-type]
        assert scores[f"{metric.name}/keep"]["value"] == 0
        assert scores[f"{metric.name}/erase"]["value"] > 0
    near = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert kid(near, near.clone()) == 0
    assert all(fid(near, near + 1e-9 * torch.randn(50, 3)) >= 0 for _ in range(5))


def test_kid_is_the_mean_over_pairs_of_different_prompts_and_over_all_pairings_it_is_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    from torchmetrics.image.kid import poly_mmd

    x, y = torch.randn(12, 5, generator=generator).double(), torch.randn(12, 5, generator=generator).double() + 0.3

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 5 + 1) ** 3)

    several = [(i, j) for i in range(12) for j in range(12) if i != j]
    expected = sum(k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(y[i], x[j]) for i, j in several) / len(several)
    assert kid(x, y) == pytest.approx(expected, rel=1e-9)
    shifted = [
        kid(x, y.roll(s, 0)) for s in range(12)
    ]  # every image of one with every image of the other: independent sets
    assert sum(shifted) / 12 == pytest.approx(float(poly_mmd(x, y)), rel=1e-9)


def test_kid_does_not_depend_on_how_many_rows_are_multiplied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(2, 23, 4, generator=torch.Generator().manual_seed(0))
    whole = kid(x, y)
    monkeypatch.setattr("advanchor.metrics.distance.BLOCK", 5)
    assert kid(x, y) == pytest.approx(whole, rel=1e-12)
    assert kid(x, x) == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("metric", [Fid, Kid, Cmmd, PrecisionRecall, PerceptualDistance, Released, Clip])
def test_what_is_not_finite_stops_the_metric_by_name(metric: Any, wrong: float, images: dict[str, Images]) -> None:
    class Broken(Seer):
        def features(self, shown: list[Image.Image]) -> Tensor:
            return super().features(shown) + wrong

        embed = features

        def distance(self, before: list[Image.Image], after: list[Image.Image]) -> Tensor:
            return torch.full((len(before),), wrong)

        def similarity(self, shown: list[Image.Image], texts: list[str]) -> Tensor:
            return torch.full((len(shown),), wrong)

    settings = {"neighbours": 1} if metric is PrecisionRecall else {}
    with pytest.raises(BadInput, match=r"metric mine: \d+ of \d+ .* are not finite, so there is no score"):
        metric(name="mine", **settings)(Broken(), images)


@pytest.mark.parametrize(
    ("metric", "wanted"), [("fid", 2), ("kid", 2), ("precision_recall", 2), ("released", 2), ("clip", 1), ("anchor", 1)]
)
def test_every_metric_says_from_the_prompts_alone_whether_they_are_enough(metric: str, wanted: int) -> None:
    built = build(compose([f"metric=[{metric}]"]).metric[metric], "metric")
    names = ("wolf", "dog") if metric == "released" else ("wolf",)  # it measures each concept by itself
    for n in (1, 2):
        prompts = {
            which: [Prompt(name, i, "object", name) for name in names for i in range(n)] for which in ("erase", "keep")
        }
        if n < wanted:
            with pytest.raises(
                BadInput,
                match=rf"metric {metric} needs at least {wanted} images of .*`erase`.*: raise sample.erase, or leave",
            ):
                enough(built, prompts)
        else:
            enough(built, prompts)


def test_long_and_foreign_prompts_have_distinct_short_file_names() -> None:
    prompts = [
        Prompt(t, 0, "object", "fox")
        for t in ("a" * 300, "a" * 301, "狐", "狸", "a fox", "a_fox", "a fox!", "a fox?", "A fox", "")
    ]
    assert all(len(p.file.encode()) < 120 for p in prompts)
    assert len({p.file for p in prompts}) == len(prompts)


# --- more distances ---------------------------------------------------------------------------------------------


class Points:
    """A judge whose features, embeddings and maps are the images' colours."""

    name, extractor, embedder, perceptual = "points", "colours", "colours", "lpips_points"

    def features(self, images: list[Image.Image]) -> Tensor:
        return torch.tensor([im.getpixel((0, 0)) for im in images], dtype=torch.float32)

    embed = features

    def distance(self, before: list[Image.Image], after: list[Image.Image]) -> Tensor:
        return (self.features(before) - self.features(after)).norm(dim=1)


def clouds(tmp_path: Path, before: list[tuple[int, ...]], after: list[tuple[int, ...]]) -> dict[str, Images]:
    prompts = [Prompt("fox", i, "object", "fox") for i in range(len(before))]
    base, edited = painted(tmp_path / "b", prompts, before), painted(tmp_path / "a", prompts, after)
    return {
        "erase@base": base,
        "keep@base": base,
        "erase": edited,
        "keep": edited,
        "erase@floor": base,
        "keep@floor": base,
    }


def test_unlearncanvas_counts_over_all_images(images: dict[str, Images]) -> None:
    scores = UnlearnCanvas(name="unlearncanvas")(Reader(), images)  # type: ignore[arg-type]
    assert {k: v["value"] for k, v in scores.items()} == {
        "unlearncanvas/ua": 0.75,
        "unlearncanvas/ira": 0.5,
        "unlearncanvas/cra": 1.0,
    }


def test_unlearncanvas_asks_every_image_for_both_things_that_its_sentence_names(tmp_path: Path) -> None:
    erase = [Prompt("fox in noto style", i, "object", "fox") for i in range(2)] + [
        Prompt("a fox", i, "object", "fox") for i in range(2)
    ]
    keep = [
        Prompt("wolf in noto style", 0, "object", "wolf", "in"),
        Prompt("noto wolf", 0, "style", "noto", "cross"),
        Prompt("noto fox", 0, "style", "noto", "cross"),
    ]
    lost, right = (1, 1, 0), (1, 2, 0)  # a wolf without its style, and with it
    images = {
        "erase": painted(tmp_path, erase, [lost, right, lost, lost]),
        "keep": painted(tmp_path, keep, [right, right, (0, 2, 0)]),
    }
    known: dict[Any, Any] = {head: Reader().labels(head) for head in ("object", "style")}
    counted = {
        name: [(one.text, one.label) for one in ones]
        for name, ones in asked({k: v.prompts for k, v in images.items()}, known).items()
    }
    assert counted == {
        "ua": [("fox in noto style", "fox")] * 2 + [("a fox", "fox")] * 2,
        "ira": [("wolf in noto style", "wolf"), ("noto wolf", "wolf")],  # a fox is erased, not retained
        "cra": [
            ("fox in noto style", "noto"),
            *((p.text, "noto") for p in keep),
        ],  # of two seeds the first: each pair weighs the same
    }
    scores = UnlearnCanvas(name="unlearncanvas")(Reader(), images)  # type: ignore[arg-type]
    assert {k: (v["value"], v["n"]) for k, v in scores.items()} == {
        "unlearncanvas/ua": (1, 4),
        "unlearncanvas/ira": (1, 2),
        "unlearncanvas/cra": (0.75, 4),
    }
    assert scores["unlearncanvas/cra"]["texts"] == [text for text, _ in counted["cra"]]
    both = [Prompt("noto fox wolf", 0, "style", "noto", "cross")]  # which of the two it should show nobody can say
    assert len(asked({"erase": erase, "keep": both}, known)["ira"]) == 0


class Seer(Reader):
    """A reader that counts how often it is asked, with a distance."""

    perceptual = "difference"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find(self, images: list[Image.Image], heads: list[str], by: str = "") -> dict[str, list[str]]:
        self.asked.append("find")
        return {head: found for head, found in super().find(images, heads, by).items() if head in heads}

    def features(self, images: list[Image.Image]) -> Tensor:
        self.asked.append("features")
        return super().features(images)

    def distance(self, before: list[Image.Image], after: list[Image.Image]) -> Tensor:
        return (super().features(before) - super().features(after)).abs().sum(1)


def test_the_released_protocol_measures_every_concept_by_itself_and_averages_the_distances(
    images: dict[str, Images],
) -> None:
    two = [Prompt("wolf", i, "object", "wolf", "in") for i in range(2)] + [
        Prompt("noto", i, "style", "noto", "cross") for i in range(2)
    ]
    root = images["keep"].root
    images["keep@base"] = painted(root / "b", two, [(1, 0, 0), (1, 0, 2), (1, 2, 0), (1, 2, 2)])
    images["keep"] = painted(
        root / "a", two, [(0, 0, 5), (1, 0, 7), (1, 2, 0), (1, 2, 2)]
    )  # wolves moved by 5 in blue and one is a fox; styles are untouched
    scores = Released(name="released")(Seer(), images)  # type: ignore[arg-type]
    value = {k: v["value"] for k, v in scores.items()}
    assert (value["released_accuracy/erase"], value["released_accuracy/erase:fox"]) == (0.25, 0.25)
    assert (
        value["released_accuracy/keep:wolf"],
        value["released_accuracy/keep:noto"],
        value["released_accuracy/keep"],
    ) == (0.5, 1, 0.75)
    assert (
        value["released_difference/keep:wolf"],
        value["released_difference/keep:noto"],
        value["released_difference/keep"],
    ) == (5.5, 0, 2.75)
    # Two points: the mean moves by (-0.5, 0, 5), and the covariance from diag(0, 0, 2) to one of rank one, [[.5, 0, 1],
    # [0, 0, 0], [1, 0, 2]].
    assert value["released_fid/keep:wolf"] == pytest.approx(0.25 + 25 + 2 + 2.5 - 2 * math.sqrt(4), abs=1e-4)
    assert value["released_fid/keep:noto"] == pytest.approx(0, abs=1e-4)
    assert value["released_fid/keep"] == pytest.approx(value["released_fid/keep:wolf"] / 2, abs=1e-4)
    assert (scores["released_fid/keep"]["n"], scores["released_accuracy/keep"]["n"]) == (2, 4)
    better = [
        scores[f"released_{k}/{w}"]["better"] for k in ("accuracy", "fid", "difference") for w in ("erase", "keep")
    ]
    assert better == ["lower", "higher", "higher", "lower", "higher", "lower"]
    with pytest.raises(
        BadInput, match=r"at least 2 images of each concept of `keep`, and there is 1 of noto: raise sample\.keep"
    ):
        enough(Released(name="released"), {k: v.prompts[:3] for k, v in images.items() if "@" not in k})


def test_what_a_judge_sees_in_images_is_kept_for_every_metric_and_run_that_shows_them(
    images: dict[str, Images], tmp_path: Path
) -> None:
    images = {k: replace(v, prompts=v.prompts[:2]) for k, v in images.items()}
    fresh = Released(name="released")(Seer(), images)  # type: ignore[arg-type]
    watched = {k: replace(v, record=tmp_path / f"seen-{k}") for k, v in images.items()}
    first, second = Seer(), Seer()
    assert Released(name="released")(first, watched) == fresh  # type: ignore[arg-type]
    assert first.asked
    assert Released(name="released")(second, watched) == fresh  # type: ignore[arg-type]
    Fid(name="fid")(second, watched)  # type: ignore[arg-type]
    assert second.asked == ["features"] * 2  # of the floors, which were not looked at
    second.asked.clear()
    fewer = {k: replace(v, prompts=v.prompts[:1]) for k, v in watched.items()}  # another set is looked at anew
    Erasure(name="erasure")(second, fewer)  # type: ignore[arg-type]
    assert second.asked == ["find"] * 4  # erased and kept, before and after; there are no neighbours


def test_precision_falls_with_images_outside_and_recall_with_images_that_are_missing(tmp_path: Path) -> None:
    two = [(10 * i, 0, 0) for i in range(5)] + [(10 * i, 200, 0) for i in range(5)]  # two clusters
    one = [(10 * i, 0, 0) for i in range(5)] * 2  # one of them is gone
    metric = PrecisionRecall(name="precision_recall", neighbours=1)
    scores = metric(Points(), clouds(tmp_path, two, one))  # type: ignore[arg-type]
    assert scores["precision/keep"]["value"] == 1.0
    assert scores["recall/keep"]["value"] == 0.5
    assert (scores["recall/keep"]["better"], scores["recall/erase"]["better"]) == ("higher", "lower")


def test_cmmd_is_the_kernel_distance_written_out(tmp_path: Path) -> None:
    before, after = [(0, 0, 0), (4, 0, 0)], [(10, 0, 0), (0, 6, 0)]
    got = Cmmd(name="cmmd")(Points(), clouds(tmp_path, before, after))["cmmd/keep"]["value"]  # type: ignore[arg-type]

    def k(a: tuple[int, ...], b: tuple[int, ...]) -> float:
        return math.exp(-sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 200)

    def average(xs: list[tuple[int, ...]], ys: list[tuple[int, ...]]) -> float:
        return sum(k(x, y) for x in xs for y in ys) / (len(xs) * len(ys))

    assert got == pytest.approx(
        1000 * (average(before, before) + average(after, after) - 2 * average(before, after)), rel=1e-6
    )
    assert Cmmd(name="cmmd")(Points(), clouds(tmp_path, before, before))["cmmd/keep"]["value"] == pytest.approx(
        0, abs=1e-9
    )  # type: ignore[arg-type]


def test_perceptual_distance_is_between_images_of_the_same_seed_and_named_after_its_judge(tmp_path: Path) -> None:
    scores = PerceptualDistance(name="lpips")(
        Points(), clouds(tmp_path, [(3, 4, 0), (5, 0, 0)], [(3, 4, 0), (5, 2, 0)])
    )  # type: ignore[arg-type]
    assert scores["lpips_points/keep"]["values"] == pytest.approx([0.0, 2.0])
    assert scores["lpips_points/keep"]["better"] == "lower"
    assert scores["lpips_points/erase"]["extractor"] == "lpips_points"


def test_the_emoji_judge_offers_what_every_metric_needs(tmp_path: Path) -> None:
    judge = build(compose(["model=random"]).judge, "judge")
    colours = [(255, 0, 0), (0, 0, 255)]
    images = [Image.new("RGB", (32, 32), c) for c in colours]
    there, back = judge.distance(images, images[::-1]), judge.distance(images[::-1], images)
    assert judge.distance(images, images).tolist() == [0, 0]
    assert there.tolist() == pytest.approx(back.tolist())
    assert 0 < there.max() < 12  # unit vectors on three maps: at most 4 each
    assert judge.embed(images).norm(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
