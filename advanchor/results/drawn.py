"""Every image that a sweep's runs looked at, by prompt and seed, and which of them share it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from advanchor.attacking import Assault, chances
from advanchor.attacks.shots import Attack, Shot
from advanchor.build import build, listed, sample_of
from advanchor.concept import Concept, Concepts
from advanchor.prompts import Prompt, reseeded
from advanchor.protocols import Model
from advanchor.results.collection import Finished
from advanchor.run import digest_of, edit_of
from advanchor.shown import asked_under
from advanchor.store import read_tensors

HEADS = ("set", "drawn by", "prompt", "of", "label", "kept", "seed", "shot", "runs")
BOTH, UNEDITED = "edited and unedited model", "unedited model"


def drawn(runs: Sequence[Finished]) -> str:
    """A line for each image, as CSV; runs are named, or "all" of them. `of` is the sentence that an attack words
    otherwise: an image's noise is that of its seed and this sentence; `shot` tells its shots at one image apart.
    """
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for one in runs:
        for name, by, prompts in sets(one):
            for p in prompts:
                says, tag = (p.says, p.tag) if isinstance(p, Shot) else ("", "")
                line = (name, by, says or p.text, p.text if says else "", p.label, p.kept, str(p.seed), tag)
                found.setdefault(line, {})[one.result["run"]] = None
    every = dict.fromkeys(one.result["run"] for one in runs)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADS)
    writer.writerows([*line, "all" if names == every else " ".join(names)] for line, names in found.items())
    return out.getvalue()


def sets(one: Finished) -> Iterator[tuple[str, str, Sequence[Prompt]]]:
    """What a run looked at: a set, what drew it, its images."""
    concept, sample = cast(Concept | Concepts, build(one.cfg.concept, "concept")), sample_of(one.cfg)
    metrics: list[Any] = [build(node, "metric") for kind, _, node in listed(one.cfg) if kind == "metric"]
    attacks = {name: cast(Attack, build(node, "attack")) for kind, name, node in listed(one.cfg) if kind == "attack"}
    looked_at = [name for metric in metrics for name in metric.sets]
    looked_at += [f"erase@{attack.never}" for attack in attacks.values() if attack.never]
    for name, prompts in one.prompts.items():
        yield name, BOTH, prompts
        for which in dict.fromkeys(w.partition("@")[2] for w in looked_at if w.startswith(f"{name}@")):
            if which == "floor":
                yield f"{name}@floor", UNEDITED, reseeded(prompts)
            elif which != "base":  # the folder of another model
                yield f"{name}@{Path(which).name}", f"model {Path(which).name}", prompts
    if "anchor" in looked_at:
        yield "anchor", f"{UNEDITED} under the anchor", asked_under(concept, sample)
    for name, attack in attacks.items():
        shots = assault(one, name, attack, concept).left()
        yield f"attack/{name}", "attacked model", [shot for each in shots for shot in each]
        yield f"attack/{name}@chance", "edited model", chances(shots)


def assault(one: Finished, name: str, attack: Attack, concept: Concept | Concepts) -> Assault:
    """The attack as the run made it, to be asked where its shots are."""
    cfg, store = one.cfg, Path(one.cfg.root) / "store"
    file = store / "edits" / edit_of(cfg) / "edit.safetensors"
    model = cast(Model, SimpleNamespace(made_by=type(build(cfg.model, "model")).__module__))
    edit = read_tensors(file) if attack.access == "text encoder" else {}
    of = (attack, cfg.attack[name], model, edit, digest_of(store, cfg), concept, sample_of(cfg), store)
    return Assault(*of, cfg.batch, lambda shown: shown, one.result["weights"])
