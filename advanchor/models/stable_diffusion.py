"""The models there are: a Stable Diffusion 1.x or 2.x in a local folder, and a tiny random one. Checked here without
torch; loaded, they are a `LatentDiffusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from advanchor import hub
from advanchor.core import BadInput, option
from advanchor.models import layout
from advanchor.models.spaces import Predicts

if TYPE_CHECKING:
    from advanchor.models.latent_diffusion import LatentDiffusion

Autocast = Literal["none", "bfloat16", "float16"]


@option("model")
class StableDiffusion:
    """A local folder in the diffusers layout with Stable Diffusion 1.x's or 2.x's architecture, which predicts epsilon
    or v.

    Attributes:
        path: the folder, or a repository of the hub, org/name or org/name@revision, which `check` fetches; "bundled" is
            the emoji model that ships with the package.
        autocast: precision of the U-Net's forward pass; guidance, scheduler, VAE, weights, anchors and optimisers stay
            float32.
        version: raised when the weights behind `path` change, so that old results are not mistaken for new ones.
    """

    name: str
    path: str | None
    autocast: Autocast = "none"
    version: int = 1

    def folder(self) -> Path:
        """Absolute: `m`, `./m` and `/here/m` are one model.

        Raises:
            BadInput: no path is set.
        """
        if not self.path:
            raise BadInput(
                f"model={self.name} needs weights in the diffusers layout: add model.path=<folder with "
                "model_index.json>, or a repository of the hub, org/name@revision."
            )
        return hub.place(self.path)

    def check(self) -> None:
        """Raise BadInput if the folder is not a whole Stable Diffusion 1.x or 2.x, from its configs and the headers of
        its weights: nothing is loaded.
        """
        try:
            layout.check(self.folder())
        except BadInput:
            if hub.repository(str(self.path)) is None:
                raise
            hub.fetch(str(self.path))
            layout.check(self.folder())

    def files(self) -> list[Path]:
        """Every file that `open` reads, sorted: what the model is made of.

        Raises:
            BadInput: as `check`.
        """
        self.check()
        return layout.files(self.folder())

    def open(self, device: str) -> LatentDiffusion:
        """Load the folder on a device, as float32.

        Raises:
            BadInput: as `check`; or the tensors are not those of the configs.
        """
        import advanchor.torchvision_ops  # noqa: F401, I001  (before diffusers)
        import diffusers
        import torch
        from transformers import CLIPTextModel, CLIPTokenizer
        from transformers.utils import logging as transformers_logging

        from advanchor.models.latent_diffusion import LatentDiffusion

        self.check()
        root = self.folder()
        scheduler = layout.scheduler(root)
        transformers_logging.disable_progress_bar()  # loading takes a second; its bar would outlast ours

        def network(cls: Any, part: str) -> Any:
            """A network in which every tensor comes from the file, and every tensor of the file has its place."""
            variant = {"variant": "fp16"} if ".fp16." in layout.weights(root / part).name else {}
            # low_cpu_mem_usage needs one more package
            settings = variant if cls is CLIPTextModel else {"low_cpu_mem_usage": False, **variant}
            net, found = loaded(
                root / part,
                lambda: cls.from_pretrained(
                    root / part,
                    dtype=torch.float32,
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    **settings,
                ),
            )
            missing, misfit = sorted(found["missing_keys"]), sorted(str(one[0]) for one in found["mismatched_keys"])
            # position_ids are a buffer that older versions saved
            foreign = sorted(name for name in found["unexpected_keys"] if not name.endswith("position_ids"))
            for what, names in (("lack", missing), ("have another shape for", misfit), ("hold", foreign)):
                if names:
                    more = f" and {len(names) - 1} more" if names[1:] else ""
                    raise BadInput(
                        f"{layout.weights(root / part)} and config.json are not of one network (the weights {what} "
                        f"{names[0]}{more}): copy {root / part} anew, both files from one model."
                    )
            return net

        tokenizer = loaded(
            root / "tokenizer", lambda: CLIPTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
        )
        with quiet():
            text_encoder = network(CLIPTextModel, "text_encoder")
            if len(tokenizer) > text_encoder.config.vocab_size:
                raise BadInput(
                    f"{root / 'tokenizer'} has {len(tokenizer)} tokens and the text encoder "
                    f"{text_encoder.config.vocab_size}: copy both folders anew, from one model."
                )
            chosen, where = getattr(diffusers, scheduler), root / "scheduler"
            pipe = diffusers.StableDiffusionPipeline(
                vae=network(diffusers.AutoencoderKL, "vae"),
                text_encoder=text_encoder,
                tokenizer=tokenizer,
                unet=network(diffusers.UNet2DConditionModel, "unet"),
                scheduler=loaded(where, lambda: chosen.from_pretrained(where, local_files_only=True)),
                safety_checker=None,
                feature_extractor=None,
                image_encoder=None,
                requires_safety_checker=False,
            )
        model = LatentDiffusion(self.name, pipe, device, self.autocast)
        model.made_by = __name__  # what it is depends on how it was put together, too
        return model


def loaded(part: Path, load: Callable[[], Any]) -> Any:
    """What a library makes of one part of a folder, or one sentence: the libraries raise whatever they meet."""
    try:
        return load()
    except Exception as error:
        raise BadInput(
            f"{part} cannot be loaded ({' '.join(str(error).split())[:200]}): "
            "copy it anew from where the model came from."
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, the libraries do not print what we say in our own words."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = [(library, library.get_verbosity()) for library in (diffusers_logging, transformers_logging)]
    try:
        for library, _ in before:
            library.set_verbosity_error()
        yield
    finally:
        for library, verbosity in before:
            library.set_verbosity(verbosity)


@option("model")
class Random:
    """A tiny Stable Diffusion with random weights and the emoji tokenizer: draws noise, costs nothing. For tests.

    Attributes:
        predicts: what its output is taken for.
    """

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    predicts: Predicts = "epsilon"
    version: int = 1

    def check(self) -> None:
        """Nothing can be missing."""

    def files(self) -> list[Path]:
        """The tokenizer's; the weights come from the seed."""
        return sorted((hub.ASSETS / "emoji/tokenizer").iterdir())

    def open(self, device: str) -> LatentDiffusion:
        import advanchor.torchvision_ops  # noqa: F401, I001  (before diffusers)
        import torch
        from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

        from advanchor.models.latent_diffusion import LatentDiffusion

        tokenizer = CLIPTokenizer.from_pretrained(hub.ASSETS / "emoji/tokenizer")
        ids = {f"{k}_token_id": getattr(tokenizer, f"{k}_token_id") for k in ("bos", "eos", "pad")}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            vae = AutoencoderKL(
                sample_size=32,
                block_out_channels=(8, 16, 16),
                down_block_types=("DownEncoderBlock2D",) * 3,
                up_block_types=("UpDecoderBlock2D",) * 3,
                mid_block_add_attention=False,
                layers_per_block=1,
                latent_channels=4,
                norm_num_groups=4,
            )
            words = CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=tokenizer.model_max_length,
                **ids,
            )
            text_encoder = CLIPTextModel(words)
            unet = UNet2DConditionModel(
                sample_size=8,
                in_channels=4,
                out_channels=4,
                block_out_channels=(16, 32),
                down_block_types=("CrossAttnDownBlock2D",) * 2,
                up_block_types=("CrossAttnUpBlock2D",) * 2,
                layers_per_block=1,
                norm_num_groups=4,
                cross_attention_dim=32,
                attention_head_dim=2,
            )
        scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=self.predicts,
        )
        pipe = StableDiffusionPipeline(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
        )
        model = LatentDiffusion(self.name, pipe, device, "none")
        model.made_by = __name__
        return model
