"""How far must the weights go back to the unedited ones until the concept is there again?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from advanchor.attacks.shots import Asked, Shots, Victim, at_doses
from advanchor.core import option
from advanchor.lazy import torch
from advanchor.prompts import Prompt
from advanchor.protocols import Edit

if TYPE_CHECKING:
    from torch import Tensor

Dose = Annotated[float, Field(ge=0, le=1)]


@option("attack")
class Interpolate(Asked):
    """The weights on the straight line from the attacked network (dose 0) to the unedited one (dose 1), as weight
    interpolation has it (Wortsman et al. 2022, WiSE-FT, arXiv 2109.01903). No attack: who has the unedited weights
    needs none. It says how deep an erasure is: near 0, if a little of the way back brings the concept.

    `half` and `area` are its scores; what is found at the last dose says nothing about the method if that is near 1.
    `never` is not for it: the end of the line knows the concept whoever begins it.

    Attributes:
        doses: how far back.
    """

    access: ClassVar[str] = "weights, unedited too"
    doses: Annotated[tuple[Dose, ...], Field(min_length=1)]

    def shots(self, victim: Victim, prompts: Sequence[Prompt]) -> Shots:
        return at_doses(prompts, {s: back(victim, s) for s in sorted(set(self.doses))})


def back(victim: Victim, s: float) -> Edit:
    """The edit of which s is undone, exactly so at 0 and at 1.

    Of tensors that take a parameter's place, theta + s (theta0 - theta). Low-rank factors and added networks are added
    to what was there, so 1 - s of what they add is left: the last factor, the last layer carry it. A negative prompt's
    embedding goes to that of the empty prompt, whose place it has. Safe Latent Diffusion is a rule, not weights: its
    scale goes to 0, where it does nothing, but its mask and its clipping make that no straight line.
    """
    own = victim.model.weights("full") | victim.model.weights("text_encoder")

    def left(name: str, tensor: Tensor) -> Tensor:
        if name in own:
            return torch.lerp(tensor, own[name].detach(), s)
        if name == "guidance.negative":
            return torch.lerp(tensor, victim.model.encode([""])[0], s)
        if name == "guidance.rule":
            return torch.cat([(1 - s) * tensor[:1], tensor[1:]])
        adds = (name.startswith("lowrank.") and name.endswith(".up")) or (name.startswith("eraser.") and ".up." in name)
        return (1 - s) * tensor if adds else tensor

    return {name: left(name, tensor) for name, tensor in victim.edit.items()}
