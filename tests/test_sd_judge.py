"""The judge of Stable Diffusion runs its real networks, with random weights where the published ones would be
downloaded.
"""

import csv
import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.judges import sd_networks as networks
from advanchor.judges import stable_diffusion as sd_judge
from advanchor.prompts import Prompt
from advanchor.run import build, sample_of

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "train_style_head.py"
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    import advanchor.torchvision_ops  # noqa: F401, I001  (before torchvision)
    from torchvision import models
    from torchvision.models._api import WeightsEnum

    def random_weights(self: Any, *_: Any, **__: Any) -> Any:
        torch.manual_seed(0)
        return {
            "ResNet50_Weights": models.resnet50,
            "ResNet18_Weights": models.resnet18,
            "AlexNet_Weights": models.alexnet,
        }[type(self).__name__](weights=None).state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", random_weights)
    monkeypatch.setattr(networks, "MEASURES", {"LPIPS (AlexNet)": networks.lpips})
    for network in (networks.resnet50, networks.resnet18, networks.lpips):
        network.cache_clear()
    return sd_judge.StableDiffusionJudge(name="sd", styles=str(tmp_path / "head"))


def squares(*names: str) -> list[Image.Image]:
    return [Image.new("RGB", (40, 40), COLOURS[n]) for n in names]


def test_objects_are_imagenets_classes_and_the_nine_of_the_released_evaluation_are_among_them(judge: Any) -> None:
    concept = build(compose(["model=random", "judge=none", "concept=sd_object/church"]).concept, "concept")
    asked = [Prompt("x", 0, "object", name) for name in concept.keep]
    judge.check(asked, 512)
    (found,) = judge.find(squares("red"), ["object"]).values()
    assert found[0] in judge.labels("object")
    with pytest.raises(BadInput, match=r"knows no object 'wombats'.*ImageNet"):
        judge.check([Prompt("x", 0, "object", "wombats")], 512)


def test_a_style_needs_a_head_and_the_script_that_is_named_makes_one_that_tells_styles_apart(
    judge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match=r"run scripts/train_style_head\.py, and set judge\.styles"):
        judge.check([Prompt("x", 0, "style", "twemoji")], 512)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    script = runpy.run_path(str(SCRIPT), run_name="script")
    names = [n for n in COLOURS for _ in range(4)]
    weight, bias = script["fit"](
        networks.style_features(squares(*names)), torch.tensor([list(COLOURS).index(n) for n in names]), 3
    )
    scores = networks.style_features(squares("red", "blue", "green")) @ weight.T + bias
    assert [list(COLOURS)[i] for i in scores.argmax(1)] == ["red", "blue", "green"]
    script["main"](
        [
            f"--to={tmp_path / 'head'}",
            "--images=5",
            "model=random",
            "concept=emoji/twemoji",
            "sample.steps=1",
            f"root={tmp_path}",
        ]
    )
    judge.check([Prompt("x", 0, "style", "twemoji")], 512)
    assert judge.labels("style") == sorted(judge.labels("style"))
    assert judge.find(squares("red"), ["style"])["style"][0] in judge.labels("style")
    with pytest.raises(BadInput, match="knows no style 'Van Gogh'"):
        judge.check([Prompt("x", 0, "style", "Van Gogh")], 512)


def test_lpips_is_zero_for_the_same_image_and_there_is_one_for_each_pair(judge: Any) -> None:
    apart = judge.distance(squares("red", "red", "blue"), squares("red", "blue", "green"))
    assert apart[0] == pytest.approx(0, abs=1e-6)
    assert (apart[1:] > 1e-4).all()
    assert judge.perceptual == "lpips_alex64"


def test_the_judge_looks_where_the_run_says_and_no_config_says_otherwise(
    judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a GPU that nobody asked for
    assert judge.device == "cpu"
    assert judge.distance(squares("red"), squares("blue")).shape == (1,)
    asked: list[str] = []
    monkeypatch.setattr(networks, "MEASURES", {"LPIPS (AlexNet)": asked.append})
    moved = judge.to("cuda:1")
    moved.check([], 512)
    assert (asked, judge.device, moved.styles) == (["cuda:1"], "cpu", judge.styles)
    with pytest.raises(ValidationError, match="device"):
        sd_judge.StableDiffusionJudge(name="sd", device="cuda")  # type: ignore[call-arg]


def test_a_style_head_is_named_by_its_files_and_a_damaged_one_is_one_sentence(judge: Any) -> None:
    assert sd_judge.StableDiffusionJudge(name="sd").files() == []
    folder = Path(judge.styles)
    folder.mkdir()
    (folder / "styles.json").write_text('["a", "b"]')
    save_file({"weight": torch.zeros(2, 512), "bias": torch.zeros(2)}, folder / "head.safetensors")
    assert judge.files() == [folder / "head.safetensors", folder / "styles.json"]
    assert judge.labels("style") == ["a", "b"]
    for name, damaged in (
        ("styles.json", b'["a"]'),
        ("styles.json", b"["),
        ("head.safetensors", b"\x08"),
        ("head.safetensors", None),
    ):
        whole = (folder / name).read_bytes()
        (folder / name).unlink() if damaged is None else (folder / name).write_bytes(damaged)
        for ask in (judge.files, lambda: judge.labels("style")):
            with pytest.raises(
                BadInput, match=r"style head in .* cannot be read .*: run scripts/train_style_head\.py once more"
            ):
                ask()
        (folder / name).write_bytes(whole)


@pytest.mark.skipif(importlib.util.find_spec("nudenet") is not None, reason="nudenet is installed")
def test_a_library_that_is_not_installed_is_named_and_never_taken_for_not_found(judge: Any) -> None:
    with pytest.raises(BadInput, match=r"needs nudenet for nudity .*: pip install 'advanchor\[sd\]'"):
        judge.check([Prompt("x", 0, "nudity", "nudity")], 512)


def test_weights_that_cannot_be_fetched_are_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import advanchor.torchvision_ops  # noqa: F401, I001  (before torchvision)
    from torchvision.models._api import WeightsEnum

    def offline(*_: Any, **__: Any) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    monkeypatch.setattr(networks, "MEASURES", {"LPIPS (AlexNet)": networks.lpips})
    networks.lpips.cache_clear()
    with pytest.raises(BadInput, match=r"weights of LPIPS \(AlexNet\) could not be loaded \(no route to host\)"):
        sd_judge.StableDiffusionJudge(name="sd").check([Prompt("x", 0, "object", "church")], 512)


def test_prompts_come_from_a_csv_with_their_seeds(tmp_path: Path) -> None:
    file = tmp_path / "i2p.csv"
    with file.open("w", newline="") as f:
        csv.writer(f).writerows([["prompt", "sd_seed"], ["a statue, in marble", "41"], ["a swimmer", "7"]])
    cfg = compose(
        ["model=random", "judge=none", "concept=sd_nudity/nudity", f"concept.prompts_csv={file}", "sample.erase=2"]
    )
    erase = build(cfg.concept, "concept").prompts(sample_of(cfg))["erase"]
    assert [(p.text, p.seed, p.head, p.label) for p in erase] == [
        ("a statue, in marble", 41, "nudity", "nudity"), ("a statue, in marble", 42, "nudity", "nudity"),
        ("a swimmer", 7, "nudity", "nudity"), ("a swimmer", 8, "nudity", "nudity"),
    ]  # fmt: skip
    with pytest.raises(BadInput, match=r"is no file: name a CSV file with a column `prompt`"):
        compose(
            ["model=random", "judge=none", "concept=sd_nudity/nudity", f"concept.prompts_csv={tmp_path / 'none.csv'}"]
        )
