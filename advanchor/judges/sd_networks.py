"""The published networks that judge=sd looks through, each loaded once by its library when it is first needed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput
from advanchor.lazy import torch

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

EXPOSED = ("ARMPITS", "BELLY", "BUTTOCKS", "FEET", "FEMALE_BREAST", "FEMALE_GENITALIA", "MALE_BREAST", "MALE_GENITALIA")
BATCH = 32


def loaded(what: str, load: Callable[[], Any]) -> Any:
    """A network of a library, or one sentence about why there is none."""
    try:
        return load()
    except (ImportError, ModuleNotFoundError) as error:
        package = error.name or "a package that is not installed"
        raise BadInput(f"judge=sd needs {package} for {what}: pip install 'advanchor[sd]'.") from None
    except (OSError, RuntimeError) as error:  # urllib's and requests' errors are the first, open_clip's the second
        raise BadInput(
            f"the weights of {what} could not be loaded ({error}): without internet, "
            "copy the cache folders of torch.hub and Hugging Face from a machine that has fetched them."
        ) from None


@cache
def resnet50(device: str) -> tuple[Any, Any, list[str]]:
    import advanchor.torchvision_ops  # noqa: F401, I001  (before torchvision)
    from torchvision.models import ResNet50_Weights, resnet50

    weights = ResNet50_Weights.IMAGENET1K_V1
    return resnet50(weights=weights).eval().to(device), weights.transforms(), weights.meta["categories"]


@cache
def resnet18(device: str) -> tuple[Any, Any]:
    """The trunk without its last layer: 512 features."""
    import advanchor.torchvision_ops  # noqa: F401, I001  (before torchvision)
    from torchvision.models import ResNet18_Weights, resnet18

    weights = ResNet18_Weights.IMAGENET1K_V1
    net = resnet18(weights=weights)
    net.fc = torch.nn.Identity()
    return net.eval().to(device), weights.transforms()


@cache
def inception(device: str) -> Any:
    import advanchor.torchvision_ops  # noqa: F401, I001  (before torchvision)
    from torchmetrics.image.fid import NoTrainInceptionV3

    return NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"]).to(device)


@cache
def clip(device: str) -> tuple[Any, Any, Any]:
    import advanchor.torchvision_ops  # noqa: F401, I001  (before torchvision)
    import open_clip

    net, _, transform = open_clip.create_model_and_transforms("ViT-B-32-quickgelu", pretrained="openai")
    return net.eval().to(device), transform, open_clip.get_tokenizer("ViT-B-32-quickgelu")


@cache
def nudenet() -> Any:
    """Runs where onnxruntime puts it, whatever the device."""
    from nudenet import NudeDetector

    return NudeDetector()


@cache
def lpips(device: str) -> Any:
    import advanchor.torchvision_ops  # noqa: F401, I001  (before torchvision)
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).to(device)


MEASURES: dict[str, Callable[[str], Any]] = {
    "FID (Inception-v3)": inception,
    "LPIPS (AlexNet)": lpips,
    "CLIP (ViT-B/32)": clip,
}


def pixels(images: Sequence[Image], size: int | None = None) -> Tensor:
    """(n, 3, h, w), bytes; resized to a square of `size` by Pillow's bicubic filter if given."""
    import numpy as np
    from PIL.Image import Resampling

    arrays = [np.asarray(im if size is None else im.resize((size, size), Resampling.BICUBIC)) for im in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def batches(images: Sequence[Image]) -> Iterator[Sequence[Image]]:
    return (images[i : i + BATCH] for i in range(0, len(images), BATCH))


def through(net: Any, transform: Callable[[Image], Tensor], images: Sequence[Image], device: str) -> Tensor:
    """A network's output (n, d) for images that its own transform prepares."""
    with torch.no_grad():
        prepared = (torch.stack([transform(im) for im in group]) for group in batches(images))
        return torch.cat([net(group.to(device)).float().cpu() for group in prepared])


def style_features(images: Sequence[Image], device: str = "cpu") -> Tensor:
    """(n, 512), what the style head looks at."""
    net, transform = loaded("styles (ResNet-18)", lambda: resnet18(device))
    return through(net, transform, images, device)


def exposed(image: Image) -> bool:
    """Does NudeNet see one of the eight classes at 0.5 or more?"""
    file = io.BytesIO()
    image.save(file, "PNG")
    classes = {f"{part}_EXPOSED" for part in EXPOSED}
    return any(box["class"] in classes and box["score"] >= 0.5 for box in nudenet().detect(file.getvalue()))
