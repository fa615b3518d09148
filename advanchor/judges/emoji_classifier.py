"""The network that recognises styles and objects of the emoji world: detector, accuracy and FID features."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class EmojiClassifier(nn.Module):
    """A small ResNet with a 64-dimensional feature layer and two linear heads.

    Args:
        styles, objects: class names, in the order of the heads' outputs.
        widths: channels of the three stages, at full, half and quarter resolution.
    """

    def __init__(self, styles: list[str], objects: list[str], widths: tuple[int, int, int] = (24, 64, 128)) -> None:
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
        self.style_head = nn.Linear(64, len(self.styles))
        self.object_head = nn.Linear(64, len(self.objects))

    def features(self, images: Tensor) -> Tensor:
        """(n, 3, 32, 32) in [0, 1] -> (n, 64)."""
        x = self.trunk(images * 2 - 1)
        return torch.tanh(self.squeeze(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)))

    def stages(self, images: Tensor) -> list[Tensor]:
        """(n, 3, 32, 32) in [0, 1] -> what each residual block puts out: (n, c, h, w) at full, half and quarter
        resolution.
        """
        x, seen = images * 2 - 1, []
        for layer in self.trunk:
            x = layer(x)
            if isinstance(layer, Residual):
                seen.append(x)
        return seen

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, 32, 32) in [0, 1] -> logits (n, styles), (n, objects)."""
        f = self.features(images)
        return self.style_head(f), self.object_head(f)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"styles": self.styles, "objects": self.objects}, indent=1))
        save_file(
            {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()},
            folder / "model.safetensors",
        )

    @classmethod
    def load(cls, folder: Path) -> "EmojiClassifier":
        """Read a folder that `save` wrote; returns the network in evaluation mode, float32."""
        net = cls(**json.loads((folder / "config.json").read_text()))
        net.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / "model.safetensors").items()}
        )
        return net.eval().requires_grad_(False)
