"""`advanchor verify <folder>`: is a record what it was, does it say what its files say, and does it come out again?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advanchor import ledger
from advanchor.audit import held, seal
from advanchor.audit.statement import PAGE, STATEMENT
from advanchor.compose.overrides import parsed
from advanchor.core import BadInput
from advanchor.provenance import code
from advanchor.results.tables import parted
from advanchor.store import SUMS
from advanchor.verbs import is_place

HELP = """\
advanchor verify <folder>       a record of `advanchor audit`: exit code 0 if all is well, else 1
advanchor verify root=<root>    the log of the runs under a root, <root>/audit.jsonl, and its results

--key=<public.pem>              whose signature the record must have
--model=<folder>                an exported model that must be the one of the record
--recompute                     draw and measure again, with the record's edit: nothing is trained
--help                          this text

With --recompute:
root=<folder>                   where to; a new folder that stays. Without it one that is deleted
model.path=<folder>             where the original weights lie, and other settings for this machine (device, batch)
--config-dir=<folder>           the options of its own that the run had"""


def main(args: Sequence[str]) -> tuple[str, str | None]:
    """The command's arguments -> the text to print, and what is to be said if something is wrong."""
    known = ["--key=<public.pem>", "--model=<folder>", "--recompute", "--help"]
    flags, words = parted("verify", args, known)
    if "--help" in flags:
        return HELP, None
    places, given = [w for w in words if is_place(w)], [w for w in words if not is_place(w)]
    if len(places) > 1:
        raise BadInput(f"verify takes one folder, and these are {len(places)}: name one.")
    root = next((Path(str(parsed(w).value())) for w in given if w.startswith("root=")), None)
    place = Path(places[0]).expanduser() if places else root
    if place is None:
        raise BadInput("verify what? Name a folder that `advanchor audit` wrote, or root=<folder of the runs>.")
    of_log = place.name == ledger.LOG or ((place / ledger.LOG).is_file() and not (place / STATEMENT).exists())
    if of_log or not places:
        if more := [*flags, *(w for w in given if places or not w.startswith("root="))]:
            raise BadInput(f"{more[0]} is for a record, and this is the log of a root: leave it out.")
        return log_of(place.parent if place.name == ledger.LOG else place)
    if given and "--recompute" not in flags:
        raise BadInput(f"{given[0]} is for --recompute: add that, or leave it out.")
    return record_of(place, flags, given, root)


def log_of(root: Path) -> tuple[str, str | None]:
    """What a log says, and whether something contradicts it."""
    said = ledger.check(root)
    lines = [*(f"WRONG  {one}" for one in said.wrong), *(f"note   {one}" for one in said.notes)]
    whole = f"{root / ledger.LOG}: {said.lines} lines, from {said.since} to {said.until}"
    lines.append(f"{whole}; sha256 of the last, to be kept in another place: {said.head}")
    return "\n".join(lines), counted(len(said.wrong), root / ledger.LOG)


def record_of(folder: Path, flags: dict[str, str], given: Sequence[str], root: Path | None) -> tuple[str, str | None]:
    """What is wrong with a record, and what was not looked at."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder: name one that `advanchor audit` wrote.")
    wrong, notes = seal.broken(folder), list[str]()
    try:
        said = held.stated(folder)
        wrong += held.wrong(folder, said)
    except BadInput as error:
        if not wrong:
            raise
        said = None
        wrong.append(str(error))
    if said is not None and said["predicate"]["page"] != code("advanchor.audit.page"):
        notes.append(f"{PAGE} was written by other code than this, so its wording was not compared with {STATEMENT}")
    signed = (folder / seal.SIGNATURE).exists()
    if "--key" in flags:
        if why := seal.forged(folder, Path(flags["--key"]).expanduser()):
            wrong.append(why)
        else:
            notes.append(f"signed by {flags['--key']}")
    elif signed:
        notes.append(f"{seal.SIGNATURE} was not checked: say whose it must be, --key=<public.pem>")
    else:
        notes.append(f"not signed: only a copy of {SUMS}' digest that lies elsewhere shows whether all was made anew")
    if said is not None and "--model" in flags:
        wrong += held.other_weights(Path(flags["--model"]).expanduser(), said)
    elif said is not None and len(said["subjects"]) > 1:
        notes.append(f"{len(said['subjects']) - 1} files of an exported model were not checked: --model=<folder>")
    if said is not None and "--recompute" in flags:
        if wrong:
            notes.append("not measured again, since the record is damaged")
        else:
            bad, fine = remeasured(folder, said["predicate"], given, root)
            wrong, notes = [*wrong, *bad], [*notes, *fine]
    lines = [*(f"WRONG  {one}" for one in wrong), *(f"note   {one}" for one in notes)]
    lines.append(f"{folder}: {len(seal.files(folder)) + 1} files; sha256 of {SUMS}: {seal.digest(folder / SUMS)}")
    return "\n".join(lines), counted(len(wrong), folder)


def remeasured(
    folder: Path, said: Mapping[str, Any], given: Sequence[str], root: Path | None
) -> tuple[list[str], list[str]]:
    """Scores that do not come out again as they must, and what else is to be said."""
    from advanchor.audit.recomputed import again, differing, otherwise

    rest = [w for w in given if not w.startswith("root=")]
    with tempfile.TemporaryDirectory(prefix="advanchor-") as place:
        result = again(folder, said, root or Path(place) / "root", rest)
    found = list(differing(folder, said, result))
    other = otherwise(said, result)
    how = f"with another {', '.join(other)}" if other else "on the same versions and kind of machine"
    scores = len(result["scores"])
    notes = [
        f"measured again {how}: {scores - len(found)} of {scores} scores are the same; the training was not repeated"
    ]
    return [what for may, what in found if not may], [*(what for may, what in found if may), *notes]


def counted(n: int, what: Path) -> str | None:
    return f"advanchor verify: {n} {'thing is' if n == 1 else 'things are'} wrong with {what}." if n else None
