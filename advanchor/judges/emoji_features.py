"""The network behind distances of emoji images: trained on pictures alone, without a name of style or object."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advanchor.judges.emoji_classifier import Residual


class EmojiFeatures(nn.Module):
    """A small convolutional network whose 64 features were made similar for two views of one picture and different for
    others (VICReg: Bardes et al. 2022, arXiv 2105.04906); it has no head for labels.

    Args:
        widths: channels of the three stages, at half, quarter and an eighth of the resolution.
    """

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 128), size: int = 64) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inputs = 3
        for width in widths:
            stages += [
                nn.Conv2d(inputs, width, 4, padding=1, stride=2, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                Residual(width),
            ]
            inputs = width
        self.trunk = nn.Sequential(*stages)
        self.squeeze = nn.Linear(inputs * 16, size)
        # Every feature has mean 0 and deviation 1 over the art, so that each counts alike in a distance.
        self.level = nn.BatchNorm1d(size, affine=False)

    def stages(self, images: Tensor) -> list[Tensor]:
        """(n, 3, 32, 32) in [0, 1] -> what each residual block puts out: (n, c, h, w) at 16, 8 and 4 px."""
        x, seen = images * 2 - 1, []
        for layer in self.trunk:
            x = layer(x)
            if isinstance(layer, Residual):
                seen.append(x)
        return seen

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, 32, 32) in [0, 1] -> features (n, 64)."""
        features: Tensor = self.level(self.squeeze(self.stages(images)[-1].flatten(1)))
        return features

    def distance(self, before: Tensor, after: Tensor) -> Tensor:
        """(n,): the form of LPIPS (Zhang et al. 2018, arXiv 1801.03924, eq. 1) with all weights 1: unit vectors over
        the channels at every place, squared difference, mean over places, sum over stages.
        """
        pairs = zip(self.stages(before), self.stages(after), strict=True)
        return torch.stack(
            [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2)) for a, b in pairs]
        ).sum(0)
