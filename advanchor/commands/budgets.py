"""The order of a sweep over `method.steps`: the runs of one training stand together, the shortest first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, open_dict

from advanchor.identity import trained_as


def ascending(configs: Sequence[DictConfig], done: Sequence[bool]) -> list[int]:
    """The places of a sweep's runs in the order in which to make them; one goes on from what the one before has kept.

    Runs that differ from no other in `method.steps` alone stay where they are. Of the others each is told how many
    steps its kind has yet to come (`longest`), unless the command says so itself.

    Args:
        done: which of them are complete.
    """
    order = list(range(len(configs)))
    steps = [int(cfg.method.get("steps", 0)) for cfg in configs]
    if len(set(steps)) < 2:
        return order
    kinds: dict[str, list[int]] = {}
    for i, cfg in enumerate(configs):
        kinds.setdefault(trained_as(cfg, Path(cfg.root) / "store" / "weights.json"), []).append(i)
    places = {i: (i, 0) for i in order}
    for several in kinds.values():
        if len({steps[i] for i in several}) > 1:
            places |= {i: (several[0], steps[i]) for i in several}
            longest = max((steps[i] for i in several if not done[i]), default=0)
            for cfg in (configs[i] for i in several if configs[i].get("longest") is None):
                with open_dict(cfg):
                    cfg.longest = longest
    return sorted(order, key=lambda i: places[i])
