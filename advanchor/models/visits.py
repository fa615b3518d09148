"""Networks that are off the device while nobody needs them: text encoders and VAE, of which large models have more than
a denoiser leaves room for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Visits:
    """Where networks are: the denoiser on the device for good, others there or on the CPU.

    Args:
        off: others are kept on the CPU, and are on the device for as long as they are needed.
    """

    def __init__(self, device: torch.device, off: bool) -> None:
        self.device, self.off = device, off
        self.away: list[Any] = []

    def settle(self, denoiser: Any, others: Iterable[Any]) -> None:
        """Put each network in its place."""
        denoiser.to(self.device)
        for network in others:
            network.to("cpu" if self.off else self.device)
            self.away += [network] if self.off else []

    @contextmanager
    def here(self, networks: Iterable[Any], stay: bool = False) -> Iterator[None]:
        """Inside, these are on the device.

        Args:
            stay: for good. A network that a gradient has gone through must be there when it comes back.
        """
        guests = [one for one in networks if any(one is other for other in self.away)]
        for one in guests:
            one.to(self.device)
        if stay:
            self.away = [one for one in self.away if not any(one is guest for guest in guests)]
            guests = []
        try:
            yield
        finally:
            for one in guests:
                one.to("cpu")
