"""A record measured again: the same config and its own edit, so that nothing trains, drawn and judged anew."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from advanchor.audit import seal
from advanchor.audit.drawn import counted
from advanchor.audit.made_of import detectors, original
from advanchor.audit.statement import ANCHOR, EDIT, STATEMENT
from advanchor.build import build, listed, sample_of
from advanchor.compose import compose, expand, read
from advanchor.compose.writing import quoted
from advanchor.concept import Concept, Concepts
from advanchor.core import BadInput
from advanchor.identity import plain, run_id
from advanchor.run import called, edit_of, memo, run
from advanchor.store import cached, finish, part_of, read_json, write_json

MARK = "recompute"  # in a root that only the record of this digest is measured again under
PICTURES = 2  # of a mean, how many may have come out otherwise where rounding differs
CODE = ("commit", "dirty")  # of an environment; which code made what is told more closely
ROUNDING = 1e-9  # of itself, on the same machine: threads add up in another order
SHARE = 0.05  # of a number that is no mean of pictures, such as FID


def again(folder: Path, said: Mapping[str, Any], root: Path, given: Sequence[str]) -> dict[str, Any]:
    """The result of a record's config with its edit, under a root that holds nothing else.

    Args:
        said: the predicate of the statement.
        given: overrides in the place of the record's own words: where weights and files lie, device, batch.

    Raises:
        BadInput: the words make another run here; there is something else under the root; as `run`.
    """
    cfg = composed(said, root, given)
    digest = seal.digest(folder / STATEMENT)
    mark = root / MARK
    if root.exists() and any(root.iterdir()) and not (mark.is_file() and mark.read_text() == digest):
        raise BadInput(f"root={root} is not empty, and nothing is taken from there: name a folder that is new.")
    root.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest)

    def put(part: Path) -> None:
        for name in (EDIT, ANCHOR):
            if (folder / name).exists():
                part_of(part / name).write_bytes((folder / name).read_bytes())
                finish(part / name)
        config = plain({group: cfg[group] for group in ("model", "concept", "anchor", "method", "seed")})
        about = {"diagnostics": said["diagnostics"], "code": said["code"]["edit"], "config": config}
        write_json(part / "edit.json", about)

    cached(root / "store/edits", edit_of(cfg), put)
    result = run(cfg, root / run_id(cfg))
    for kind, name, node in listed(cfg):
        file = memo(root / run_id(cfg), result["run"], called(kind, name), node, cfg.judge, result["pictures"])
        for score, one in read_json(file).items():
            result["scores"][score]["code"] = one["code"]
    return result


def composed(said: Mapping[str, Any], root: Path, given: Sequence[str]) -> DictConfig:
    """The config of a record's run, composed here.

    Raises:
        BadInput: it makes another run, or measures otherwise.
    """
    names = {word.lstrip("+~").partition("=")[0] for word in given}
    words = [word for word in said["command"] if word.lstrip("+~").partition("=")[0] not in names]
    try:
        runs = expand(read([*words, *given, "tracker=none", f"root={quoted(str(root))}"]))
        if len(runs) != 1:
            what = f"these words are a sweep of {len(runs)} runs, and a record is of one"
            raise BadInput(f"{what}: name one value for each.")
        cfg = compose(runs[0])
    except BadInput as error:
        if "config_dir" in names:
            raise
        raise BadInput(f"{error} If the run had options of its own, add --config-dir=<their folder>.") from None
    where = "say where they lie, such as model.path=<folder>"
    here = original(cfg)
    if any(here[one] != said["model"].get(one) for one in ("name", "key", "contents")):  # files may lie beside them
        raise BadInput(f"the weights of model={cfg.model.name} here are not those of the record: {where}.")
    if run_id(cfg) != said["run"]:
        raise BadInput(f"the record's words make the run {run_id(cfg)} here, and not {said['run']}: {where}.")
    if detectors(cfg) != said["judge"]:
        raise BadInput(f"judge={cfg.judge.name} here is not made of the record's files: say where its files lie.")
    prompts = cast(Concept | Concepts, build(cfg.concept, "concept")).prompts(sample_of(cfg))
    if counted(prompts) != said["prompts"]:
        raise BadInput("the prompts of the record are not those that its settings draw: somebody made it anew.")
    measured = {name.partition("/")[2] for name in said["files"] if name.startswith("metrics/")}
    for kind, name, node in listed(cfg):
        if memo(root, said["run"], called(kind, name), node, cfg.judge, said["pictures"]).name not in measured:
            raise BadInput(
                f"{kind}={name} here has other settings or files than the record's: say where its files lie."
            )
    return cfg


def differing(folder: Path, said: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """Of each score that did not come out as stated: may that be, and the sentence.

    On the same versions and kind of machine, by the same code, nothing may differ by more than ROUNDING of itself.
    Elsewhere pictures are rounded otherwise, and one on the edge is judged otherwise: of a mean of pictures PICTURES of
    them may have changed from one end of what was measured to the other, and any other number by SHARE of itself.
    """
    same = not otherwise(said, result)
    values: dict[str, Sequence[float]] = {}
    for file in sorted((folder / "metrics").glob("*.json")):
        values |= {name: one["values"] for name, one in json.loads(file.read_bytes()).items() if one.get("values")}
    for name in sorted({*said["scores"], *result["scores"]}):
        old, new = said["scores"].get(name), result["scores"].get(name)
        if old is None or new is None:
            yield False, f"{name} is {'not stated' if old is None else 'stated, and was not measured again'}"
        elif old["n"] != new["n"]:
            yield False, f"{name} is of {old['n']} pictures, and of {new['n']} when measured again"
        elif not math.isclose(old["value"], new["value"], rel_tol=ROUNDING):
            allowed = 0.0 if same else tolerance(old, values.get(name, ()))
            off = abs(old["value"] - new["value"])
            reach = "nothing may differ" if same else f"{allowed:.3g} may"
            yield off <= allowed, f"{name} is {old['value']:.9g}, and {new['value']:.9g} when measured again: {reach}"


def tolerance(score: Mapping[str, Any], values: Sequence[float]) -> float:
    """How far a score may be off where rounding differs."""
    if values:
        return PICTURES * max(1.0 if set(values) <= {0.0, 1.0} else 0.0, max(values) - min(values)) / len(values)
    return SHARE * abs(float(score["value"]))


def otherwise(said: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """What of versions, machine, batches and code is not the same, so that numbers may be rounded otherwise."""
    was, now = said["environment"], result["environment"]
    found = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name) and name not in CODE]
    found += [name for name in ("batch", "lean") if said["config"].get(name) != result["config"].get(name)]
    codes = [{name: score.get("code") for name, score in one["scores"].items()} for one in (said, result)]
    found += ["code of the pictures"] if said["pictures"] != result["pictures"] else []
    return found + (["code of the scores"] if codes[0] != codes[1] else [])
