"""What an edit can hold, by the prefix of its tensors' names, and how each part acts on a denoiser.

<parameter>                        the tensor that takes its place
lowrank.<parameter>.down, .up      factors (r, in), (out, r): up @ down is added to the parameter
eraser.<attn2 module>.down|up.weight|bias
                                   a small network after that cross-attention layer, out + up(gelu(down(out))), of
                                   Receler (arXiv 2311.17717)
text_encoder.<parameter>           the same as the first, in the text encoder; text_encoder_2., _3. in further ones
guidance.negative                  the embedding that takes the empty prompt's place when sampling
guidance.safety, guidance.rule     Safe Latent Diffusion (methods/guidance.py)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from advanchor.core import BadInput
from advanchor.lazy import F, torch
from advanchor.models.inputs import Inputs
from advanchor.protocols import Edit

if TYPE_CHECKING:
    from torch import Tensor, nn

KEYS = (".to_k.", ".to_v.", ".add_k_proj.", ".add_v_proj.")
# The denoiser's parameters that a method can train, by the name of the scope: of a U-Net its cross-attention, of a
# transformer of image and text what the text's tokens go through in the layers where both have their own.
SCOPES: dict[str, Callable[[str], bool]] = {
    "attn2": lambda name: cross(name) or ".attn.add_" in name or ".attn.to_add_out." in name,
    "attn2.kv": lambda name: any(one in name for one in KEYS) and (cross(name) or ".attn.add_" in name),
    "noxattn": lambda name: not SCOPES["attn2"](name),
    "full": lambda name: True,
    "transformers": lambda name: ".attentions." in name or "transformer_blocks." in name,
}
# Matrices that embeddings of tokens go into as they are, and those of the whole sentence: what a closed form can edit.
MAPS: dict[str, Callable[[str], bool]] = {
    "tokens": lambda name: (cross(name) and SCOPES["attn2.kv"](name)) or name == "context_embedder.weight",
    "sentence": lambda name: name == "time_text_embed.text_embedder.linear_1.weight",
}


def cross(name: str) -> bool:
    """Of a U-Net's cross-attention. Stable Diffusion 3.5 calls the image's second look at itself attn2, too."""
    return ".attentions." in name and ".attn2." in name


def part(edit: Edit, prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix ("eraser."), without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in edit.items() if name.startswith(prefix)}


def parameters(edit: Edit, frozen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The denoiser's parameters that the edit replaces, low-rank factors multiplied out; differentiable in the edit."""
    other = ("lowrank.", "eraser.", "text_encoder", "guidance.")
    whole = {name: tensor for name, tensor in edit.items() if not name.startswith(other)}
    factors = part(edit, "lowrank.")
    for name in {name.rpartition(".")[0] for name in factors}:
        base = whole.get(name, frozen[name])
        whole[name] = base + (factors[f"{name}.up"] @ factors[f"{name}.down"]).view_as(base)
    return whole


def fits(edit: Edit, own: Mapping[str, Tensor], model: str) -> None:
    """Raise BadInput if the edit is not finite, or has a part that the model has no place for.

    Args:
        own: the model's tensors, by the names that they have in an edit.
        model: its name.
    """
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
                f"the edit was made for another model than {model}, "
                f"which has no place for {name} of shape {tuple(tensor.shape)}: erase with this model."
            )


@contextmanager
def erasers(unet: nn.Module, edit: Edit, seen: list[Tensor] | None = None) -> Iterator[None]:
    """Inside, the edit's erasers stand behind their layers; what each puts out (b, pixels, channels) is appended to
    `seen`, in order of execution.
    """
    tensors = part(edit, "eraser.")
    with ExitStack() as hooks:
        for name in {name.rsplit(".", 2)[0] for name in tensors}:
            down, up = ([tensors[f"{name}.{half}.{kind}"] for kind in ("weight", "bias")] for half in ("down", "up"))

            def erase(
                module: nn.Module, args: Any, out: Tensor, down: list[Tensor] = down, up: list[Tensor] = up
            ) -> Tensor:
                correction = F.linear(F.gelu(F.linear(out, *down)), *up)
                if seen is not None:
                    seen.append(correction)
                return out + correction

            hooks.callback(unet.get_submodule(name).register_forward_hook(erase).remove)
        yield


@contextmanager
def safety(unet: nn.Module, inputs: Inputs, guidance: Edit, steps: int, scale_of_guidance: float) -> Iterator[None]:
    """Inside, what the U-Net predicts for the prompts is e(p) - m of Safe Latent Diffusion, if the edit asks for it
    (methods/guidance.py).
    """
    if "safety" not in guidance or scale_of_guidance == 1:
        yield
        return
    concept = guidance["safety"]
    scale, warmup, threshold, momentum, beta = guidance["rule"].tolist()
    state: dict[str, Any] = {"step": 0, "velocity": 0.0, "inside": False}

    def steer(unet: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        if state["inside"]:
            return None
        x = args[0].chunk(2)[1]
        state["inside"] = True
        called, named = inputs(x, args[1], concept.to(x.dtype).expand(len(x), -1, -1))
        away = unet(*called, **named).sample.float()
        state["inside"] = False
        empty, text = output.sample.float().chunk(2)
        mu = torch.where(text - away < threshold, (scale * (text - away).abs()).clamp(max=1.0), 0.0)
        m = mu * (away - empty) + momentum * state["velocity"]
        state["velocity"] = beta * state["velocity"] + (1 - beta) * m
        state["step"] += 1
        return type(output)(sample=torch.cat([empty, text - m if state["step"] > round(warmup * steps) else text]))

    hook = unet.register_forward_hook(steer, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
