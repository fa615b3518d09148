"""Importing this lets torchvision load where its compiled operators cannot.

The torchvision wheel on PyPI is built against CUDA. Beside a CPU build of torch its library does not load, and then
`import torchvision` stops at the first operator it wants to describe. transformers (image processors), diffusers
(Stable Diffusion pipelines) and open_clip all import torchvision; none of them calls these operators. So they are
declared, without an implementation: calling one still fails. Import this before any of the three.
"""

import contextlib

import torch

_declared = torch.library.Library("torchvision", "FRAGMENT")  # kept alive: the declarations end with it

try:
    import torchvision
except RuntimeError:
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # declared already
            _declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
