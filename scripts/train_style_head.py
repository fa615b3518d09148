"""Train the head by which judge=sd tells styles: a linear layer on ResNet-18's features of images that the unedited
model draws, as in AdvAnchor's released evaluation.

    python scripts/train_style_head.py --to=heads/sd14 \\
        model=sd14 model.path=/models/stable-diffusion-v1-4 concept=sd_style/cezanne
    advanchor experiment=table_sd14_styles model.path=/models/stable-diffusion-v1-4 judge.styles=heads/sd14

The classes are the concepts that the named concept is measured beside, and itself; --images of each (100) are drawn
with seeds that are never measured, and kept over a kill. Prints the accuracy on the fifth of them that it was not
trained on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from advanchor.compose import compose
from advanchor.identity import key
from advanchor.images import draw
from advanchor.judges.sd_networks import style_features
from advanchor.machine import device
from advanchor.naming import fill
from advanchor.prompts import Prompt
from advanchor.run import build, sample_of

FIRST_SEED = 500_000


def fit(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights (classes, d) and biases (classes,) of a logistic regression on standardised features (n, d), with weight
    decay 1e-3, in float64 by L-BFGS.
    """
    middle, width = features.double().mean(0), features.double().std(0).clamp_min(1e-6)
    x = (features.double() - middle) / width
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, labels) + 1e-3 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return (weight / width).float(), (bias - (weight / width) @ middle).float()


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    options, overrides = parser.parse_known_args(arguments)
    cfg = compose(overrides)
    concept, sample = build(cfg.concept, "concept"), sample_of(cfg)
    if getattr(concept, "kind", "") != "style":
        parser.error(
            f"concept={concept.name} is no style: add concept=sd_style/van_gogh, "
            "whose kept styles are the others that the head tells."
        )
    names = {**concept.keep, concept.name: concept.phrase}
    classes = sorted(names)
    prompts = [
        Prompt(fill(concept.evaluate[i % len(concept.evaluate)], name, names[name]), FIRST_SEED + i, "style", name)
        for name in classes
        for i in range(options.images)
    ]
    model = build(cfg.model, "model").open(device(cfg.device))
    images = draw(
        partial(model.draw, **sample.looks),
        prompts,
        Path(cfg.root) / "store" / "samples" / f"base-{key(cfg.model, sample.looks)}",
        batch=cfg.batch,
        label="styles",
    )
    features = style_features(images.pictures, device(cfg.device))
    labels = torch.tensor([classes.index(p.label) for p in prompts])
    held_out = torch.arange(len(prompts)) % 5 == 4
    weight, bias = fit(features[~held_out], labels[~held_out], len(classes))
    accuracy = float(((features[held_out] @ weight.T + bias).argmax(1) == labels[held_out]).float().mean())
    options.to.mkdir(parents=True, exist_ok=True)
    save_file({"weight": weight, "bias": bias}, options.to / "head.safetensors")
    (options.to / "styles.json").write_text(json.dumps(classes) + "\n")
    print(
        f"{len(classes)} styles, {int((~held_out).sum())} images; {accuracy:.3f} of {int(held_out.sum())} others are "
        "told right"
    )
    return accuracy


if __name__ == "__main__":
    main()
