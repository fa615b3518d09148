"""Hydra itself, told where options are."""

from __future__ import annotations

from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from advanchor.compose.options import CONF, own_folders
from advanchor.compose.writing import quoted
from advanchor.core import BadInput


def hydras(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra knows them: a user's folder is a search path, and there is no other (Hydra imports what
    `pkg://` names).

    Raises:
        BadInput: one of them sets the search path; or as `own`.
    """
    if by_hand := [o for o in overrides if o.lstrip("+~").startswith("hydra.searchpath")]:
        raise BadInput(f"{by_hand[0]} is not for a command to set: --config-dir=<folder> adds a folder of configs.")
    path = [f"hydra.searchpath=[{quoted(f'file://{folder}')}]" for folder in own_folders(overrides)]
    return [*path, *(o for o in overrides if not o.startswith("config_dir="))]


def by_hydra(overrides: Sequence[str]) -> DictConfig:
    """What Hydra makes of overrides, its own node included. A tenth of a second.

    Raises:
        BadInput: as `hydras`. Whatever Hydra raises is left as it is.
    """
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        return hydra.compose("config", hydras(overrides), return_hydra_config=True)
