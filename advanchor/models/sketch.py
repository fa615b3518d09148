"""What a model would need, from its configs alone: its networks without weights, run on numbers that are not there."""

from __future__ import annotations

import dataclasses
import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from advanchor.machine import NOTHING_SPARED, Lean
from advanchor.models import layout, sampling, single_file
from advanchor.models.architectures import Architecture
from advanchor.models.latent_diffusion import LatentDiffusion
from advanchor.models.loading import assembled, loaded, quiet

if TYPE_CHECKING:
    from torch import Tensor

ABSENT = "meta"  # torch's device for tensors that have a shape and no numbers


class Cost(TorchDispatchMode):
    """Counts the bytes of all tensors without numbers that live at once, and the operations that they would take.

    Attention counts as what fused kernels keep of it: queries, keys, values and what comes out, no map of all pairs.

    Attributes:
        live, most: bytes now, and at the worst moment.
        flops: of matrix products and convolutions, a multiplication and an addition being two.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.most = self.flops = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._attention = F.scaled_dot_product_attention

    def __enter__(self) -> Self:
        F.scaled_dot_product_attention = self.fused
        return cast(Self, super().__enter__())  # type: ignore[no-untyped-call]

    def __exit__(self, *args: Any) -> None:
        F.scaled_dot_product_attention = self._attention
        super().__exit__(*args)  # type: ignore[no-untyped-call]

    def fused(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **named: Any) -> Any:
        self.flops += 2 * query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        return Fused.apply(query, key, value)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):  # the model's own: a view of a weight takes nothing
                self._seen.add(tensor.untyped_storage())
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == ABSENT:
                self.count(tensor)
        return out

    def count(self, tensor: Tensor) -> None:
        """A tensor whose memory is taken until nobody has it any more."""
        storage = tensor.untyped_storage()
        if storage not in self._seen:
            self._seen.add(storage)
            size = storage.nbytes()
            self.live += size
            self.most = max(self.most, self.live)
            weakref.finalize(storage, self.free, size)

    def free(self, size: int) -> None:
        self.live -= size


class Fused(torch.autograd.Function):
    """The shapes of attention, forward and backward."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return tuple(torch.empty_like(one) for one in ctx.saved_tensors[:3])


@dataclass(frozen=True)
class Needs:
    """What a model of these shapes takes.

    Attributes:
        parts: parameters of each network, by its name; `sizes`: bytes of its weights.
        training, drawing: bytes beside the weights at the worst moment of a training step (two passes with a gradient,
            Adam), and of denoising and decoding a batch.
        step, image: floating-point operations of a training step's two passes there and back, and of drawing an image.
    """

    parts: dict[str, int]
    sizes: dict[str, int]
    training: int
    drawing: int
    step: int
    image: int

    def weights(self, offload: bool = False) -> int:
        """Bytes of the networks that are on the device at once: all, or the denoiser and one more at a time."""
        others = [size for name, size in self.sizes.items() if name != "denoiser"]
        return self.sizes["denoiser"] + (max(others) if offload else sum(others))


def needs(model: LatentDiffusion, scope: str, batch: int, images: int, steps: int, guidance: float) -> Needs:
    """What a sketched model takes to train `batch` latents in a scope, and to draw `images` at once."""
    shape, sentence = model.shape, model.encode(["a picture"])

    def called(n: int) -> tuple[Tensor, Tensor, Tensor]:
        cond = sentence.expand(n, -1, -1)
        return torch.zeros(n, *shape, device=ABSENT), torch.zeros(n, device=ABSENT), cond

    with Cost() as training:
        x, t, cond = called(batch)
        theta = {name: p.detach().clone().requires_grad_() for name, p in model.weights(scope).items()}
        averages = [torch.zeros_like(p) for p in theta.values() for _ in range(2)]  # of Adam
        seen = theta if scope != "text_encoder" else None
        cond = cond if seen is not None else cond.detach().requires_grad_()
        losses = [F.mse_loss(model.predict(x, t, cond, seen), x) for _ in range(2)]
        sum(losses, losses[0]).backward()
    with Cost() as drawing, torch.no_grad():
        both = 2 if guidance > 1 else 1
        model.predict(*called(both * images))
    together = max(1, min(images, sampling.AT_ONCE // model.pixels**2))
    with Cost() as decoding, torch.no_grad():
        model.pipe.vae.decode(torch.zeros(together, *shape, device=ABSENT))
    networks = {"denoiser": model.network, "vae": model.pipe.vae}
    networks |= {name.rstrip("."): encoder for name, encoder in model.encoders.items()}
    del averages
    return Needs(
        {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()},
        {name: sum(p.numel() * p.element_size() for p in one.parameters()) for name, one in networks.items()},
        training.most,
        max(drawing.most, decoding.most),
        training.flops,
        drawing.flops // images * steps + decoding.flops // together,
    )


def sketched(
    root: Path,
    name: str,
    distilled: float | None = None,
    predicts: str | None = None,
    dtype: str = "float32",
    lean: Lean = NOTHING_SPARED,
) -> LatentDiffusion:
    """The model of a checked folder, or of a file of the first releases, without its weights.

    Args:
        predicts: what is said of a file that does not say it.
        dtype, lean: as the model is loaded with.

    Raises:
        BadInput: a config describes no network.
    """
    import advanchor.torchvision_ops  # noqa: F401, I001  (before diffusers)
    import diffusers
    import transformers

    parts: dict[str, Any] = {}
    with quiet():
        if root.is_file():
            return published(single_file.architecture(root), name, single_file.predicted(root, predicts), dtype, lean)
        family = layout.family(root)
        for encoder, (folder, classes) in zip(family.encoders, family.tokenizers.items(), strict=True):
            read = getattr(transformers, classes[0]).from_pretrained
            parts[folder] = loaded(root / folder, partial(read, root / folder, local_files_only=True))
            cls = getattr(transformers, family.encoders[encoder])
            config = cls.config_class.from_pretrained(root / encoder, local_files_only=True)
            with torch.device(ABSENT):
                parts[encoder] = cls(config).to(getattr(torch, dtype))
        for part in ("vae", family.denoiser[0]):
            cls = getattr(diffusers, family.networks[part])
            with torch.device(ABSENT):
                net = cls.from_config(cls.load_config(root / part, local_files_only=True))
            parts[part] = net if part == "vae" else net.to(getattr(torch, dtype))
        chosen = getattr(diffusers, layout.scheduler(root))
        parts["scheduler"] = chosen.from_pretrained(root / "scheduler", local_files_only=True)
        index = layout.read(root / "model_index.json")
        pipe = assembled(index["_class_name"], parts, index.get("force_zeros_for_empty_prompt", True))
    return LatentDiffusion(name, pipe, ABSENT, "none", distilled, here(lean))


def here(lean: Lean) -> Lean:
    """What there is without weights: no other device, and nothing to compile."""
    return dataclasses.replace(lean, offload=False, compile=False)


def published(
    made: Architecture, name: str, predicts: str = "epsilon", dtype: str = "float32", lean: Lean = NOTHING_SPARED
) -> LatentDiffusion:
    """A published architecture of the first releases without weights."""
    import diffusers
    import transformers

    sizes = dict(made.unet)
    if made.predicts is None and predicts == "epsilon":
        sizes["sample_size"] = 64  # as single_file.pipeline has it
    parts: dict[str, Any] = {}
    with torch.device(ABSENT):
        parts |= {"unet": diffusers.UNet2DConditionModel(**sizes), "vae": diffusers.AutoencoderKL(**made.vae)}
        for part, settings in made.encoders.items():
            cls = getattr(transformers, layout.FAMILIES[made.pipeline].encoders[part])
            parts[part] = cls(transformers.CLIPTextConfig(**settings))
    for part, pad in zip(made.encoders, made.pads, strict=True):
        length = made.encoders[part]["max_position_embeddings"]
        parts[part.replace("text_encoder", "tokenizer")] = single_file.tokenizer(pad, length)
    for part in ("unet", *made.encoders):
        parts[part].to(getattr(torch, dtype))
    parts["scheduler"] = diffusers.DDIMScheduler()
    return LatentDiffusion(name, assembled(made.pipeline, parts), ABSENT, "none", None, here(lean))
