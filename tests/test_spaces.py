"""A network that predicts v or velocity and one that predicts noise are one model where they say the same noise."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advanchor.anchors.adversarial import Adversarial
from advanchor.anchors.words import Superclass
from advanchor.build import build
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.methods.ac import AblatingConcepts
from advanchor.methods.esd import ErasedStableDiffusion
from advanchor.models.spaces import Diffusion, Flow
from advanchor.prompts import Prompt
from advanchor.protocols import Step

ALPHAS = torch.linspace(0.999, 0.01, 1000)
T = torch.tensor([3, 500, 998])


@pytest.fixture(scope="module")
def twins() -> tuple[Any, Any]:
    """A model that predicts noise, and one whose network says the same noise as v."""
    noise, v = (
        build(compose(["model=random", f"model.predicts={kind}"]).model, "model").open("cpu")
        for kind in ("epsilon", "v_prediction")
    )
    own, alphas = v.network.forward, v.pipe.scheduler.alphas_cumprod

    def forward(x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = own(x, t, *args, **kwargs)
        a = alphas[torch.as_tensor(t).long().expand(len(x))].view(-1, 1, 1, 1)
        return type(out)(sample=(out.sample - (1 - a).sqrt() * x) / a.sqrt())

    v.network.forward = forward
    return noise, v


class NoiseOfAFlow(Flow):
    """As a network would be that predicts the noise of a flow: there are none."""

    predicts = "epsilon"

    def as_noise(self, predicted: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return predicted


@pytest.fixture(scope="module")
def flows() -> tuple[Any, Any]:
    """A model of a flow whose network says its noise, and one that predicts velocity, and says the same."""
    words = ["model=random", "model.family=sd3"]
    noise, u = (build(compose(words).model, "model").open("cpu") for _ in range(2))
    own = noise.network.forward

    def forward(x: Tensor, cond: Tensor, *, timestep: Tensor, **kwargs: Any) -> Any:
        out = own(x, cond, timestep=timestep, **kwargs)
        return type(out)(sample=x + (1 - timestep.view(-1, 1, 1, 1) / 1000) * out.sample)

    noise.network.forward, noise._space = forward, NoiseOfAFlow(1000)
    return noise, u


def weight(model: Any, t: int) -> float:
    """How much more a loss of noise weighs at t than one in the model's own space."""
    return (1 - t / 1000) ** 2 if model.predicts == "velocity" else float(model.pipe.scheduler.alphas_cumprod[t])


@pytest.mark.parametrize(
    "space", [Diffusion(ALPHAS, "epsilon"), Diffusion(ALPHAS, "v_prediction"), Flow(1000)], ids=lambda one: one.predicts
)
def test_a_right_prediction_says_the_noise_that_was_added(space: Any) -> None:
    z, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x = space.noised(z, T, noise)
    assert torch.allclose(space.as_noise(space.target(z, T, noise), x, T), noise, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "factor"),
    [(Diffusion(ALPHAS, "v_prediction"), ALPHAS[T].sqrt()), (Flow(1000), 1 - T / 1000)],
    ids=["v", "velocity"],
)
def test_targets_whose_weights_sum_to_one_and_differences_keep_their_form(space: Any, factor: Tensor) -> None:
    g = torch.Generator().manual_seed(0)
    x, a, c = torch.randn(3, 3, 4, 8, 8, generator=g)
    guided = space.as_noise(a - 2 * (c - a), x, T)
    e_a, e_c = (space.as_noise(one, x, T) for one in (a, c))
    assert torch.allclose(guided, e_a - 2 * (e_c - e_a), atol=1e-5)
    assert torch.allclose(e_c - e_a, factor.view(-1, 1, 1, 1) * (c - a), atol=1e-5)


def test_a_flow_is_straight_from_the_image_to_the_noise() -> None:
    space, (z, noise) = Flow(1000), torch.randn(2, 1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in (0.0, 250.0, 1000.0):
        x = space.noised(z, torch.tensor([t]), noise)
        assert torch.allclose(x, z + t / 1000 * space.target(z, torch.tensor([t]), noise), atol=1e-5)


@pytest.mark.parametrize(
    "look",
    [{}, {"scheduler": "ddim"}, {"scheduler": "lms"}, {"noisy": (0.7, 1.3)}],
    ids=["own", "ddim", "lms", "noisy"],
)
def test_both_draw_the_same(twins: tuple[Any, Any], look: dict[str, Any]) -> None:
    prompts = [Prompt("a fox", seed, "object", "fox") for seed in (0, 1)]
    one, other = (model.draw(prompts, steps=6, guidance=3.0, **look) for model in twins)
    for a, b in zip(one, other, strict=True):
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max() <= 1


def at(model: Any, concept: Any, t: int) -> Step:
    g = torch.Generator().manual_seed(3)
    channels = model.pipe.vae.config.latent_channels
    return Step(model, concept, torch.randn(1, channels, 8, 8, generator=g), torch.tensor([t]), ("an emoji of {}",))


METHODS = [
    AblatingConcepts(
        name="ac", scope="attn2", steps=1, lr=1e-3, batch=1, preserve=10.0, pool=4, pool_steps=2, pool_guidance=2.0
    ),
    ErasedStableDiffusion(
        name="esd", scope="attn2", steps=1, lr=1e-3, batch=1, eta=2.0, erase_from=None, latents="pool", pool=4,
        pool_steps=2, pool_guidance=2.0,
    ),
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
@pytest.mark.parametrize("t", [40, 700])
@pytest.mark.parametrize("pair", ["twins", "flows"])
def test_a_methods_loss_differs_by_its_weight_over_time_alone(
    request: pytest.FixtureRequest, concept: Any, method: Any, t: int, pair: str
) -> None:
    losses, gradients = [], []
    for model in (models := request.getfixturevalue(pair)):
        target = Superclass(name="superclass").start(model, concept, 0)
        theta = {
            n: (p + 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
            for n, p in model.weights("attn2").items()
        }
        step = at(model, concept, t)
        loss = method.loss(step, theta, target.embed(step))
        losses.append(loss.detach())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(theta.values()))]))
    a = weight(models[1], t)
    assert losses[0] > 0
    assert torch.allclose(losses[1], losses[0] / a, rtol=1e-3)
    assert torch.allclose(gradients[1], gradients[0] / a, rtol=1e-2, atol=float(1e-3 * gradients[1].abs().max()))


@pytest.mark.parametrize("loss", ["direction", "product", "similarity"])
@pytest.mark.parametrize("pair", ["twins", "flows"])
def test_an_anchors_loss_differs_by_its_weight_over_time_alone_and_a_product_is_of_noise(
    request: pytest.FixtureRequest, concept: Any, loss: Any, pair: str
) -> None:
    models = request.getfixturevalue(pair)
    anchor = Adversarial(
        name="a",
        loss=loss,
        schedule="alternating",
        place="output",
        steps=1,
        lr=0.1,
        init=0.3,
        past=-1.0 if loss == "similarity" else 0.0,
        similarity=0.5 if loss == "similarity" else 0.0,
    )
    noise, v = (anchor.start(model, concept, 0).loss(at(model, concept, 400)).item() for model in models)
    a = weight(models[1], 400)
    assert noise != 0
    assert v == pytest.approx(noise if loss == "product" else noise / a, rel=1e-3)


def test_what_has_thresholds_for_noise_is_refused_where_v_is_predicted_before_anything_is_loaded() -> None:
    words = ["model=random", "method=sld_medium", "anchor=concept"]
    compose(words)
    with pytest.raises(
        BadInput, match="method=sld_medium needs a prediction of noise as it is set, and model=random has none"
    ):
        compose([*words, "model.predicts=v_prediction"])
