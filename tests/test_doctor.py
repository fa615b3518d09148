"""The doctor says what is here, what is missing and what a run would take, and does nothing itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from advanchor import hub
from advanchor.build import build
from advanchor.commands.doctor import gigabytes, main
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.models.architectures import ARCHITECTURES
from advanchor.models.sketch import ABSENT, Cost, needs, published, sketched

SMALL = ["experiment=smoke", "tracker=none"]


def lines(*words: str) -> dict[str, str]:
    """What it says, by the word before it."""
    found: dict[str, str] = {}
    last = ""
    for line in main(words).splitlines():
        name, _, text = line.partition(" ")
        last = name or last
        found[last] = f"{found.get(last, '')} {text.strip()}".strip()
    return found


def test_it_says_what_is_here_and_what_a_run_would_do_and_writes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    said = lines(f"root={root}", "method=esd")
    assert f"torch {torch.__version__}" in said["versions"]
    assert "10 files, 16.4 MB" in said["model"]
    assert "erase (esd towards similarity), draw 630 images" in said["run"]
    assert "about 0.6 GB in float32" in said["needs"]
    assert not root.exists()
    assert "no training" in lines(f"root={root}", "method=none", "anchor=concept")["needs"]


def test_attacks_are_named_and_counted_and_factors_bounded(tmp_path: Path) -> None:
    said = lines(f"root={tmp_path}", "attack=[relearn,unlearn_diff]", "attack.relearn.doses=[0,10,20]")
    assert "attack by relearn, unlearn_diff" in said["run"]
    model = build(compose([]).model, "model").open("cpu")
    size = 3 * 4 * sum(p.numel() for p in model.network.parameters())
    assert f"at most {gigabytes(size)} more while the weights are attacked (relearn)" in said["needs"]
    assert "a training step at most" in lines(f"root={tmp_path}", "method=spm")["needs"]
    assert "attacked" not in lines(f"root={tmp_path}")["needs"]


def test_a_file_of_the_second_release_is_counted_as_what_it_is() -> None:
    second = ARCHITECTURES["Stable Diffusion 2.x"]
    for predicts, side in (("v_prediction", 96), ("epsilon", 64)):
        model = published(second, "m", predicts)
        assert model.network.config.cross_attention_dim == 1024
        assert model.shape == (4, side, side)


def test_a_run_that_is_there_is_complete(tiny: Callable[..., Any], tmp_path: Path) -> None:
    from conftest import TINY

    assert "erase (ac towards similarity)" in lines(*TINY, f"root={tmp_path}")["run"]
    tiny()
    assert "is complete: nothing to compute" in lines(*TINY, f"root={tmp_path}")["run"]
    assert "its edit is there" in lines(*TINY, f"root={tmp_path}", "sample.steps=3")["run"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["model=sd14", "concept=style/van_gogh"], "add model.path="),
        (["method.lr=-1"], "method.lr=-1 will not do"),
        (["device=cuda:7"], "device=cuda:7 is not available here"),
        (["method=load", "anchor=published", "method.edit=/no/such.pt"], "is not there"),
    ],
)
def test_what_a_run_would_be_refused_for_is_said(words: list[str], why: str, tmp_path: Path) -> None:
    said = lines(f"root={tmp_path}", *words)
    assert said["run"].startswith("would not start: ")
    assert why in said["run"]


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "fetch", lambda *a: pytest.fail("fetched"))
    said = lines("model=sdxl", "model.path=some/where@abc", "concept=style/van_gogh", f"root={tmp_path}")
    assert "not whole in its cache" in said["model"]
    assert said["run"] == "would fetch the model first"


def test_it_looks_at_one_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="this is a sweep of 2"):
        main(["seed=1,2"])


# --- counting ---------------------------------------------------------------------------------------------------------


def test_bytes_and_operations_of_a_layer_are_those_of_its_shapes() -> None:
    layer = torch.nn.Linear(30, 50, bias=False, device=ABSENT)
    with Cost() as cost:
        x = torch.zeros(7, 30, device=ABSENT)
        out = layer(x)
        assert cost.live == 4 * 7 * (30 + 50)
        del x
        assert cost.flops == 2 * 7 * 30 * 50
        out.sum().backward()
        most = cost.most
    assert cost.flops == 2 * 2 * 7 * 30 * 50  # its input asks for no gradient
    assert most >= 4 * (7 * (30 + 50) + 30 * 50)
    del out
    assert cost.live <= 4 * 30 * 50 + 8  # the gradient


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "sd35", "flux", "schnell"])
def test_a_model_of_every_family_is_counted_from_its_configs_alone(kind: str, tmp_path: Path) -> None:
    model = build(compose(["model=random", f"model.family={kind}"]).model, "model").open("cpu")
    model.pipe.save_pretrained(tmp_path)
    for weights in tmp_path.rglob("*.safetensors"):
        weights.unlink()
    distilled = 3.5 if kind == "flux" else None
    found = needs(sketched(tmp_path, kind, distilled), "attn2", 2, 4, 5, 3.0)
    assert found.parts["denoiser"] == sum(p.numel() for p in model.network.parameters())
    assert found.parts["vae"] == sum(p.numel() for p in model.pipe.vae.parameters())
    assert found.weights() == 4 * sum(found.parts.values())
    assert found.training > 16 * sum(p.numel() for p in model.weights("attn2").values())  # copy, gradient, averages
    twice = needs(sketched(tmp_path, kind, distilled), "attn2", 4, 4, 5, 3.0)
    assert 1.8 < twice.step / found.step < 2.2
    assert found.drawing > 0
