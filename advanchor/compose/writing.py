"""How values and overrides are written: in a config, in Hydra's grammar, in a shell."""

from __future__ import annotations

import re
import shlex


def quoted(text: str) -> str:
    """A text as Hydra's grammar takes any."""
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + found[2].replace('"', '\\"'), text) + '"'


def shell(word: str) -> str:
    """A word as a shell takes it, in whichever quotes are easier to read."""
    double = "'" in word and not re.search(r"[$`\\!]", word)
    return '"' + word.replace('"', '\\"') + '"' if double else shlex.quote(word)
