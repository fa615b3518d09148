"""Overrides in, checked configs out; Hydra's composition errors become one sentence that says what to do.

Overrides are those of the command line, such as "concept=emoji/fox". One of them is not Hydra's: `config_dir=mine` adds
a user's own folder of configs, laid out like conf/, to every composition; `advanchor --config-dir=mine` is the same.
"""

from advanchor.compose.checked import compose
from advanchor.compose.composed import composed
from advanchor.compose.options import CONF, groups, names
from advanchor.compose.overrides import read
from advanchor.compose.sweeps import by_itself, compose_all, expand, folders, launching, validate

__all__ = [
    "CONF",
    "by_itself",
    "compose",
    "compose_all",
    "composed",
    "expand",
    "folders",
    "groups",
    "launching",
    "names",
    "read",
    "validate",
]
