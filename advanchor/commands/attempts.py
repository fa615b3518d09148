"""A run that may fail: what is said of it, and where the rest stands."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger("advanchor.commands.attempts")
FREE = 20e6  # bytes on the disk: what a small run needs


def attempt(cfg: DictConfig, out: Path, failed: dict[Path, str], words: Sequence[str] = ()) -> dict[str, Any] | None:
    """One run under its lock; if it fails, why stands in `failed` and in its error.txt. None also if another process
    has it.

    Args:
        words: of the command that makes this run alone.
    """
    from advanchor.store import lock

    try:
        with lock(out / ".lock", block=False) as mine:
            if not mine:
                return None
            try:
                result = made(cfg, out, words)
                (out / "error.txt").unlink(missing_ok=True)
                return result
            except Exception as error:
                failed[out] = reason(error, out, f"in {out / 'error.txt'}")
                whole = "" if isinstance(error, BadInput) else f"\n{traceback.format_exc()}"
                (out / "error.txt").write_text(f"{failed[out]}\n{whole}")
    except OSError as error:
        if out not in failed:
            failed[out] = reason(error, out, "above")
        if "report it" in failed[out]:  # its traceback has no other place
            traceback.print_exc()
    return None


def made(cfg: DictConfig, out: Path, words: Sequence[str]) -> dict[str, Any]:
    """The result of a run whose lock the caller holds, told in the log of its root unless there was nothing to do.

    Raises:
        BadInput: as `carry_out`.
    """
    from advanchor.ledger import told
    from advanchor.run import finished
    from advanchor.stages import carry_out

    if finished(cfg, out):
        return carry_out(cfg, out, words)
    with told(Path(cfg.root), out, words, lambda error: reason(error, out, "where it was started")):
        return carry_out(cfg, out, words)


def assisted(cfg: DictConfig, out: Path) -> None:
    """Help the process that has a run with its images, or wait for one that tries an anchor. The run does not fail if
    it cannot be helped.
    """
    from advanchor.run import assist
    from advanchor.stages import wait

    try:
        wait(out) if cfg.stage == "anchor" else assist(cfg)
    except Exception as error:
        why = reason(error, out, "above")
        log.warning("%s: cannot help with its images: %s", out, why)
        if "report it" in why:
            traceback.print_exc()


def reason(error: Exception, out: Path, where: str) -> str:
    """What is said of the error of a run in `out`: what to do, or `where` its traceback is if nobody foresaw it."""
    number = error.errno if isinstance(error, OSError) else None
    text = (str(error).splitlines() or [""])[0]
    again = "the same command goes on from where it was."
    if isinstance(error, BadInput):
        return str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return f"there is no space left where {out.parent} is: free some, or choose another root=<folder>; {again}"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        file = getattr(error, "filename", None) or out
        return f"{file} cannot be read or written ({os.strerror(number)}): allow it, or choose another root=<folder>."
    of_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text
    if isinstance(error, MemoryError) or of_torch:
        return f"memory does not suffice: lower batch, method.batch or sample.erase, or take another device; {again}"
    what = f"failed ({type(error).__name__}: {text}), which nobody foresaw"
    return f"{what}: the traceback is {where}, please report it with the command; {again}"


def writable(root: Path) -> None:
    """Raises: BadInput if nothing can be written at `root`, or the disk is full."""
    there = next(p for p in (root, *root.absolute().parents) if p.exists())
    if not os.access(there, os.W_OK):
        raise BadInput(f"root={root} cannot be written: choose another, such as root=~/advanchor.")
    if shutil.disk_usage(there).free < FREE:
        raise BadInput(f"there is no space left where root={root} is: free some, or choose another.")
