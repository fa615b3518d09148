"""A loaded pipeline seen through what erasing needs. No code outside this room touches a diffusers pipeline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import advanchor.torchvision_ops  # noqa: F401  (before diffusers)
from advanchor.core import BadInput
from advanchor.machine import NOTHING_SPARED, Lean
from advanchor.models import anatomy, precision, sampling
from advanchor.models.attention import watched
from advanchor.models.edits import MAPS, SCOPES, erasers, fits, parameters, part, safety
from advanchor.models.noisy import Noisy
from advanchor.models.recomputed import Recomputed
from advanchor.models.visits import Visits
from advanchor.prompts import Prompt
from advanchor.protocols import Edit

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image


class LatentDiffusion:
    """A loaded pipeline: frozen weights, one denoiser in memory. Shapes: b batch, L rows of a condition, which are its
    tokens and, except of Stable Diffusion 1.x and 2.x, the sentence (two_encoders.py, joint.py), d their width, c
    channels of the latents (4; 16 of Stable Diffusion 3 and FLUX), h x w their size.
    """

    def __init__(
        self,
        name: str,
        pipe: DiffusionPipeline,
        device: str,
        autocast: str,
        distilled: float | None = None,
        lean: Lean = NOTHING_SPARED,
    ) -> None:
        pipe.set_progress_bar_config(disable=True)
        # For the whole process. Its gradients are wrong on some GPUs, without a word: torch 2.11 on an H100 made 132 of
        # FLUX's 0.024 in bfloat16, where torch's other kernels agree (pytorch/pytorch#139298, docs/performance.md).
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.name, self.pipe, self.device = name, pipe, torch.device(device)
        self._parts = parts = anatomy.of(pipe, self.device, distilled)
        self.network: Any = parts.network
        self._sentences, self._space, self._inputs = parts.sentences, parts.space, parts.inputs
        self.pixels: int = parts.side * pipe.vae_scale_factor
        for network in (self.network, *self._sentences.encoders.values(), pipe.vae):
            network.eval().requires_grad_(False)
        self._visits = Visits(self.device, lean.offload)
        self._visits.settle(self.network, (*self._sentences.encoders.values(), pipe.vae))
        self._precision = precision.of(self.network, autocast)
        self.dtype = self._precision.dtype
        self._recomputed = Recomputed()
        if lean.checkpointing:
            self.network.enable_gradient_checkpointing(self._recomputed)
        if lean.channels_last:
            self.network.to(memory_format=torch.channels_last)
        if lean.compile:
            self.network.compile()
        self._streams = self._sentences.streams
        self._tokens = self._streams[0]
        self.encoders = self._sentences.encoders
        self.shape = self._parts.channels, self._parts.side, self._parts.side
        self.streams = tuple(stream.kind for stream in self._streams)
        self.length, self.pooled = self._sentences.length, self._sentences.pooled
        self.timesteps: int = pipe.scheduler.config.num_train_timesteps
        self.predicts = self._space.predicts
        self._autocast = autocast
        self.shelf: Path | None = None
        self.batch = 32
        self.made_by = type(self).__module__
        self._guidance: dict[str, Tensor] = {}
        self._frozen = dict(self.network.named_parameters())

    def encode(
        self,
        texts: Sequence[str],
        delta: Tensor | None = None,
        spans: Sequence[Sequence[int]] = (),
        weights: Edit | None = None,
    ) -> Tensor:
        """Text embeddings (b, L, d), with a gradient to `delta` and `weights` only.

        Args:
            delta: (s, d), added to the encoder's *input* at each text's `spans` (b lists of s positions); or
                (b * s, d), each text's own one after the other.
            weights: an edit; what it holds of the text encoder takes the place of the frozen tensors.
        """
        learns = delta is not None or any(name.startswith("text_encoder") for name in weights or ())
        known = not learns and all(text in self._sentences.memory for text in texts)
        with self._visits.here(() if known else self.encoders.values(), stay=learns):
            return self._sentences.encode(texts, delta, spans, weights)

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than the text encoder; of several streams than each of them."""
        for stream in self._streams:
            texts = stream.cut(texts)
        return list(texts)

    def vocabulary(self, weights: Edit | None = None) -> Tensor:
        """What the text encoder reads for each token, (V, d), under an edit."""
        return self._sentences.vocabulary(weights).to(self.device, torch.float32)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without start and end."""
        return self._tokens.ids(text)

    def spoken(self) -> list[int]:
        """All tokens that a sentence can hold: neither start, end nor padding."""
        return self._tokens.spoken()

    def words(self, ids: Sequence[int]) -> str:
        """Tokens as words."""
        return self._tokens.words(ids)

    def end(self, text: str, stream: int = 0) -> int:
        """Row of the end token of one of the `streams`. CLIP's output there is the embedding of the whole sentence."""
        return self._streams[stream].end(text)

    def last(self, text: str, stream: int = 0) -> int:
        """Row of the last token before the end; of no text the first row of its stream."""
        tokens = self._streams[stream]
        return max(tokens.end(text) - 1, tokens.first - (tokens.kind == "clip"))

    def span(self, text: str, words: str, at: int = 0, stream: int = 0) -> list[int]:
        """Rows of all pieces of `words` in one of the `streams`, where they first stand in the text from its character
        `at` on.

        Raises:
            BadInput: the words are not in the text, or some of them are cut off behind the text encoder's last token.
        """
        return self._streams[stream].span(text, words, at)

    def predict(
        self, x: Tensor, t: Tensor, cond: Tensor, weights: Edit | None = None, seen: list[Tensor] | None = None
    ) -> Tensor:
        """What the model itself predicts (spaces.py), (b, c, h, w), for x (b, c, h, w), t (b,), cond (b, L, d) under
        the denoiser's part of an edit; its erasers' outputs are appended to `seen`.
        """
        half = self._precision
        called, named = self._inputs(half.into(x), t, half.into(cond))
        with self._cast():
            if weights is None:
                self._recomputed.around = nullcontext
                out = self.network(*called, **named).sample
            else:
                small = {name: half.into(tensor) for name, tensor in weights.items() if name.startswith("eraser.")}
                whole = {name: half.into(p) for name, p in parameters(weights, self._frozen).items()}
                self._recomputed.around = partial(erasers, self.network, small)
                own: list[Tensor] = []
                with erasers(self.network, small, own):
                    out = torch.func.functional_call(self.network, whole, called, named).sample
                if seen is not None:
                    seen += [half.out(one) for one in own]
        return self._parts.latents(half.out(out), x)

    def _cast(self) -> AbstractContextManager[Any]:
        """Of the denoiser's forward pass; everything around it is float32."""
        return (
            nullcontext()
            if self._autocast == "none"
            else torch.autocast(self.device.type, dtype=getattr(torch, self._autocast))
        )

    def attention(self, x: Tensor, t: Tensor, cond: Tensor, weights: Edit | None = None) -> list[Tensor]:
        """Cross-attention probabilities at (x, t), one (b, heads, pixels, L) for each layer, differentiable in
        `weights`. Only U-Nets have such layers.
        """
        self._recomputed.off = True  # a block that is computed again would be seen twice
        try:
            with watched(self.network) as seen:
                self.predict(x, t, cond, weights)
        finally:
            self._recomputed.off = False
        return [self._precision.out(one) for one in seen]

    def weights(self, scope: str) -> dict[str, Tensor]:
        """The frozen parameters of a scope in float32, by the names that they have in an edit; of a model in half
        precision these are copies.

        Raises:
            BadInput: no such scope.
        """
        if scope == "text_encoder":
            return {name: p.to(self.device, torch.float32) for name, p in self._text().items()}
        if scope not in SCOPES:
            raise BadInput(f"unknown scope '{scope}': choose one of {', '.join(SCOPES)}, text_encoder.")
        return {name: p.float() for name, p in self._frozen.items() if SCOPES[scope](name)}

    def _text(self) -> dict[str, Tensor]:
        """The text encoders' parameters as they are."""
        every = self._sentences.encoders.items()
        return {f"{prefix}{name}": p for prefix, encoder in every for name, p in encoder.named_parameters()}

    def maps(self, of: str) -> dict[str, Tensor]:
        """The frozen matrices (out, d) that embeddings of "tokens" or of the "sentence" go into as they are; float32
        as in `weights`.
        """
        return {name: p.float() for name, p in self._frozen.items() if MAPS[of](name)}

    @contextmanager
    def edited(self, edit: Edit) -> Iterator[None]:
        """Inside, the model is the edited one (edits.py says what that can be); afterwards its own again, bit for bit.

        Raises:
            BadInput: the edit is not finite, or was made for another model.
        """
        edit = {name: tensor.to(self.device) for name, tensor in edit.items()}
        own = self._text()
        fits(edit, self._frozen | own, self.name)
        text = {name: tensor for name, tensor in edit.items() if name in own}
        swaps = [(self._frozen[name], tensor) for name, tensor in parameters(edit, self._frozen).items()]
        swaps += [(own[name], tensor) for name, tensor in text.items()]
        before = [own.detach().clone() for own, _ in swaps]
        try:
            self._guidance = part(edit, "guidance.")
            if text:
                self._sentences.memory.forget()
            with torch.no_grad():
                for own, tensor in swaps:
                    own.copy_(tensor)
            small = {name: self._precision.into(tensor) for name, tensor in edit.items() if name.startswith("eraser.")}
            with erasers(self.network, small):
                yield
        finally:
            self._guidance = {}
            if text:
                self._sentences.memory.forget()
            with torch.no_grad():
                for (own, _), tensor in zip(swaps, before, strict=True):
                    own.copy_(tensor)

    def noised(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """z_t of latents z (b, c, h, w)."""
        return self._space.noised(z, t, noise)

    def target(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What a network that is right predicts at noised(z, t, noise)."""
        return self._space.target(z, t, noise)

    def as_noise(self, predicted: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise in x that a prediction at (x, t) says."""
        return self._space.as_noise(predicted, x, t)

    def latents(
        self, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, cond: Tensor | None = None
    ) -> Tensor:
        """Denoised latents (b, c, h, w), scaled as the denoiser sees them; under `cond` (b, L, d) if given.

        Raises:
            BadInput: steps or guidance are out of range, or what comes out is not finite.
        """
        return self._denoise(texts, seeds, steps, guidance, self._parts.solver(), cond)[0]

    def draw(
        self,
        prompts: Sequence[Prompt],
        *,
        steps: int,
        guidance: float,
        scheduler: str = "own",
        cond: Tensor | None = None,
        start: Tensor | None = None,
        at: int = 0,
        noisy: tuple[float, float] | None = None,
        around: Tensor | None = None,
    ) -> list[Image]:
        """One image per prompt, under `cond` (b, L, d) if given. An image depends on its text, seed and condition
        alone, not on what is drawn beside it.

        "Alone" is up to rounding: a product of another number of rows may be summed in another order, which can move a
        pixel by one grey level.

        Args:
            steps: from 1 to the number of timesteps that the model was trained with.
            guidance: classifier-free guidance scale, at least 1, which is none.
            start: (b, c, h, w), from which step `at` goes on, the first being 0; of step 0 it is noise of unit
                variance, of a later one what the denoiser is given there (`trajectory`).
            noisy: eta of DDIM and what the noise of its steps is multiplied with (noisy.py); DDIM it is then.
            around: (b, c + 1, h, w), latents to paint into and where they stay (`sampling.denoise`).
            scheduler: own, the model's; ddim; or lms (linear multistep of order 4, from k-diffusion), its timesteps
                spread evenly from the last to 0 as in AdvAnchor's released evaluation. Methods learn from the model's
                own whatever is drawn with.

        Raises:
            BadInput: a setting is out of range, or latents or images are not finite.
        """
        own = self._parts.solver()
        solver = sampling.chosen(scheduler, own) if noisy is None else Noisy.like(own, *noisy)
        if not prompts:
            return []
        texts, seeds = [p.text for p in prompts], [p.seed for p in prompts]
        latents, _ = self._denoise(texts, seeds, steps, guidance, solver, cond, start=start, at=at, around=around)
        with self._visits.here((self.pipe.vae,)):
            return sampling.decode(self.pipe, latents)

    @torch.no_grad()
    def trajectory(
        self, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, until: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """One sampling run: what the denoiser was given at each step, x (b, n, c, h, w), and the steps' t (n,), both in
        the order of sampling; with `until` no further than that step. Schedulers of second order have more than one
        such step for each of `steps`.

        Raises:
            BadInput: as `latents`.
        """
        seen: list[Tensor] = []
        _, timesteps = self._denoise(texts, seeds, steps, guidance, self._parts.solver(), None, seen, until)
        return torch.stack(seen, 1), timesteps[: len(seen)]

    def _noise(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """(b, c, h, w), what the prompts' images start from."""
        return sampling.noise(texts, seeds, self.shape).to(self.device)

    @torch.no_grad()
    def _denoise(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        steps: int,
        guidance: float,
        scheduler: Any,
        cond: Tensor | None,
        seen: list[Tensor] | None = None,
        until: int | None = None,
        start: Tensor | None = None,
        at: int = 0,
        around: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Latents (b, c, h, w) and the timesteps (n,). What the denoiser is given at each step is appended to `seen`,
        and step `until` is not taken.
        """
        scheduler = sampling.taking(steps, scheduler, self.timesteps, self.name, self.device)
        if not (math.isfinite(guidance) and guidance >= 1):
            raise BadInput(f"a guidance of {guidance} will not do: a finite number, at least 1, which is none.")
        cond = self.encode(texts) if cond is None else cond.to(self.device)
        with self._visits.here(() if "" in self._sentences.memory else self.encoders.values()):
            nothing = self._sentences.nothing()
        empty = self._guidance.get("negative", nothing).expand_as(cond)
        x = self._noise(texts, seeds) if start is None else start.to(self.device)
        around = None if around is None else around.to(self.device)
        prompts = list(zip(texts, seeds, strict=True))
        with safety(self.network, self._inputs, self._guidance, steps, guidance):
            x = sampling.denoise(self.predict, x, scheduler, prompts, cond, empty, guidance, seen, until, at, around)
        if bad := [text for text, one in zip(texts, x, strict=True) if not torch.isfinite(one).all()]:
            half = " or take bfloat16 for model.dtype or model.autocast" if self._precision.half else ""
            raise BadInput(
                f"the latents of '{bad[0]}' are not finite at guidance {guidance:g} after {steps} steps: "
                f"lower the guidance{half}, or method.lr if an edit is drawn."
            )
        return x, scheduler.timesteps
