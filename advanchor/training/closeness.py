"""How far an anchor is from its concept in what the frozen model predicts, beside how far the embeddings are."""

from __future__ import annotations

from pathlib import Path

from advanchor.lazy import torch
from advanchor.naming import fill
from advanchor.protocols import Model, Target
from advanchor.training.draws import random
from advanchor.training.pools import Pool

STEPS, GUIDANCE = 20, 4.0  # of the images that it looks at
PLACES = 4  # timesteps, in the middles of as many equal parts


def closeness(model: Model, target: Target, folder: Path) -> dict[str, float]:
    """Means over one image of the concept for each of its templates, noised to PLACES timesteps; the same images for
    every anchor. With e the frozen model's prediction under the concept (c), its superclass (b) and the anchor (a), and
    d = e_c - e_b as in the loss of anchor=similarity:

    Returns:
        anchor/predicted: |e_a - e_c|^2 / |d|^2; 0 is the concept, 1 as far as the superclass.
        anchor/along: the coordinate of e_a - e_b along d; 1 is the concept, 0 the superclass.
        anchor/across: what of e_a - e_b is not along d, squared, over |d|^2.
    """
    concept = target.concept
    pool = Pool.drawn(
        model, concept, len(concept.templates), 0, folder, steps=STEPS, guidance=GUIDANCE, name="closeness"
    )
    own, plain = ([fill(t, "", phrase) for t in pool.templates] for phrase in (concept.phrase, concept.superclass))
    sums = torch.zeros(3)
    with torch.no_grad():
        conds = [target.condition(pool.templates), model.encode(own), model.encode(plain)]
        for place in range(PLACES):
            t = torch.full((len(own),), (2 * place + 1) * model.timesteps // (2 * PLACES), device=model.device)
            noise = torch.randn(pool.latents.shape, generator=random(0, 2, 1, place)).to(pool.latents)
            x = model.noised(pool.latents, t, noise)
            a, c, b = (model.predict(x, t, cond).flatten(1) for cond in conds)
            d = c - b
            size = d.square().sum(1)
            along = ((a - b) * d).sum(1) / size
            across = (a - b).square().sum(1) / size - along**2
            sums += torch.stack([((a - c).square().sum(1) / size).mean(), along.mean(), across.mean()]).cpu()
    predicted, along_d, off_d = (sums / PLACES).tolist()
    return {"anchor/predicted": predicted, "anchor/along": along_d, "anchor/across": off_d}
