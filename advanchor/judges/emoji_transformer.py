"""The second detector of styles and objects of the emoji world: a vision transformer, which has no convolution over
its tokens and shares neither weights nor training images with the first.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Attention, then an MLP, each on the normed input and added to it (pre-norm)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, width) -> the same shape."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class EmojiTransformer(nn.Module):
    """A ViT (Dosovitskiy et al. 2021, arXiv 2010.11929) on 64 patches of 4 x 4 pixels, with the mean over tokens where
    theirs has a class token, and two linear heads, each with a last class for what is nothing that it knows.

    Args:
        styles, objects: class names, in the order of the heads' outputs.
    """

    def __init__(
        self, styles: Sequence[str], objects: Sequence[str], width: int = 96, depth: int = 5, heads: int = 4
    ) -> None:
        super().__init__()
        self.styles, self.objects = list(styles), list(objects)
        self.patches = nn.Linear(3 * 4 * 4, width)
        self.places = nn.Parameter(0.02 * torch.randn(64, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.style_head = nn.Linear(width, len(self.styles) + 1)
        self.object_head = nn.Linear(width, len(self.objects) + 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, 32, 32) in [0, 1] -> logits (n, styles + 1), (n, objects + 1), the last of each for nothing."""
        patches = F.unfold(images * 2 - 1, 4, stride=4).transpose(1, 2)
        f = self.norm(self.blocks(self.patches(patches) + self.places)).mean(1)
        return self.style_head(f), self.object_head(f)
