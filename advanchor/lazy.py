"""torch, imported when it is first used: what only checks a config or reads results back does without.

    from advanchor.lazy import F, torch

A type checker sees the modules themselves. What would use one of them while a module is imported (a decorator, a base
class) has no place in an option's module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["F", "torch"]

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
else:

    class Lazy:
        """A module that is imported by the first look at one of its names."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module(self._name), name)

    torch, F = Lazy("torch"), Lazy("torch.nn.functional")
