"""The control for AdvAnchor: does the direction of the perturbation matter, or only its size?"""

from __future__ import annotations

from advanchor.anchors.adversarial import Adversarial
from advanchor.anchors.search import Search
from advanchor.concept import Concept
from advanchor.core import option
from advanchor.lazy import torch
from advanchor.protocols import Model


@option("anchor")
class Noise(Adversarial):
    """An isotropic perturbation of the concept's tokens that has, at every step, the norm of the adversarial one found
    by the same search.

    The search runs as for `Adversarial`, with its settings; handed out is |delta| in a random direction, drawn once
    from the seed.
    """

    def start(self, model: Model, concept: Concept, seed: int) -> Search:
        search = Adversarial.start(self, model, concept, seed)
        slot = self.slot(model, concept)
        direction = torch.randn(search.parameter.shape, generator=torch.Generator().manual_seed(seed + 1)).to(
            model.device
        )
        if self.sentence:
            direction[-1, model.pooled :] = 0  # which is padding
        direction /= direction.norm()
        search.shown = lambda templates: slot.encode(templates, search.parameter.norm() * direction, self.place)
        return search
