"""How close an anchor is to its concept: the first of the two numbers that the analysis of anchors is about."""

from __future__ import annotations

from advanchor.anchors.slot import Slot
from advanchor.anchors.words import sentences
from advanchor.lazy import F, torch
from advanchor.naming import fill
from advanchor.protocols import Model, Target


def similarity(model: Model, target: Target) -> dict[str, float]:
    """Means over the concept's templates.

    Returns:
        anchor/cosine_span: cosine of e_a and e_c at the positions of the concept's tokens, whatever the anchor has
            there.
        anchor/cosine_pooled: cosine of the two sentences' embeddings (a condition's row for them, or the encoder's
            outputs at their end tokens). An anchor that moves only the concept's own output tokens has 1.
        anchor/shift: |e_a - e_c| / |e_c| at the concept's tokens.
    """
    concept = target.concept
    texts = [fill(t, "", concept.phrase) for t in concept.templates]
    with torch.no_grad():
        e_a, e_c = target.condition(concept.templates), model.encode(texts)
    ends = [model.end(t) for t in texts]
    rows = [(e_a[i, s], e_c[i, s]) for i, s in enumerate(Slot(model, concept).spans(concept.templates))]
    pooled = zip(sentences(model, e_a, target.ends(concept.templates)), sentences(model, e_c, ends), strict=True)
    n = len(texts)
    return {
        "anchor/cosine_span": sum(float(F.cosine_similarity(a, c, dim=-1).mean()) for a, c in rows) / n,
        "anchor/cosine_pooled": sum(float(F.cosine_similarity(a, c, dim=-1)) for a, c in pooled) / n,
        "anchor/shift": sum(float((a - c).norm() / c.norm()) for a, c in rows) / n,
    }
