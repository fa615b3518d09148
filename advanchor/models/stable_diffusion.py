"""A Stable Diffusion or FLUX as people have it. Checked without torch; loaded, it is a `LatentDiffusion`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from advanchor import hub
from advanchor.core import BadInput, Need, option
from advanchor.machine import NOTHING_SPARED, Lean
from advanchor.models import layout, single_file
from advanchor.models.spaces import Predicts

if TYPE_CHECKING:
    from advanchor.models.latent_diffusion import LatentDiffusion

Autocast = Literal["none", "bfloat16", "float16"]
Dtype = Literal["float32", "bfloat16", "float16"]


@option("model")
class StableDiffusion:
    """Weights in the diffusers layout, of Stable Diffusion 1.x, 2.x, XL or 3, or FLUX; what is predicted, epsilon or v,
    is read from its scheduler's config.

    Attributes:
        path: the folder; one .safetensors file in the layout of the first releases; or a repository of the hub,
            org/name or org/name@revision, which `check` fetches. "bundled" and "bundled_flow" ship with the
            package.
        dtype: of the weights of denoiser and text encoders. What learns, its optimiser, anchors, guidance, scheduler
            and VAE are float32 in any case (precision.py).
        autocast: precision of the denoiser's forward pass over weights in float32.
        predicts: what the network predicts, which a single file does not say; of a folder it must be what its configs
            say, if it is set.
        distilled: the scale of guidance that a guidance-distilled model (FLUX.1 dev) is told, in erasing as in drawing;
            other models are told none. Beside it sample.guidance is classifier-free guidance, as in every model.
        version: raised when the weights behind `path` change, so that old results are not mistaken for new ones.
    """

    name: str
    path: str | None
    dtype: Dtype = "float32"
    autocast: Autocast = "none"
    predicts: Predicts | None = None
    distilled: Annotated[float, Field(ge=1, le=100)] | None = None
    version: int = 1

    def __post_init__(self) -> None:
        if self.dtype != "float32" and self.autocast != "none":
            raise ValueError(
                f"autocast={self.autocast} is for weights in float32: leave it, or dtype={self.dtype}, out"
            )

    def folder(self) -> Path:
        """Absolute: `m`, `./m` and `/here/m` are one model.

        Raises:
            BadInput: no path is set.
        """
        if not self.path:
            raise BadInput(
                f"model={self.name} needs weights in the diffusers layout: add model.path=<folder with "
                "model_index.json>, a .safetensors file, or a repository of the hub, org/name@revision."
            )
        return hub.place(self.path)

    @property
    def offers(self) -> set[Need]:
        """See core.py. Of a repository the configs are fetched if need be.

        Raises:
            BadInput: as `check`, of anything but the weights.
        """
        if (root := self.folder()).is_file():
            made = layout.FAMILIES[single_file.architecture(root).pipeline]
            return made.offers(single_file.predicted(root, self.predicts))
        self._settle(False)
        return layout.family(self.folder()).offers(layout.predicted(self.folder()))

    def check(self) -> None:
        """Raise BadInput if it is not a whole model, from its configs and the headers of its weights: nothing is
        loaded. Of a repository that is not in the hub's cache the configs are fetched first, and the weights if they
        will do.
        """
        if (root := self.folder()).is_file():
            single_file.predicted(root, self.predicts)
            self._told(False)
            return
        self._settle(False)
        if self.predicts not in (None, said := layout.predicted(self.folder())):
            raise BadInput(
                f"{self.folder()} predicts {said}, and model.predicts={self.predicts}: take the model= that it is, or "
                "model.predicts=null."
            )
        self._told(layout.distilled(self.folder()))
        self._settle(True)

    def _settle(self, weights: bool) -> None:
        """Raise BadInput if the configs, or these and the weights, will not do; what a repository lacks is fetched."""
        suits = layout.check if weights else layout.settled
        try:
            suits(self.folder())
        except BadInput:
            if hub.repository(str(self.path)) is None:
                raise
            hub.fetch(str(self.path), weights)
            suits(self.folder())

    def _told(self, wants: bool) -> None:
        """Raise BadInput unless a scale of guidance is set where the model `wants` one, and none where it does not."""
        if wants and self.distilled is None:
            raise BadInput(f"{self.folder()} is guidance-distilled: set model.distilled to the scale it is told, 3.5.")
        if self.distilled is not None and not wants:
            raise BadInput(
                f"{self.folder()} is not guidance-distilled, and model.distilled={self.distilled:g}: set it to null."
            )

    def files(self) -> list[Path]:
        """Every file that `open` reads, sorted: what the model is made of.

        Raises:
            BadInput: as `check`.
        """
        self.check()
        return [root] if (root := self.folder()).is_file() else layout.files(root)

    def open(self, device: str, lean: Lean = NOTHING_SPARED) -> LatentDiffusion:
        """Load the folder on a device.

        Raises:
            BadInput: as `check`; or the tensors are not those of the configs.
        """
        from advanchor.models.latent_diffusion import LatentDiffusion
        from advanchor.models.loading import pipeline

        self.check()
        root = self.folder()
        single = root.is_file()
        pipe = single_file.pipeline(root, self.predicts, self.dtype) if single else pipeline(root, self.dtype)
        model = LatentDiffusion(self.name, pipe, device, self.autocast, self.distilled, lean)
        model.made_by = __name__  # what it is depends on how it was put together, too
        return model
