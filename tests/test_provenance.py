"""The code of a number is what can change it: neither less nor more."""

from typing import Any

import pytest

from advanchor import provenance
from advanchor.provenance import code, imports

DRAWING = ("advanchor.model", "advanchor.images")
STAGES = {
    "edit": ("advanchor.model", "advanchor.methods.ac", "advanchor.anchors.adversarial"), "images": DRAWING,
    "score": ("advanchor.metrics.erasure", "advanchor.judge"), "pool": ("advanchor.pools", "advanchor.model"),
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("module", "touched"),
    [("advanchor.plots", ()), ("advanchor.tables", ()), ("advanchor.cli", ()), ("advanchor.progress", ()), ("advanchor.trackers", ()), ("advanchor.report", ()),
     ("advanchor.run", ()), ("advanchor.model", ("edit", "images", "pool")), ("advanchor.methods.ac", ("edit",)), ("advanchor.methods.esd", ()),
     ("advanchor.anchors.search", ("edit",)), ("advanchor.training", ("edit",)), ("advanchor.judge", ("score",)), ("advanchor.metrics.fid", ()),
     ("advanchor.metrics.erasure", ("score",)), ("advanchor.edits", ("edit", "images", "pool")), ("advanchor.sd_judge", ())],
)  # fmt: skip
def test_a_change_of_a_module_touches_the_stages_that_run_it_and_no_other(stage: str, module: str, touched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = code(*STAGES[stage])
    monkeypatch.setattr(provenance, "SOURCES", {**provenance.SOURCES, module: provenance.SOURCES.get(module, b"") + b"\nx = 1\n"})
    assert (code(*STAGES[stage]) != before) is (stage in touched)


def test_what_is_imported_for_type_checking_alone_changes_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from advanchor.plots import main\ndef f():\n    import advanchor.store\n    from advanchor import edits\n"
    monkeypatch.setattr(provenance, "SOURCES", {**provenance.SOURCES, "advanchor.made_up": text})
    assert imports("advanchor.made_up") == ("advanchor.store", "advanchor.edits")
