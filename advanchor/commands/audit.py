"""`advanchor audit key=value ... --to=folder`: a record of a finished run that others can check."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from advanchor import ledger
from advanchor.audit import seal
from advanchor.audit.drawn import PROMPTS, counted, listing
from advanchor.audit.exported import weights_in
from advanchor.audit.made_of import detectors, original
from advanchor.audit.page import page
from advanchor.audit.statement import ANCHOR, EDIT, PAGE, STATEMENT, predicate, statement
from advanchor.build import build, listed, sample_of
from advanchor.commands.folder import new_folder
from advanchor.compose import by_itself, compose, expand
from advanchor.concept import Concept, Concepts
from advanchor.core import BadInput
from advanchor.criteria import LIMITS
from advanchor.exchange.card import shared
from advanchor.grids import spread
from advanchor.identity import plain, run_id
from advanchor.prompts import Prompt
from advanchor.provenance import code
from advanchor.results.gate import files, fresh, gated, whole
from advanchor.results.tables import parted
from advanchor.store import SUMS, read_json, verified

HELP = """\
advanchor audit key=value ... --to=<folder>   a record of a finished run that others can check

--to=<folder>                   where it goes: a new folder
--model=<folder>                the digests of an exported model's weights stand in it too, if they are this run's
--sign=<private.pem>            signed with a private key on an elliptic curve (pip install 'advanchor[sign]')
gate=strict                     with what `advanchor gate gate=strict` says of the run
--help                          this text

The words are those of the run. In the folder: statement.json, for programs (an in-toto Statement v1), AUDIT.md, for
people, the edit, the result, the value of every picture, some pictures, and SHA256SUMS. `advanchor verify <folder>`
checks it, and `advanchor verify <folder> --recompute` draws and measures again. Nothing is trained, drawn or judged.
What other code than this measured is refused, and so are words that leave out a metric or an attack of the run."""
PAIRS = {"erase": 6, "near": 3, "keep": 3}  # pictures of each set that are shown by themselves


def record(
    cfg: DictConfig, words: Sequence[str], to: Path, model: Path | None = None, by: Any = None, own: str | None = None
) -> dict[str, Any]:
    """Write the record of a finished run to a folder that is not there yet; returns its statement.

    Args:
        words: of the run, and a gate's.
        model: an exported model's folder.
        by: what signs (`seal.signer`), None for no signature.
        own: the user's folder of configs.

    Raises:
        BadInput: the run is not finished, no judge looked at it, other code made it, or it has more than the words say;
            a file of it is damaged; the exported model is another one; the folder is there, or cannot be written; or as
            `gated`.
    """
    with new_folder(to) as part:
        result = whole(cfg, words)
        hidden(cfg, result)
        measured = {name: read_json(file) for name, file in files(cfg, result).items()}
        fresh(cfg, result, measured)
        limits = asked(cfg, words)
        root, out = Path(cfg.root), Path(cfg.root) / run_id(cfg)
        subjects = {EDIT: seal.digest(root / result["artifacts"]["edit"] / EDIT)}
        if model is not None:
            subjects |= weights_in(model, result, own)
        prompts = cast(Concept | Concepts, build(cfg.concept, "concept")).prompts(sample_of(cfg))
        said = {
            **predicate(
                result,
                words,
                {name: score for one in measured.values() for name, score in one.items()},
                original(cfg),
                detectors(cfg),
                counted(prompts),
                limits,
            ),
            "page": code("advanchor.audit.page"),
            "result": seal.digest(out / "result.json"),
            "log": logged(root),
        }
        for name in (EDIT, ANCHOR):
            if (file := root / result["artifacts"]["edit"] / name).exists():
                (part / name).write_bytes(verified(file))
        (part / "metrics").mkdir()
        for file in files(cfg, result).values():
            (part / "metrics" / file.name).write_bytes(verified(file))
        (part / "grid.png").write_bytes(verified(out / "grid.png"))
        (part / "result.json").write_text(as_json(shared(result)), encoding="utf-8")
        (part / PROMPTS).write_text(listing(prompts), encoding="utf-8", newline="")
        said["shown"] = pictures(prompts, {w: root / result["artifacts"][f"samples{w}"] for w in ("@base", "")}, part)
        (part / PAGE).write_text(page(said), encoding="utf-8")
        said["files"] = {name: seal.digest(part / name) for name in seal.files(part)}
        stated = statement(subjects, said)
        (part / STATEMENT).write_text(as_json(stated), encoding="utf-8")
        if by is not None:
            seal.sign(part, by)
        (part / SUMS).write_text(seal.sums(part))
    return stated


def as_json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def hidden(cfg: DictConfig, result: Mapping[str, Any]) -> None:
    """Raise BadInput if the run was measured by more than the config names: a record leaves nothing out."""
    for kind in ("metric", "attack"):
        named = [name for sort, name, _ in listed(cfg) if sort == kind]
        every = list(result["config"].get(kind, {}))
        if left := [name for name in every if name not in named]:
            remedy = f"say {kind}=[{','.join([*named, *left])}]"
            raise BadInput(f"the run has {kind}={left[0]} too, and a record leaves nothing out: {remedy}.")


def asked(cfg: DictConfig, words: Sequence[str]) -> dict[str, Any]:
    """What the gate of a config says of the run, if it has one.

    Raises:
        BadInput: as `gated`.
    """
    if not any(cfg.gate.get(name) is not None for name in LIMITS):
        return {"asked": False}
    verdicts = gated(cfg, words)
    return {
        "asked": True,
        "name": str(cfg.gate.name),
        "limits": plain(cfg.gate),
        "passed": all(one.passed for one in verdicts),
        "lines": [str(one) for one in verdicts],
    }


def pictures(prompts: Mapping[str, Sequence[Prompt]], folders: Mapping[str, Path], part: Path) -> list[dict[str, str]]:
    """Copy some pictures before and after, spread over each set's prompts, and say which they are."""
    (part / "pictures").mkdir()
    found = []
    for name, n in PAIRS.items():
        for i, p in enumerate(spread(list(prompts[name]), n), 1):
            one = {"text": p.text, "seed": str(p.seed)}
            for which, at in (("@base", "before"), ("", "after")):
                one[at] = f"pictures/{name}-{i}-{at}.png"
                (part / one[at]).write_bytes(verified(folders[which] / p.file))
            found.append(one)
    return found


def logged(root: Path) -> dict[str, Any]:
    """How far the root's log was, where there is one: a copy of its end."""
    if not (root / ledger.LOG).exists():
        return {}
    said = ledger.check(root)
    return {"lines": said.lines, "head": said.head, "wrong": said.wrong}


def main(args: Sequence[str]) -> str:
    """The command's arguments -> what was written."""
    known = ["--to=<folder>", "--model=<folder>", "--sign=<private.pem>", "--help"]
    flags, overrides = parted("audit", args, known)
    if "--help" in flags:
        return HELP
    if not flags.get("--to"):
        raise BadInput("audit writes a folder: say where, --to=<folder>.")
    if len(runs := expand(overrides)) != 1:
        raise BadInput(f"audit takes one run, and this is a sweep of {len(runs)}: name one.")
    by = seal.signer(Path(flags["--sign"]).expanduser()) if "--sign" in flags else None
    model = Path(flags["--model"]).expanduser() if "--model" in flags else None
    cfg = compose(runs[0])
    own = next((word.partition("=")[2] for word in overrides if word.startswith("config_dir=")), None)
    to = Path(flags["--to"]).expanduser()
    stated = record(cfg, by_itself(runs[0]), to, model, by, own)
    limits = stated["predicate"]["gate"]
    gate = f"gate={limits['name']} {'passes' if limits['passed'] else 'FAILS'}" if limits["asked"] else "no gate"
    signed = "signed" if by is not None else "not signed"
    return "\n".join(
        [
            f"wrote {to}: {len(seal.files(to)) + 1} files, {gate}, {signed}; AUDIT.md is for people",
            f"sha256 of {SUMS}, to be kept in another place: {seal.digest(to / SUMS)}",
        ]
    )
