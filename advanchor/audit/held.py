"""A record held against itself: its files, its statement, and what the files say."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from advanchor.audit import seal
from advanchor.audit.drawn import PROMPTS, asked, counted
from advanchor.audit.made_of import weights_of
from advanchor.audit.page import page
from advanchor.audit.statement import EDIT, PAGE, PREDICATE, STATEMENT, TYPE, limits
from advanchor.core import BadInput
from advanchor.criteria import gate_of, judged
from advanchor.identity import key
from advanchor.provenance import code
from advanchor.units import with_interval

NEEDED: dict[str, type] = {  # of a predicate, what the checks and the page look at
    **dict.fromkeys(("run", "concept", "anchor", "method", "page", "pictures", "result"), str),
    **dict.fromkeys(("model", "config", "changed", "diagnostics", "prompts", "judge", "scores", "attacks"), dict),
    **dict.fromkeys(("gate", "code", "environment", "stages", "files"), dict),
    **dict.fromkeys(("command", "shown", "does_not_show"), list),
}


def stated(folder: Path) -> dict[str, Any]:
    """A record's statement.

    Raises:
        BadInput: it is damaged, in a sentence that says how.
    """
    where = f"{folder / STATEMENT}"
    try:
        said = json.loads((folder / STATEMENT).read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{where} is not there: name a folder that `advanchor audit` wrote.") from None
    except ValueError as error:
        what = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "no UTF-8"
        raise BadInput(f"{where} is damaged ({what}): take a copy of the record that is not.") from None
    if not isinstance(said, dict) or said.get("_type") != TYPE:
        raise BadInput(f"{where} is no in-toto Statement v1: its _type must be {TYPE}.")
    if said.get("predicateType") != PREDICATE:
        raise BadInput(f"{where} states something else: its predicateType must be {PREDICATE}.")
    predicate = said.get("predicate")
    for name, kind in NEEDED.items():
        if not isinstance(predicate, dict) or not isinstance(predicate.get(name), kind):
            raise BadInput(f"{where} is damaged: its predicate has no {name}.")
    if not all(isinstance(word, str) for word in said["predicate"]["command"]):
        raise BadInput(f"{where} is damaged: its predicate's command must be a list of words.")
    try:
        subjects = {one["name"]: one["digest"]["sha256"] for one in said["subject"]}
    except (KeyError, TypeError):
        raise BadInput(f"{where} is damaged: a subject needs a name and a digest.sha256.") from None
    if EDIT not in subjects:
        raise BadInput(f"{where} is damaged: {EDIT} is none of its subjects.")
    return {**said, "subjects": subjects}


def wrong(folder: Path, said: Mapping[str, Any]) -> list[str]:
    """A sentence for each thing in a record that is not as its statement has it."""
    predicate, subjects = said["predicate"], said["subjects"]
    there = [name for name in seal.files(folder) if name not in (STATEMENT, seal.SIGNATURE)]
    found = []
    for name in sorted({*there, *predicate["files"]}):
        if name not in there:
            found.append(f"{STATEMENT} tells of {name}, which is gone")
        elif name not in predicate["files"]:
            found.append(f"{STATEMENT} tells of no {name}")
        elif not (folder / name).is_file() or seal.digest(folder / name) != predicate["files"][name]:
            found.append(f"{name} is not the file that {STATEMENT} tells of")
    if subjects[EDIT] != predicate["files"].get(EDIT):
        found.append(f"{EDIT} is not the subject of {STATEMENT}")
    if key(predicate["code"].get("images"), subjects[EDIT]) != predicate["pictures"]:
        found.append(f"{STATEMENT}: its scores are of another edit than its subject")
    try:
        found += [*of_result(folder, predicate), *of_metrics(folder, predicate)]
        if predicate["page"] == code("advanchor.audit.page"):  # otherwise it may have been worded otherwise
            drawn = sum(predicate["prompts"]["count"].values())
            if predicate["does_not_show"] != limits(drawn, sorted(predicate["attacks"])):
                found.append(f"{STATEMENT}: what it does not show was reworded")
            if (folder / PAGE).read_text(encoding="utf-8") != page(predicate):
                found.append(f"{PAGE} does not say what {STATEMENT} says")
    except (
        BadInput,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:  # whatever a damaged file can raise
        found.append(f"{STATEMENT} and the other files cannot be compared ({type(error).__name__}: {error})")
    return found


def of_result(folder: Path, predicate: Mapping[str, Any]) -> list[str]:
    """Where result.json says something else."""
    result = json.loads((folder / "result.json").read_bytes())
    found = []
    for name in ("run", "config", "changed", "diagnostics", "pictures", "environment", "stages"):
        if result[name] != predicate[name]:
            found.append(f"result.json: {name} is not what {STATEMENT} says")
    said = {name: {k: v for k, v in one.items() if k != "code"} for name, one in predicate["scores"].items()}
    for name in sorted({*result["scores"], *said}):
        if result["scores"].get(name) != said.get(name):
            found.append(f"result.json: {name} is not what {STATEMENT} says")
    return found


def of_metrics(folder: Path, predicate: Mapping[str, Any]) -> list[str]:
    """Where the values of single pictures do not make the scores and intervals that are stated."""
    prompts = asked(folder)
    if counted(prompts) != predicate["prompts"]:
        return [f"{PROMPTS} is not the list that {STATEMENT} tells of"]
    measured: dict[str, Any] = {}
    for file in sorted((folder / "metrics").glob("*.json")):
        measured |= json.loads(file.read_bytes())
    found = []
    for name, score in predicate["scores"].items():
        one = measured.get(name)
        if one is None:
            found.append(f"metrics: nothing is behind {name}")
        elif any(one.get(k) != score.get(k) for k in ("value", "n", "better", "code")):
            found.append(f"metrics: {name} is not what {STATEMENT} says")
        elif (values := one.get("values")) and not math.isclose(math.fsum(values) / len(values), score["value"]):
            found.append(f"metrics: {name} is not the mean of its pictures")
        else:
            own = cast(dict[str, Any], with_interval(prompts, name, one))
            if any(not math.isclose(own.get(k, 2.0), score.get(k, 2.0), rel_tol=1e-6) for k in ("low", "high")):
                found.append(f"metrics: the interval of {name} is not that of its pictures")
    gate = predicate["gate"]
    if gate["asked"]:
        asked_for = gate_of(OmegaConf.create(gate["limits"]))
        detectors = predicate["judge"]["detectors"]
        verdicts = judged(asked_for, measured, prompts, detectors, list(predicate["config"].get("attack", {})))
        if [str(one) for one in verdicts] != gate["lines"] or all(one.passed for one in verdicts) != gate["passed"]:
            found.append(f"{STATEMENT}: the gate does not say that of these pictures")
    return found


def other_weights(model: Path, said: Mapping[str, Any]) -> list[str]:
    """Where an exported model is not the one that a statement has among its subjects.

    Raises:
        BadInput: the statement has none, or there is no such folder.
    """
    subjects = {name.partition("/")[2]: digest for name, digest in said["subjects"].items() if name != EDIT}
    if not subjects:
        raise BadInput("this record is of no exported model: `advanchor audit ... --model=<folder>` makes one that is.")
    if not model.is_dir():
        raise BadInput(f"--model={model} is no folder: name the exported model.")
    there = {file.relative_to(model).as_posix(): file for file in weights_of(model)}
    found = []
    for name in sorted({*there, *cast(dict[str, str], subjects)}):
        if name not in there:
            found.append(f"{model / name} is gone")
        elif name not in subjects:
            found.append(f"{model / name} is not of this record")
        elif seal.digest(there[name]) != subjects[name]:
            found.append(f"{model / name} is not what it was")
    return found
