"""A loaded Stable Diffusion seen through what erasing needs. The only code that touches a diffusers pipeline."""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import advanchor.torchvision_ops  # noqa: F401  (before diffusers)
from advanchor.core import BadInput
from advanchor.models.edits import erasers, parameters, part, safety
from advanchor.prompts import Prompt
from advanchor.protocols import Edit

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from PIL.Image import Image

SCOPES: dict[str, Callable[[str], bool]] = {
    "attn2": lambda name: ".attn2." in name,
    "attn2.kv": lambda name: ".attn2.to_k." in name or ".attn2.to_v." in name,
    "noxattn": lambda name: ".attn2." not in name,
    "full": lambda name: True,
    "transformers": lambda name: ".attentions." in name,
}
AT_ONCE = (
    4 * 512 * 512
)  # pixels decoded together: the VAE's widest activation is 128 to 256 floats for each, about a gigabyte


class LatentDiffusion:
    """A loaded pipeline: frozen weights, one U-Net in memory. Shapes: b batch, L tokens, d text width, h x w latent."""

    def __init__(self, name: str, pipe: StableDiffusionPipeline, device: str, autocast: str) -> None:
        pipe.set_progress_bar_config(disable=True)
        self.name, self.pipe, self.device = name, pipe.to(device), torch.device(device)
        self.unet: Any = pipe.unet
        self.text_encoder, self.tokenizer = pipe.text_encoder, pipe.tokenizer
        for network in (self.unet, self.text_encoder, pipe.vae):
            network.eval().requires_grad_(False)
        self.length: int = min(
            self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings
        )  # a tokenizer need not know
        size = self.unet.config.sample_size
        self._side: int = size if isinstance(size, int) else size[0]
        self.pixels: int = self._side * pipe.vae_scale_factor
        self.timesteps: int = pipe.scheduler.config.num_train_timesteps
        self._alphas = pipe.scheduler.alphas_cumprod.to(self.device)
        self._autocast = autocast
        self.shelf: Path | None = None
        self.batch = 32
        self._embeddings: dict[str, Tensor] = {}
        self._guidance: dict[str, Tensor] = {}
        self._frozen = dict(self.unet.named_parameters())

    def encode(
        self,
        texts: Sequence[str],
        delta: Tensor | None = None,
        spans: Sequence[Sequence[int]] = (),
        weights: Edit | None = None,
    ) -> Tensor:
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
        """(L, d). The encoder is frozen and every sentence comes back thousands of times; encoded alone, once, it cannot depend on its batch on any machine."""
        if text not in self._embeddings:
            if len(self._embeddings) >= 512:
                self._embeddings.clear()
            self._embeddings[text] = self.text_encoder(self._ids([text]))[0][0]
        return self._embeddings[text]

    def _ids(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        ).input_ids.to(self.device)

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than the text encoder: what stands behind its last token is not drawn, and two of them can be the same picture."""
        return [text for text in texts if len(self._tokens(text)) > self.length]

    def _tokens(self, text: str) -> list[int]:
        """All of a text's tokens, start and end among them, however long."""
        return list(self.tokenizer(text, verbose=False).input_ids)

    def end(self, text: str) -> int:
        """Position of the end token, at which the text encoder's output is the embedding of the whole sentence."""
        return min(len(self._tokens(text)), self.length) - 1

    def span(self, text: str, words: str) -> list[int]:
        """Positions of all BPE pieces of `words` in the encoded text, counted with the start token.

        Raises:
            BadInput: the words are not in the text, or some of them are cut off behind the text encoder's last token.
        """
        whole, part = self._tokens(text)[:-1], self._tokens(words)[1:-1]
        for i in range(len(whole) - len(part) + 1):
            if part and whole[i : i + len(part)] == part:
                if i + len(part) > self.length - 1:  # the last place is the end token's
                    raise BadInput(
                        f"the words '{words}' are cut off: the text encoder reads {self.length} tokens, and '{text}' has {len(whole) + 1}: shorten it."
                    )
                return list(range(i, i + len(part)))
        raise BadInput(
            f"the words '{words}' are not among the tokens of '{text}': correct the concept's name, phrase or templates."
        )

    def eps(
        self, x: Tensor, t: Tensor, cond: Tensor, weights: Edit | None = None, seen: list[Tensor] | None = None
    ) -> Tensor:
        """Predicted noise (b, 4, h, w) for x (b, 4, h, w), t (b,), cond (b, L, d) under the U-Net part of an edit; its erasers' outputs are appended to `seen`."""
        with self._precision():
            if weights is None:
                return self.unet(x, t, cond).sample.float()
            with erasers(self.unet, weights, seen):
                return torch.func.functional_call(
                    self.unet, parameters(weights, self._frozen), (x, t, cond)
                ).sample.float()

    def _precision(self) -> AbstractContextManager[Any]:
        """Of the U-Net's forward pass; everything around it is float32."""
        return (
            nullcontext()
            if self._autocast == "none"
            else torch.autocast(self.device.type, dtype=getattr(torch, self._autocast))
        )

    def attention(self, x: Tensor, t: Tensor, cond: Tensor, weights: Edit | None = None) -> list[Tensor]:
        """Cross-attention probabilities at (x, t), one (b, heads, pixels, L) for each layer, differentiable in `weights`."""
        seen: list[Tensor] = []

        def watched(attn: Any, states: Tensor, encoder_hidden_states: Tensor, **ignored: Any) -> Tensor:
            q, k, v = (
                z.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
                for z in (attn.to_q(states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
            )
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
        """Inside, the model is the edited one (edits.py says what that can be); afterwards its own again, bit for bit.

        Raises:
            BadInput: the edit is not finite, or was made for another model.
        """
        edit = {name: tensor.to(self.device) for name, tensor in edit.items()}
        self._fits(edit)
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

    def _fits(self, edit: Edit) -> None:
        own = self._frozen | self.weights("text_encoder")
        for name, tensor in edit.items():
            if not torch.isfinite(tensor).all():
                raise BadInput(f"the edit is not finite ({name}): lower method.lr, and the anchor's if it learns.")
            kind, _, rest = name.partition(".")
            known = {  # what must be there for this part of an edit to act on
                "lowrank": rest.rpartition(".")[0] in own,
                "eraser": f"{rest.rsplit('.', 2)[0]}.to_q.weight" in own,
                "guidance": True,
            }
            if not known.get(kind, name in own and own[name].shape == tensor.shape):
                raise BadInput(
                    f"the edit was made for another model than {self.name}, which has no place for {name} of shape {tuple(tensor.shape)}: erase with this model."
                )

    def noised(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """z_t = sqrt(a_t) z + sqrt(1 - a_t) noise."""
        a = self._alphas[t].view(-1, 1, 1, 1)
        return a.sqrt() * z + (1 - a).sqrt() * noise

    def latents(
        self, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, cond: Tensor | None = None
    ) -> Tensor:
        """Denoised latents (b, 4, h, w), scaled as the U-Net sees them; under `cond` (b, L, d) if given.

        Raises:
            BadInput: steps or guidance are out of range, or what comes out is not finite.
        """
        return self._denoise(texts, seeds, steps, guidance, self.pipe.scheduler, cond)[0]

    def draw(
        self,
        prompts: Sequence[Prompt],
        *,
        steps: int,
        guidance: float,
        scheduler: str = "own",
        cond: Tensor | None = None,
    ) -> list[Image]:
        """One image per prompt, under `cond` (b, L, d) if given. An image depends on its text, seed and condition alone, not on what is drawn beside it.

        "Alone" is up to rounding: a product of another number of rows may be summed in another order, which can move a pixel by one grey level.

        Args:
            steps: from 1 to the number of timesteps that the model was trained with.
            guidance: classifier-free guidance scale, at least 1, which is none.
            scheduler: own, the model's; ddim; or lms (linear multistep of order 4, from k-diffusion), its timesteps spread evenly from the last to 0 as in AdvAnchor's
                released evaluation. Methods learn from the model's own whatever is drawn with.

        Raises:
            BadInput: a setting is out of range, or latents or images are not finite.
        """
        import diffusers

        own = self.pipe.scheduler
        makes: dict[str, Callable[[], Any]] = {
            "own": lambda: own,
            "ddim": lambda: diffusers.DDIMScheduler.from_config(own.config),
            "lms": lambda: diffusers.LMSDiscreteScheduler.from_config(own.config, timestep_spacing="linspace"),
        }
        if scheduler not in makes:
            raise BadInput(f"there is no scheduler '{scheduler}': use one of {', '.join(makes)}.")
        if not prompts:
            return []
        return self._decode(
            self._denoise(
                [p.text for p in prompts], [p.seed for p in prompts], steps, guidance, makes[scheduler](), cond
            )[0]
        )

    @torch.no_grad()
    def trajectory(
        self, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, until: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """One sampling run: what the U-Net was given at each step, x (b, n, 4, h, w), and the steps' t (n,), both in the order of sampling; with `until` no further
        than that step. Schedulers of second order have more than one such step for each of `steps`.

        Raises:
            BadInput: as `latents`.
        """
        seen: list[Tensor] = []
        _, timesteps = self._denoise(texts, seeds, steps, guidance, self.pipe.scheduler, None, seen, until)
        return torch.stack(seen, 1), timesteps[: len(seen)]

    def _noise(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        shape = (self.unet.config.in_channels, self._side, self._side)
        return torch.stack(
            [
                torch.randn(shape, generator=torch.Generator().manual_seed(image_seed(t, s)))
                for t, s in zip(texts, seeds, strict=True)
            ]
        ).to(self.device)

    @torch.no_grad()
    def _denoise(
        self, texts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float, scheduler: Any, cond: Tensor | None,
        seen: list[Tensor] | None = None, until: int | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The loop of diffusers' StableDiffusionPipeline: latents (b, 4, h, w) and the timesteps (n,). What the U-Net is given at each step is appended to `seen`, and step
        `until` is not taken.

        Works on a copy of the scheduler, since some change themselves, and gives one that draws noise of its own a generator for each image.
        """
        if not 1 <= steps <= self.timesteps:
            raise BadInput(
                f"{steps} denoising steps will not do: from 1 to {self.timesteps}, the timesteps {self.name} was trained with."
            )
        if not (math.isfinite(guidance) and guidance >= 1):
            raise BadInput(f"a guidance of {guidance} will not do: a finite number, at least 1, which is none.")
        cond, empty = self.encode(texts) if cond is None else cond.to(self.device), self.encode([""] * len(texts))
        if "negative" in self._guidance:
            empty = self._guidance["negative"].expand_as(empty)
        both = torch.cat([empty, cond]) if guidance > 1 else cond
        settings = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            settings["generator"] = [
                torch.Generator().manual_seed(image_seed(text, seed, "scheduler"))
                for text, seed in zip(texts, seeds, strict=True)
            ]
        scheduler = copy.deepcopy(scheduler)
        try:
            scheduler.set_timesteps(steps, device=self.device)
            possible = bool(scheduler.timesteps.max() < self.timesteps)  # an offset can lead beyond the last
        except ValueError:  # of PNDM, whose first three are Runge-Kutta steps
            possible = False
        if not possible:
            raise BadInput(
                f"{type(scheduler).__name__} of {self.name} cannot take {steps} denoising steps: take {'more' if steps < 5 else 'fewer'}."
            )
        x = self._noise(texts, seeds) * scheduler.init_noise_sigma
        with safety(self.unet, self._guidance, steps, guidance):
            for i, t in enumerate(scheduler.timesteps):
                given = scheduler.scale_model_input(torch.cat([x, x]) if guidance > 1 else x, t)
                if seen is not None:
                    seen.append(given[: len(x)])
                if i == until:
                    break
                noise = self.eps(given, t, both)
                if guidance > 1:
                    without, within = noise.chunk(2)
                    noise = without + guidance * (within - without)
                x = scheduler.step(noise, t, x, **settings, return_dict=False)[0]
        if bad := [text for text, one in zip(texts, x, strict=True) if not torch.isfinite(one).all()]:
            half = " or model.autocast's float16 (bfloat16 has its range)" if self._autocast == "float16" else ""
            raise BadInput(
                f"the latents of '{bad[0]}' are not finite at guidance {guidance:g} after {steps} steps: lower the guidance{half}, or method.lr if an edit is drawn."
            )
        return x, scheduler.timesteps

    @torch.no_grad()
    def _decode(self, z: Tensor) -> list[Image]:
        """Images of latents (b, 4, h, w), a few at a time."""
        images: list[Image] = []
        for some in z.split(max(1, AT_ONCE // self.pixels**2)):
            decoded = self.pipe.vae.decode(some / self.pipe.vae.config.scaling_factor, return_dict=False)[0]
            if not torch.isfinite(decoded).all():
                raise BadInput(
                    "the decoded images are not finite: lower the guidance, or method.lr if an edit is drawn."
                )
            images += self.pipe.image_processor.postprocess(decoded, output_type="pil")
        return images


def image_seed(text: str, seed: int, purpose: str = "") -> int:
    """A 63-bit seed from the prompt and its number, the same on every machine and in every process; of the start noise, or for another purpose."""
    return int.from_bytes(hashlib.sha256(f"{text}\n{seed}{purpose}".encode()).digest()[:8], "big") >> 1


def add_at(embeddings: Tensor, delta: Tensor, spans: Sequence[Sequence[int]]) -> Tensor:
    """embeddings (b, L, d) with delta (s, d) added at each row's s positions, or at each s of a multiple of them."""
    placed = torch.zeros_like(embeddings)
    rows = torch.tensor([row for row, span in enumerate(spans) for _ in span])
    columns = torch.tensor([p for span in spans for p in span])
    each = delta.repeat(len(rows) // len(delta), 1).to(placed.dtype)
    return embeddings + placed.index_put((rows.to(placed.device), columns.to(placed.device)), each)
