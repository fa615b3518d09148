"""A finished run as its section of a page shows it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from advanchor.exchange.card import shared
from advanchor.gallery.curves import Curve, curves
from advanchor.gallery.seen import Band, bands, differing
from advanchor.report import SMEARS, attacks_of, missing, rows_of
from advanchor.training.loop import recorded


@dataclass
class Subject:
    """A finished run as its section of the page shows it.

    Attributes:
        words: of the command that makes it; empty if nobody knows.
        judges: the judge's detectors; none if nobody looked.
    """

    run: str
    title: str
    words: Sequence[str]
    result: dict[str, Any]
    judges: tuple[str, ...]
    bands: list[Band]
    curves: list[Curve]
    shown: list[list[list[Any]]]  # of each band the pairs that are in the page, in numbers (page.carded)

    @property
    def command(self) -> str:
        """Without `root`, which decides where the run is and not what."""
        return (
            shlex.join(["advanchor", *(w for w in self.words if not w.startswith(("root=", "longest=")))])
            if self.words
            else ""
        )

    @property
    def left(self) -> int:
        """How many pairs are not in the page."""
        return sum(len(band.pairs) - len(cards) for band, cards in zip(self.bands, self.shown, strict=True))

    @property
    def scores(self) -> list[tuple[str, ...]]:
        return rows_of(self.result["scores"], self.result["config"]["concept"]["name"])

    @property
    def attacks(self) -> str:
        return "\n".join(attacks_of(self.result["scores"])).strip()

    @property
    def anchor(self) -> dict[str, float]:
        """What a run reports of its anchor."""
        each = self.result["diagnostics"].items()
        return {name.partition("/")[2]: value for name, value in each if name.startswith("anchor/")}

    @property
    def costs(self) -> dict[str, float]:
        return {n.partition("/")[2]: v for n, v in self.result["diagnostics"].items() if n.startswith("cost/")}

    @property
    def config(self) -> str:
        """As yaml, without the folders of the machine that it is from."""
        hidden = ("root", "table", "paper", "sweeps", "tune", "longest")  # which decide nothing about a run
        config = {name: value for name, value in self.result["config"].items() if name not in hidden}
        return OmegaConf.to_yaml(OmegaConf.create(shared(config))).rstrip()

    @property
    def notes(self) -> list[str]:
        """What must be known before the pictures are looked at."""
        scores, config = self.result["scores"], self.result["config"]
        if self.result["unmeasured"]:
            return [self.result["unmeasured"]]
        found = missing(scores, config.get("metric", {}), config["judge"]["name"])
        smears = max((scores[name]["value"] for name in ("broken/erase", "broken/erase2") if name in scores), default=0)
        if smears > SMEARS:
            said = f"{100 * smears:.0f} % of the erased concept's pictures are no picture of anything"
            found.insert(0, f"{said} to one of the detectors.")
        if other := differing(self.result, self.bands):
            found.append(
                f"{', '.join(other)}: these scores were given by other code than the verdicts under the pictures, "
                "and do not count the same."
            )
        return found


def subject(cfg: DictConfig, result: dict[str, Any], words: Sequence[str] = ()) -> Subject:
    """A finished run, looked at.

    Raises:
        BadInput: as `bands`.
    """
    judges, found = bands(cfg, result)
    record = recorded(Path(cfg.root) / result["artifacts"]["edit"] / "train.jsonl")
    title = f"{cfg.concept.name}: {cfg.method.name} towards {cfg.anchor.name}, seed {cfg.seed}"
    return Subject(result["run"], title, words, result, judges, found, curves(record), [[] for _ in found])
