"""The code of a number is what can change it: neither less nor more."""

from typing import Any

import pytest

from advanchor import provenance
from advanchor.provenance import code, imports

DRAWING = ("advanchor.models.tiny", "advanchor.images")
STAGES = {
    "edit": ("advanchor.models.tiny", "advanchor.methods.ac", "advanchor.anchors.adversarial"),
    "images": DRAWING,
    "score": ("advanchor.metrics.erasure", "advanchor.judges.emoji"),
    "pool": ("advanchor.training.pools", "advanchor.models.tiny"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("module", "touched"),
    [
        ("advanchor.results.figures", ()),
        ("advanchor.results.tables", ()),
        ("advanchor.cli", ()),
        ("advanchor.results.progress", ()),
        ("advanchor.trackers.wandb", ()),
        ("advanchor.report", ()),
        ("advanchor.run", ()),
        ("advanchor.models.tiny", ("edit", "images", "pool")),
        ("advanchor.methods.ac", ("edit",)),
        ("advanchor.methods.esd", ()),
        ("advanchor.anchors.search", ("edit",)),
        ("advanchor.training.loop", ("edit",)),
        ("advanchor.judges.emoji", ("score",)),
        ("advanchor.metrics.fid", ()),
        ("advanchor.metrics.erasure", ("score",)),
        ("advanchor.models.edits", ("edit", "images", "pool")),
        ("advanchor.judges.stable_diffusion", ()),
    ],
)
def test_a_change_of_a_module_touches_the_stages_that_run_it_and_no_other(
    stage: str, module: str, touched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code(*STAGES[stage])
    monkeypatch.setattr(
        provenance, "SOURCES", {**provenance.SOURCES, module: provenance.SOURCES.get(module, b"") + b"\nx = 1\n"}
    )
    assert (code(*STAGES[stage]) != before) is (stage in touched)


def test_what_is_imported_for_type_checking_alone_changes_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        "from typing import TYPE_CHECKING", "if TYPE_CHECKING:", "    from advanchor.results.figures import main",
        "def f():", "    import advanchor.store", "    from advanchor.models import edits",
    )  # fmt: skip
    text = "\n".join(lines).encode()
    monkeypatch.setattr(provenance, "SOURCES", {**provenance.SOURCES, "advanchor.made_up": text})
    assert imports("advanchor.made_up") == ("advanchor.store", "advanchor.models", "advanchor.models.edits")


def test_a_model_says_which_module_put_it_together(model: Any) -> None:
    assert model.made_by == DRAWING[0]
    assert {"advanchor.models.latent_diffusion", "advanchor.models.layout"} <= set(imports(DRAWING[0]))
