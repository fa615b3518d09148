"""The first detector of styles and objects of the emoji world: a residual convolutional network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class EmojiClassifier(nn.Module):
    """A small ResNet with a 64-dimensional feature layer and two linear heads, each with a last class for what is
    nothing that it knows.

    Args:
        styles, objects: class names, in the order of the heads' outputs.
        widths: channels of the three stages, at full, half and quarter resolution.
    """

    def __init__(
        self, styles: Sequence[str], objects: Sequence[str], widths: tuple[int, int, int] = (24, 64, 128)
    ) -> None:
        super().__init__()
        self.styles, self.objects = list(styles), list(objects)
        stages: list[nn.Module] = []
        inputs = 3
        for i, width in enumerate(widths):
            stages += [
                nn.Conv2d(inputs, width, 3, padding=1, stride=1 if i == 0 else 2, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                Residual(width),
            ]
            inputs = width
        # Average and maximum: strokes and textures (style) need the mean, parts (objects) the strongest response.
        self.trunk = nn.Sequential(*stages)
        self.squeeze = nn.Linear(2 * inputs, 64)
        self.style_head = nn.Linear(64, len(self.styles) + 1)
        self.object_head = nn.Linear(64, len(self.objects) + 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, 32, 32) in [0, 1] -> logits (n, styles + 1), (n, objects + 1), the last of each for nothing."""
        x = self.trunk(images * 2 - 1)
        f = torch.tanh(self.squeeze(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)))
        return self.style_head(f), self.object_head(f)
