"""`advanchor gate key=value ... gate=strict`: does a finished run hold what it must? Computes nothing but digests."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from advanchor import stamps
from advanchor.build import build, listed, sample_of
from advanchor.compose import compose_all, expand, validate
from advanchor.concept import Concept, Concepts
from advanchor.core import BadInput, Scores
from advanchor.criteria import LIMITS, Verdict, gate_of, judged
from advanchor.identity import key, run_id
from advanchor.metrics.attacked import Attacked
from advanchor.protocols import Anchor, Judge, Method
from advanchor.results.progress import title
from advanchor.results.sweep import erasures
from advanchor.results.tables import parted
from advanchor.run import called, finished, memo, result_in
from advanchor.store import read_json, verified

HELP = """\
advanchor gate key=value ... gate=strict   holds finished runs against limits: exit code 0 if all pass, else 1

gate=strict, gate=lenient       the limits; gate.found=0.1 sets one, gate.excess=null switches one off
--help                          this text

A line for each criterion and each of the judge's detectors: its mean, 95 % interval and n, and the bad end of the
interval, which is what is held against the limit. A sweep has a block for each run, and fails where one does. A run
that is not finished is refused, and so are scores that are missing, that other code made than this, or of another edit
than the one that is there."""


def gated(cfg: DictConfig, words: Sequence[str]) -> list[Verdict]:
    """A finished run against the gate of its config.

    Args:
        words: the command's, by which the run is made.

    Raises:
        BadInput: the run is not finished, or its scores are not of this code and the edit that is there; as `judged`.
    """
    gate = gate_of(cfg.gate)
    if all(getattr(gate, name) is None for name in LIMITS):
        raise BadInput(f"gate={gate.name} limits nothing: name one that does, such as gate=strict.")
    result = whole(cfg, words)
    each = {name: read_json(file) for name, file in files(cfg, result).items()}
    fresh(cfg, result, each)
    judge = cast(Judge, build(cfg.judge, "judge"))
    prompts = cast(Concept | Concepts, build(cfg.concept, "concept")).prompts(sample_of(cfg))
    attacks = [name for kind, name, _ in listed(cfg) if kind == "attack"]
    if hidden := [name for name in result["config"].get("attack", {}) if name not in attacks]:
        every = ",".join([*attacks, *hidden])
        raise BadInput(f"the run was attacked by {hidden[0]} too, and a gate hides no attack: say attack=[{every}].")
    return judged(gate, {name: s for one in each.values() for name, s in one.items()}, prompts, judge.judges, attacks)


def files(cfg: DictConfig, result: dict[str, Any]) -> dict[str, Path]:
    """Where each metric and attack of the config left its scores, with the values of single images."""
    folder, run, pictures = Path(cfg.root) / run_id(cfg), result["run"], result["pictures"]
    return {
        called(kind, name): memo(folder, run, called(kind, name), node, cfg.judge, pictures)
        for kind, name, node in listed(cfg)
    }


def whole(cfg: DictConfig, words: Sequence[str]) -> dict[str, Any]:
    """The result of a finished run that was measured.

    Raises:
        BadInput: it is not finished, which says the command that makes it; or no judge looked at it.
    """
    again = shlex.join(["advanchor", *(w for w in words if not w.startswith(("gate=", "gate.")))])
    folder = Path(cfg.root) / run_id(cfg)
    if (result := result_in(cfg, folder)) is None:
        raise BadInput(f"{folder} holds no finished run: `{again}` makes it.")
    if (done := finished(cfg)) is None:
        raise BadInput(f"{folder} has not been measured as this command asks: `{again}` adds what is missing.")
    if result["unmeasured"]:
        raise BadInput(f"no judge looked at the pictures in {folder}: name one, such as judge=sd, and run it again.")
    return done


def fresh(cfg: DictConfig, result: dict[str, Any], each: dict[str, Scores]) -> None:
    """Raise BadInput unless the result's stages were made by the code that is here, and its pictures by the edit that
    is there.

    Args:
        each: the scores of each metric and attack, by its file's name.
    """
    made_by = type(build(cfg.model, "model")).__module__
    method, anchor = cast(Method, build(cfg.method, "method")), cast(Anchor, build(cfg.anchor, "anchor"))
    drawn = stamps.drawing(made_by)
    now = {"edit": stamps.erasing(made_by, method, anchor), "images": drawn, "images@base": drawn}
    for stage, code in now.items():
        if result["provenance"][stage] != code:
            raise other_code(cfg, stage, result["provenance"][stage], code)
    edit = Path(cfg.root) / result["artifacts"]["edit"] / "edit.safetensors"
    if not edit.exists():
        raise BadInput(f"{edit} is gone, so nothing says which edit the pictures are of: make the run again.")
    if key(drawn, hashlib.sha256(verified(edit)).hexdigest()) != result["pictures"]:
        remedy = "the same command as a run measures the one that is there"
        raise BadInput(f"the scores are of another edit than the one in {edit}: {remedy}.")
    judge = cast(Judge, build(cfg.judge, "judge"))
    seen_by = stamps.seeing(judge)
    for kind, name, node in listed(cfg):
        part: Any = build(node, kind, f"{kind}.{name}")
        metric = part if kind == "metric" else Attacked(name, part.never)
        more = [] if kind == "metric" else [stamps.attacking(part, made_by)]
        code = stamps.measuring(metric, judge, seen_by, *more)
        for score, one in each[called(kind, name)].items():
            if one.get("code") != code:
                raise other_code(cfg, f"score {score}", str(one.get("code")), code)


def other_code(cfg: DictConfig, what: str, was: str, now: str) -> BadInput:
    remedy = "make the run again under another root, or judge it by the code that made it"
    return BadInput(f"the {what} of {run_id(cfg)} was made by other code ({was}, and here is {now}): {remedy}.")


def main(args: Sequence[str]) -> tuple[str, str | None]:
    """The command's arguments -> the text to print, and what is to be said if it fails."""
    flags, overrides = parted("gate", args, ["--help"])
    if "--help" in flags:
        return HELP, None
    validate(overrides)
    runs = expand(overrides)
    blocks, failed, refused = [], 0, 0
    configs = compose_all(runs)
    erasures(configs, "gate")
    for words, cfg in zip(runs, configs, strict=True):
        head = f"{title(cfg)} ({Path(cfg.root) / run_id(cfg)}), gate={cfg.gate.name}"
        try:
            verdicts = gated(cfg, words)
        except BadInput as error:
            if len(runs) == 1:
                raise
            refused += 1
            blocks.append(f"{head}\nrefused  {error}")
            continue
        failed += not all(one.passed for one in verdicts)
        blocks.append("\n".join([head, *map(str, verdicts)]))
    said = [f"{n} of {len(runs)} runs {what}" for n, what in ((failed, "fail"), (refused, "are refused")) if n]
    return "\n\n".join(blocks), f"advanchor gate: {' and '.join(said)}." if said else None
