"""Is a folder's scheduler one whose images depend on prompt and seed alone? Told from its config.

It must predict epsilon or v. Epsilon must never reach pure noise, where it says nothing about the image (Lin et al.
2023, arXiv 2305.08891): dividing by sqrt(alphas_cumprod) = 0 gives NaN.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from advanchor.core import BadInput

# Each is tested: an image depends on its prompt and seed alone, and what a trajectory holds is what the U-Net saw.
SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
OF_U_NETS = ("epsilon", "v_prediction")
FROM_NOISE = ("DDIMScheduler", "EulerDiscreteScheduler")  # that do when alphas_cumprod ends at 0


def check(name: Any, config: dict[str, Any], root: Path) -> None:
    """Raise BadInput if a scheduler of this class and scheduler_config.json will not do.

    Args:
        root: the folder that it is in, for the words of the error.
    """
    file = root / "scheduler/scheduler_config.json"
    if name not in SCHEDULERS:
        raise BadInput(
            f"the scheduler of {root} is {name}, and images must depend on prompt and seed alone and be noised by "
            f"alphas_cumprod: put one of {', '.join(SCHEDULERS)} in model_index.json and scheduler/."
        )
    predicts = config.get("prediction_type", "epsilon")
    if predicts not in OF_U_NETS or config.get("use_flow_sigmas"):
        raise BadInput(
            f"{root} predicts {'flow' if config.get('use_flow_sigmas') else predicts}, and a U-Net here predicts "
            f"{' or '.join(OF_U_NETS)}: use the folder of a model that does."
        )
    if config.get("rescale_betas_zero_snr") and (predicts != "v_prediction" or name not in FROM_NOISE):
        raise BadInput(
            f"{file} has rescale_betas_zero_snr, and only a model that predicts v can start from pure noise, under "
            f"{' or '.join(FROM_NOISE)}: set it to false, or take one of these."
        )
    try:
        noise = betas(config)
        left = math.prod(1 - beta for beta in noise)
        usable = bool(noise) and all(0 < beta < 1 for beta in noise)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(
            f"{file} describes no noise schedule ({error}): copy it anew from where the model came from."
        ) from None
    if not usable or left < 1e-30:  # float32 ends at 1e-38, and its square root is divided by
        raise BadInput(
            f"{file} has betas with which alphas_cumprod reaches {left:.3g}, and epsilon says nothing about an image "
            "there: set the betas the model was trained with."
        )


# The defaults of FlowMatchEulerDiscreteScheduler.
FLOW = {"num_train_timesteps": 1000, "shift": 1.0}
DYNAMIC = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}


def flow(name: Any, config: dict[str, Any], root: Path) -> None:
    """The same of a model that predicts a flow's velocity."""
    if name != "FlowMatchEulerDiscreteScheduler" or config.get("invert_sigmas"):
        turned = " with invert_sigmas" if config.get("invert_sigmas") else ""
        raise BadInput(
            f"the scheduler of {root} is {name}{turned}, and a flow is sampled by FlowMatchEulerDiscreteScheduler: "
            "put it in model_index.json and scheduler/, with the settings the model was published with."
        )
    file, steps, shift = root / "scheduler/scheduler_config.json", *(config.get(k, v) for k, v in FLOW.items())
    wrong = type(steps) is not int or steps < 1 or not finite(shift) or shift <= 0
    said = f"num_train_timesteps {steps}, shift {shift}"
    if config.get("use_dynamic_shifting"):
        numbers = {name: config.get(name, default) for name, default in DYNAMIC.items()}
        lengths = numbers["base_image_seq_len"], numbers["max_image_seq_len"]
        wrong |= not all(map(finite, numbers.values())) or lengths[0] == lengths[1]
        said += "".join(f", {name} {value}" for name, value in numbers.items())
    chosen = [name for name in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas") if config.get(name)]
    if wrong or len(chosen) > 1:
        said = f"{said}{''.join(f', {name}' for name in chosen)}"
        raise BadInput(f"{file} describes no schedule ({said}): copy it anew from where the model came from.")


def finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def betas(config: dict[str, Any]) -> list[float]:
    """A noise schedule as the schedulers of diffusers make it (the defaults are theirs)."""
    if config.get("trained_betas") is not None:
        return [float(beta) for beta in config["trained_betas"]]
    n, kind = config.get("num_train_timesteps", 1000), config.get("beta_schedule", "linear")
    start, end = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    if type(n) is not int or n < 1:
        raise ValueError(f"num_train_timesteps {n}")
    places = [i / max(n - 1, 1) for i in range(n)]
    if kind == "linear":
        return [start + (end - start) * u for u in places]
    if kind == "scaled_linear":
        return [(start**0.5 + (end**0.5 - start**0.5) * u) ** 2 for u in places]
    if kind == "squaredcos_cap_v2":
        bar = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
        return [min(1 - bar[i + 1] / bar[i], 0.999) for i in range(n)]
    raise ValueError(f"beta_schedule {kind} is none of linear, scaled_linear, squaredcos_cap_v2")
