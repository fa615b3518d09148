"""What one optimisation step looks at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from advanchor.concept import Concept, fill
from advanchor.core import Model


class Step:
    """Noised latents of the concept and the sentences they were drawn for.

    x: (b, 4, h, w); t: (b,) in 0..T-1; templates: b sentences with `{}`; noise: what x was noised with, if it was. The frozen model's predictions are computed once
    per step, however many anchor updates look at them.
    """

    def __init__(self, model: Model, concept: Concept, x: Tensor, t: Tensor, templates: Sequence[str], noise: Tensor | None = None) -> None:
        self.model, self.concept, self.x, self.t, self.templates, self.noise = model, concept, x, t, tuple(templates), noise
        self._frozen: dict[str, Tensor] = {}

    def texts(self, phrase: str) -> list[str]:
        return [fill(template, "", phrase) for template in self.templates]

    def frozen(self, phrase: str) -> Tensor:
        """e0 at this step's x and t under its sentences filled with `phrase`: (b, 4, h, w), no gradient."""
        if phrase not in self._frozen:
            with torch.no_grad():
                self._frozen[phrase] = self.model.eps(self.x, self.t, self.model.encode(self.texts(phrase)))
        return self._frozen[phrase]
