"""Stable Diffusion seen through what erasing needs. The only code that touches a diffusers pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

import advanchor.torchvision_ops  # noqa: F401  (before diffusers)
from advanchor.concept import Prompt
from advanchor.core import BadInput, Edit, option
from advanchor.edits import erasers, parameters, part, safety

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from PIL.Image import Image

ASSETS = Path(__file__).parent / "assets"
SCOPES: dict[str, Callable[[str], bool]] = {
    "attn2": lambda name: ".attn2." in name,
    "attn2.kv": lambda name: ".attn2.to_k." in name or ".attn2.to_v." in name,
    "noxattn": lambda name: ".attn2." not in name,
    "full": lambda name: True,
    "transformers": lambda name: ".attentions." in name,
}
Autocast = Literal["none", "bfloat16", "float16"]


@option("model")
class StableDiffusion:
    """A local folder in the diffusers layout, Stable Diffusion 1.x architecture, epsilon prediction.

    Attributes:
        path: the folder; "bundled" is the emoji model that ships with the package.
        autocast: precision of the U-Net's forward pass; weights, anchors and optimisers stay float32.
        version: raised when the weights behind `path` change, so that old results are not mistaken for new ones.
    """

    name: str
    path: str | None
    autocast: Autocast = "none"
    version: int = 1

    def folder(self) -> Path:
        return ASSETS / "emoji" if self.path == "bundled" else Path(self.path or "").expanduser()

    def check(self) -> None:
        """Raise BadInput if the folder is not there, without loading anything."""
        if self.path is None:
            raise BadInput(f"model={self.name} needs a local folder in the diffusers layout: add model.path=<folder with model_index.json>.")
        if not (self.folder() / "model_index.json").is_file():
            raise BadInput(f"{self.folder()} is not a diffusers pipeline (no model_index.json in it): set model.path to a local Stable Diffusion 1.x folder.")

    def open(self, device: str) -> LatentDiffusion:
        import diffusers
        import transformers
        from diffusers import StableDiffusionPipeline

        diffusers.utils.logging.disable_progress_bar()  # loading takes a second; its bars would outlast ours
        transformers.utils.logging.disable_progress_bar()
        self.check()
        pipe = StableDiffusionPipeline.from_pretrained(
            str(self.folder()), dtype=torch.float32, safety_checker=None, requires_safety_checker=False, local_files_only=True,
            low_cpu_mem_usage=False,  # True needs one more package
        )  # fmt: skip
        if pipe.scheduler.config.get("prediction_type", "epsilon") != "epsilon":
            raise BadInput(f"{self.folder()} predicts {pipe.scheduler.config.prediction_type}, and only epsilon prediction is supported: use an SD 1.x folder.")
        return LatentDiffusion(self.name, pipe, device, self.autocast)


@option("model")
class Random:
    """A tiny Stable Diffusion with random weights and the emoji tokenizer: draws noise, costs nothing. For tests."""

    name: str
    seed: int = 0
    version: int = 1

    def check(self) -> None:
        """Nothing can be missing."""

    def open(self, device: str) -> LatentDiffusion:
        from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(ASSETS / "emoji/tokenizer")
        ids = {f"{k}_token_id": getattr(tokenizer, f"{k}_token_id") for k in ("bos", "eos", "pad")}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            pipe = StableDiffusionPipeline(
                vae=AutoencoderKL(
                    block_out_channels=(8, 16, 16), norm_num_groups=4, latent_channels=4, layers_per_block=1, sample_size=32,
                    down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, mid_block_add_attention=False,
                ),
                text_encoder=CLIPTextModel(
                    CLIPTextConfig(
                        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                        max_position_embeddings=tokenizer.model_max_length, **ids,
                    )
                ),
                tokenizer=tokenizer,
                unet=UNet2DConditionModel(
                    sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
                    down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2, cross_attention_dim=32, attention_head_dim=2,
                ),
                scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
                safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False,
            )  # fmt: skip
        return LatentDiffusion(self.name, pipe, device, "none")


class LatentDiffusion:
    """A loaded pipeline: frozen weights, one U-Net in memory. Shapes: b batch, L tokens, d text width, h x w latent."""

    def __init__(self, name: str, pipe: StableDiffusionPipeline, device: str, autocast: Autocast) -> None:
        pipe.set_progress_bar_config(disable=True)
        self.name, self.pipe, self.device = name, pipe.to(device), torch.device(device)
        self.unet: Any = pipe.unet
        self.text_encoder, self.tokenizer = pipe.text_encoder, pipe.tokenizer
        for network in (self.unet, self.text_encoder, pipe.vae):
            network.eval().requires_grad_(False)
        self.length = self.tokenizer.model_max_length
        self.pixels: int = self.unet.config.sample_size * pipe.vae_scale_factor
        self.timesteps: int = pipe.scheduler.config.num_train_timesteps
        self._alphas = pipe.scheduler.alphas_cumprod.to(self.device)
        self._autocast = autocast
        self.shelf: Path | None = None
        self._embeddings: dict[str, Tensor] = {}
        self._guidance: dict[str, Tensor] = {}
        self._frozen = dict(self.unet.named_parameters())

    def encode(self, texts: Sequence[str], delta: Tensor | None = None, spans: Sequence[Sequence[int]] = (), weights: Edit | None = None) -> Tensor:
        """Text embeddings (b, L, d), with a gradient to `delta` and `weights` only.

        Args:
            delta: (s, d), added to the encoder's *input* at each text's `spans` (b lists of s positions).
            weights: an edit; what it holds of the text encoder takes the place of the frozen tensors.
        """
        if text_weights := part(weights or {}, "text_encoder."):
            return torch.func.functional_call(self.text_encoder, text_weights, (self._ids(texts),))[0]
        if delta is None:
            return torch.stack([self._embed(text) for text in texts])
        ids = self._ids(texts)

        def shift(module: torch.nn.Module, args: Any, out: Tensor) -> Tensor:
            return add_at(out, delta, spans)

        hook = self.text_encoder.get_input_embeddings().register_forward_hook(shift)
        try:
            return self.text_encoder(ids)[0]
        finally:
            hook.remove()

    @torch.no_grad()
    def _embed(self, text: str) -> Tensor:
        """(L, d). The encoder is frozen and every sentence comes back thousands of times; encoded alone, it cannot depend on its batch."""
        if text not in self._embeddings:
            if len(self._embeddings) >= 512:
                self._embeddings.clear()
            self._embeddings[text] = self.text_encoder(self._ids([text]))[0][0]
        return self._embeddings[text]

    def _ids(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(list(texts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt").input_ids.to(self.device)

    def end(self, text: str) -> int:
        """Position of the end token, at which the text encoder's output is the embedding of the whole sentence."""
        return len(self.tokenizer(text, truncation=True, max_length=self.length).input_ids) - 1

    def span(self, text: str, words: str) -> list[int]:
        """Positions of all BPE pieces of `words` in the encoded text, counted with the start token.

        Raises:
            BadInput: the words are not in the text, or stand behind the tokenizer's limit.
        """
        whole, part = (self.tokenizer(t, truncation=True, max_length=self.length).input_ids for t in (text, words))
        part = part[1:-1]
        for i in range(len(whole) - len(part) + 1):
            if whole[i : i + len(part)] == part:
                return list(range(i, i + len(part)))
        raise BadInput(f"the words '{words}' are not among the first {self.length} tokens of '{text}': correct the concept's name, phrase or templates.")

    def eps(self, x: Tensor, t: Tensor, cond: Tensor, weights: Edit | None = None, seen: list[Tensor] | None = None) -> Tensor:
        """Predicted noise (b, 4, h, w) for x (b, 4, h, w), t (b,), cond (b, L, d) under the U-Net part of an edit; its erasers' outputs are appended to `seen`."""
        precision: AbstractContextManager[Any] = nullcontext()
        if self._autocast != "none":
            precision = torch.autocast(self.device.type, dtype=getattr(torch, self._autocast))
        with precision:
            if weights is None:
                return self.unet(x, t, cond).sample.float()
            with erasers(self.unet, weights, seen):
                return torch.func.functional_call(self.unet, parameters(weights, self._frozen), (x, t, cond)).sample.float()

    def attention(self, x: Tensor, t: Tensor, cond: Tensor, weights: Edit | None = None) -> list[Tensor]:
        """Cross-attention probabilities at (x, t), one (b, heads, pixels, L) for each layer, differentiable in `weights`."""
        seen: list[Tensor] = []

        def watched(attn: Any, states: Tensor, encoder_hidden_states: Tensor, **ignored: Any) -> Tensor:
            q, k, v = (z.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for z in (attn.to_q(states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)))
            seen.append((attn.scale * q @ k.transpose(-1, -2)).softmax(-1))
            return attn.to_out[0]((seen[-1] @ v).transpose(1, 2).flatten(2))

        before = self.unet.attn_processors
        self.unet.set_attn_processor({name: watched if ".attn2." in name else p for name, p in before.items()})
        try:
            self.eps(x, t, cond, weights)
        finally:
            self.unet.set_attn_processor(before)
        return seen

    def weights(self, scope: str) -> dict[str, Tensor]:
        """The frozen parameters of a scope, by the names that they have in an edit.

        Raises:
            BadInput: no such scope.
        """
        if scope == "text_encoder":
            return {f"text_encoder.{name}": p for name, p in self.text_encoder.named_parameters()}
        if scope not in SCOPES:
            raise BadInput(f"unknown scope '{scope}': choose one of {', '.join(SCOPES)}, text_encoder.")
        return {name: p for name, p in self._frozen.items() if SCOPES[scope](name)}

    @contextmanager
    def edited(self, edit: Edit) -> Iterator[None]:
        """Inside, the model is the edited one (edits.py says what that can be); afterwards its own again, bit for bit."""
        edit = {name: tensor.to(self.device) for name, tensor in edit.items()}
        text = part(edit, "text_encoder.")
        swaps = [(self._frozen[name], tensor) for name, tensor in parameters(edit, self._frozen).items()]
        swaps += [(self.text_encoder.get_parameter(name), tensor) for name, tensor in text.items()]
        before = [own.detach().clone() for own, _ in swaps]
        try:
            self._guidance = part(edit, "guidance.")
            if text:
                self._embeddings.clear()
            with torch.no_grad():
                for own, tensor in swaps:
                    own.copy_(tensor)
            with erasers(self.unet, edit):
                yield
        finally:
            self._guidance = {}
            if text:
                self._embeddings.clear()
            with torch.no_grad():
                for (own, _), tensor in zip(swaps, before, strict=True):
                    own.copy_(tensor)

    def noised(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """z_t = sqrt(a_t) z + sqrt(1 - a_t) noise."""
        a = self._alphas[t].view(-1, 1, 1, 1)
        return a.sqrt() * z + (1 - a).sqrt() * noise

    def latents(self, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, cond: Tensor | None = None) -> Tensor:
        """Denoised latents (b, 4, h, w), scaled as the U-Net sees them; under `cond` (b, L, d) if given."""
        return self._sample(texts, seeds, steps, guidance, "latent", cond)

    def draw(self, prompts: Sequence[Prompt], *, steps: int, guidance: float, scheduler: str = "own", cond: Tensor | None = None) -> list[Image]:
        """One image per prompt, under `cond` (b, L, d) if given. An image depends on its text, seed and condition alone, not on what is drawn beside it.

        Args:
            scheduler: own, the model's; ddim; or lms (linear multistep of order 4, from k-diffusion), its timesteps spread evenly from the last to 0 as in AdvAnchor's
                released evaluation.
        """
        import diffusers

        own = self.pipe.scheduler
        if scheduler == "ddim":
            self.pipe.scheduler = diffusers.DDIMScheduler.from_config(own.config)
        if scheduler == "lms":
            self.pipe.scheduler = diffusers.LMSDiscreteScheduler.from_config(own.config, timestep_spacing="linspace")
        try:
            return self._sample([p.text for p in prompts], [p.seed for p in prompts], steps, guidance, "pil", cond)
        finally:
            self.pipe.scheduler = own  # methods learn from the model's own trajectories

    @torch.no_grad()
    def trajectory(self, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, until: int | None = None) -> tuple[Tensor, Tensor]:
        """One sampling run: x before each step (b, n, 4, h, w) and the steps' t (n,), both in the order of sampling; with `until` no further than that step."""
        seen: list[Tensor] = []

        def keep(pipe: Any, i: int, t: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
            seen.append(values["latents"].clone())
            pipe._interrupt = until is not None and i + 1 >= until  # diffusers' own way to stop early
            return values

        start = self._noise(texts, seeds) * self.pipe.scheduler.init_noise_sigma
        if until != 0:
            self._sample(texts, seeds, steps, guidance, "latent", each=keep)
        else:
            self.pipe.scheduler.set_timesteps(steps)
        x = torch.stack([start, *seen], 1)
        n = min(x.shape[1], len(self.pipe.scheduler.timesteps))
        return x[:, :n], self.pipe.scheduler.timesteps[:n].to(self.device)

    def _noise(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        side = self.unet.config.sample_size
        shape = (self.unet.config.in_channels, side, side)
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(image_seed(t, s))) for t, s in zip(texts, seeds, strict=True)]).to(self.device)

    @torch.no_grad()
    def _sample(self, texts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float, output: str, cond: Tensor | None = None, each: Any = None) -> Any:
        cond, empty = self.encode(texts) if cond is None else cond.to(self.device), self.encode([""] * len(texts))
        if "negative" in self._guidance:
            empty = self._guidance["negative"].expand_as(empty)
        precision: AbstractContextManager[Any] = nullcontext()
        if self._autocast != "none":
            precision = torch.autocast(self.device.type, dtype=getattr(torch, self._autocast))
        with precision, safety(self.unet, self._guidance, steps, guidance):
            return self.pipe(
                prompt_embeds=cond,
                negative_prompt_embeds=empty,
                latents=self._noise(texts, seeds),
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type=output,
                callback_on_step_end=each,
            ).images


def image_seed(text: str, seed: int) -> int:
    """A 63-bit seed from the prompt and its number, the same on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(f"{text}\n{seed}".encode()).digest()[:8], "big") >> 1


def add_at(embeddings: Tensor, delta: Tensor, spans: Sequence[Sequence[int]]) -> Tensor:
    """embeddings (b, L, d) with delta (s, d) added at each row's s positions, or at each s of a multiple of them."""
    placed = torch.zeros_like(embeddings)
    rows = torch.tensor([row for row, span in enumerate(spans) for _ in span])
    columns = torch.tensor([p for span in spans for p in span])
    each = delta.repeat(len(rows) // len(delta), 1).to(placed.dtype)
    return embeddings + placed.index_put((rows.to(placed.device), columns.to(placed.device)), each)
