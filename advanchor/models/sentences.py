"""Sentences as a Stable Diffusion's text encoder sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from advanchor.lazy import torch
from advanchor.models import precision
from advanchor.models.edits import part
from advanchor.models.tokens import Tokens
from advanchor.protocols import Edit

if TYPE_CHECKING:
    from torch import Tensor, nn


AT_MOST = 2**30  # bytes of conditions that are kept; one of FLUX has 8 MB


class Memory:
    """Conditions of sentences, made once for each. The encoder is frozen and every sentence comes back thousands of
    times; encoded alone, it cannot depend on its batch on any machine.

    Args:
        make: one sentence -> its condition (1, rows, d).
    """

    def __init__(self, make: Callable[[list[str]], Tensor]) -> None:
        self._make = make
        self._known: dict[str, Tensor] = {}

    def __call__(self, text: str) -> Tensor:
        """(rows, d), without a gradient."""
        if text not in self._known:
            with torch.no_grad():
                made = self._make([text])[0]
            if len(self._known) >= min(512, 1 + AT_MOST // (made.numel() * made.element_size())):
                self._known.clear()
            self._known[text] = made
        return self._known[text]

    def __contains__(self, text: str) -> bool:
        return text in self._known

    def forget(self) -> None:
        """The encoder's own tensors changed: encode every sentence anew."""
        self._known.clear()


class Sentences:
    """A frozen text encoder and its tokens. L: tokens that it reads; d: its width.

    Attributes:
        encoders: the text encoders, by what the names of their tensors in an edit begin with.
        streams: the tokenizers whose tokens have rows in a condition.
        length: rows of a condition that are tokens.
        pooled: numbers of its last row that are the whole sentence's; 0 if it has no such row.
    """

    pooled = 0

    def __init__(self, tokenizer: Any, encoder: Any, device: torch.device) -> None:
        self.tokens, self.encoder = Tokens(tokenizer, encoder, device), encoder
        self.streams, self.length = [self.tokens], self.tokens.length
        self.encoders: dict[str, Any] = {"text_encoder.": encoder}
        self._half = precision.of(encoder)
        self.memory = Memory(lambda texts: self._half.out(self.encoder(self.tokens.padded(texts))[0]))

    def encode(
        self, texts: Sequence[str], delta: Tensor | None, spans: Sequence[Sequence[int]], weights: Edit | None
    ) -> Tensor:
        """As `LatentDiffusion.encode`."""
        own = {name: self._half.into(tensor) for name, tensor in part(weights or {}, "text_encoder.").items()}
        if delta is None and not own:
            return torch.stack([self.memory(text) for text in texts])
        with moved(self.encoder, delta, spans):
            out = torch.func.functional_call(self.encoder, own, (self.tokens.padded(texts),))[0]
            return self._half.out(out)

    def nothing(self) -> Tensor:
        """(L, d), what stands for no prompt when sampling."""
        return self.memory("")

    def vocabulary(self, weights: Edit | None = None) -> Tensor:
        """What the encoder reads for each token, (V, d)."""
        return table(self.encoder, "text_encoder.", weights)


def table(encoder: Any, prefix: str, weights: Edit | None) -> Tensor:
    """What an encoder, whose tensors have this prefix in an edit, reads for each token under the edit, (V, d)."""
    whole: Tensor = encoder.get_input_embeddings().weight
    own = next(name for name, tensor in encoder.named_parameters() if tensor is whole)
    return (weights or {}).get(f"{prefix}{own}", whole).detach()


@contextmanager
def moved(encoder: Any, delta: Tensor | None, spans: Sequence[Sequence[int]]) -> Iterator[None]:
    """Inside, delta is added to what the encoder reads (`add_at`)."""

    def shift(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        return out if delta is None else add_at(out, precision.of(encoder).into(delta), spans)

    hook = encoder.get_input_embeddings().register_forward_hook(shift)
    try:
        yield
    finally:
        hook.remove()


def add_at(embeddings: Tensor, delta: Tensor, spans: Sequence[Sequence[int]]) -> Tensor:
    """embeddings (b, L, d) with delta (s, d) added at each row's s positions, or at each s of a multiple of them; with
    (b * s, d) each row's own.
    """
    placed = torch.zeros_like(embeddings)
    rows = torch.tensor([row for row, span in enumerate(spans) for _ in span])
    columns = torch.tensor([p for span in spans for p in span])
    each = delta.repeat(len(rows) // len(delta), 1).to(placed.dtype)
    return embeddings + placed.index_put((rows.to(placed.device), columns.to(placed.device)), each)
