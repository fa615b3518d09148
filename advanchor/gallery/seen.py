"""A run's pictures, before and after in pairs, and what each detector of its judge saw in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from advanchor import stamps
from advanchor.build import build, sample_of
from advanchor.concept import Concept, Concepts
from advanchor.core import NOTHING, Head
from advanchor.images import Images
from advanchor.metrics.content import BESIDE, things
from advanchor.metrics.detectors import Thing, known, other
from advanchor.prompts import Prompt
from advanchor.protocols import Judge
from advanchor.shown import asked_under, folder_under, recorded_by


@dataclass(frozen=True)
class Sight:
    """What one detector saw in a picture: in the place of what was asked for, and of the rest of the sentence ("" if
    that names nothing else); and whether it takes the picture for one of nothing.
    """

    saw: str
    beside: str
    nothing: bool


@dataclass(frozen=True)
class Pair:
    """One prompt and seed: its picture after, by each detector, and the unedited model's before it, if there is one.

    `rest` is the other thing that the sentence names, "" for none.
    """

    prompt: Prompt
    rest: str
    before: tuple[Sight, ...]
    after: tuple[Sight, ...]

    @property
    def happened(self) -> list[str]:
        """What the page can be searched for, by any of the detectors: `found`, an erased concept that is still there;
        `lost`, a kept one that was there before; `rest`, the rest of a sentence that was; `broken`, a picture that has
        become none of anything; `differ`, detectors that do not say the same.
        """
        pairs = list(zip(self.before, self.after, strict=True)) if self.before else [(None, one) for one in self.after]
        asked = self.prompt.label
        said = {
            "found": not self.prompt.kept and any(now.saw == asked for now in self.after),
            "lost": bool(self.prompt.kept) and any(was and was.saw == asked != now.saw for was, now in pairs),
            "rest": bool(self.rest) and any(was and was.beside == self.rest != now.beside for was, now in pairs),
            "broken": any(now.nothing and not (was and was.nothing) for was, now in pairs),
            "differ": len({now.saw == asked for now in self.after}) > 1,
        }
        return [name for name, true in said.items() if true]


@dataclass(frozen=True)
class Band:
    """Pairs that belong together: what was erased, its neighbours, what was kept of either kind, the anchor.

    `before` is None where there is nothing to compare with.
    """

    name: str
    title: str
    before: Images | None
    after: Images
    pairs: list[Pair]


def bands(cfg: DictConfig, result: dict[str, Any]) -> tuple[tuple[str, ...], list[Band]]:
    """The judge's detectors, and every band of a finished run. A judge looks only at what it has no record of.

    Raises:
        BadInput: a picture or a record is damaged.
    """
    root, sample = Path(cfg.root), sample_of(cfg)
    concept, judge = cast(Concept | Concepts, build(cfg.concept, "concept")), cast(Judge, build(cfg.judge, "judge"))
    measured = not result["unmeasured"]
    seen_by = stamps.seeing(judge) if measured else ""
    prompts = concept.prompts(sample)
    folders = {which: root / result["artifacts"][f"samples{which}"] for which in ("", "@base")}

    def shown(folder: Path, wanted: Sequence[Prompt]) -> Images:
        return recorded_by(Images(folder, wanted), cfg.judge, seen_by)

    def looked(images: Images, beside: bool) -> list[tuple[str, tuple[Sight, ...]]]:
        return sights(judge, images, beside) if measured else [("", ())] * len(images.prompts)

    found = []
    for name in ("erase", "near", "keep"):
        before, after = (shown(folders[which], prompts[name]) for which in ("@base", ""))
        if not prompts[name]:
            continue
        was, now = (looked(images, name == "erase") for images in (before, after))
        pairs = [Pair(p, rest, then, at) for p, (rest, at), (_, then) in zip(prompts[name], now, was, strict=True)]
        parts = {"erase": {"": "Erased"}, "near": {"near": "Kept: nearest neighbours"}}.get(
            name, {"in": "Kept: the same kind", "cross": "Kept: the other kind"}
        )
        for kept, title in parts.items():
            if own := [pair for pair in pairs if pair.prompt.kept == kept]:
                title = f"{title}: {cfg.concept.name}" if name == "erase" else title
                found.append(Band(f"{name}{kept}", title, before, after, own))
    return judge.judges if measured else (), [*found, *under_anchor(cfg, result, concept, shown, looked)]


def under_anchor(
    cfg: DictConfig, result: dict[str, Any], concept: Concept | Concepts, shown: Any, looked: Any
) -> list[Band]:
    """What the unedited model draws under the anchor, if the run drew it."""
    sample = sample_of(cfg)
    file = Path(cfg.root) / result["artifacts"]["edit"] / "anchor.safetensors"
    if not file.exists():
        return []
    name = folder_under(file, cfg.model, sample, result["provenance"]["images@anchor"])
    folder, wanted = Path(cfg.root) / "store/samples" / name, asked_under(concept, sample)
    if not all((folder / p.file).exists() for p in wanted):
        return []
    images = shown(folder, wanted)
    pairs = [Pair(p, rest, (), now) for p, (rest, now) in zip(wanted, looked(images, True), strict=True)]
    return [Band("anchor", "Under the anchor: what the unedited model draws", None, images, pairs)]


def sights(judge: Judge, shown: Images, beside: bool) -> list[tuple[str, tuple[Sight, ...]]]:
    """Of each image the other thing that its sentence names, and what every detector saw.

    The questions are those of metric=erasure, content and broken, so that a run which measured them has the answers.

    Args:
        beside: look for the rest of the sentence too.
    """
    heads = sorted({p.head for p in shown.prompts})
    can = known(judge, sorted({BESIDE[head] for head in heads if head in BESIDE})) if beside else {}
    erased = things(shown)
    rest: list[Thing | None] = [other(p, can, erased) for p in shown.prompts]
    each: list[list[Sight]] = []
    for by in judge.judges:
        found: dict[Head, list[str]] = dict(shown.found(judge, heads, by))
        if any(rest):
            found = shown.found(judge, sorted(can), by) | found
        if beside and judge.rejects and "object" not in found:
            found |= shown.found(judge, ["object"], by)
        each.append(
            [
                Sight(
                    found[p.head][i],
                    found[thing[0]][i] if thing else "",
                    judge.rejects and found.get("object", found[p.head])[i] == NOTHING,
                )
                for i, (p, thing) in enumerate(zip(shown.prompts, rest, strict=True))
            ]
        )
    return [(thing[1] if thing else "", one) for thing, one in zip(rest, zip(*each, strict=True), strict=True)]


def differing(result: dict[str, Any], bands: Sequence[Band]) -> list[str]:
    """Scores of a run that are not those of the verdicts: another code or another judge's files gave them.

    Only of what is counted over a whole set.
    """
    scores, found = result["scores"], []
    for band, name in (("erase", "erasure/hit"), ("nearnear", "keep/hit_near"), ("keepin", "keep/hit_in")):
        pairs = next((one.pairs for one in bands if one.name == band), [])
        for i, which in enumerate(("", "2")):
            said = scores.get(name.replace("hit", f"hit{which}"))
            if said and pairs and len(pairs[0].after) > i:
                counted = sum(pair.after[i].saw == pair.prompt.label for pair in pairs)
                if counted != round(said["value"] * said["n"]):
                    found.append(name.replace("hit", f"hit{which}"))
    return found
