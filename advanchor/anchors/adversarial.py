"""AdvAnchor: an anchor that is optimised instead of named (Zhao et al. 2024, arXiv 2501.00054).

A perturbation delta (s, d) of the embeddings of the concept's tokens, one for all images, that makes the frozen model
predict noise unlike the concept's; losses and schedules are those of search.py. Where the released code leaves a choice
open or holds a slip, the option says so; conf/anchor/adversarial_faithful.yaml keeps them all. The release also halves
its loss, which Adam does not see.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from advanchor.anchors.search import Loss, Schedule, Search
from advanchor.anchors.slot import Slot
from advanchor.concept import Concept
from advanchor.core import BadInput, Need, Positive, Rate, option
from advanchor.lazy import torch
from advanchor.protocols import Model


@option("anchor")
class Adversarial:
    """Settings of the anchor's optimisation.

    Attributes:
        loss: see search.py. Product stays near E[eps^2] and hardly ever stops; direction reaches 0; similarity is ours.
        schedule: alternating (for each batch up to `steps` on delta, then one on the weights, same z_t and t),
            sequential (one pass over all batches for delta, then one with fresh noise for the weights), cyclical
            (`steps` passes with one delta step a batch, then the weights), or, ours, ahead (`batches` batches for
            delta, however long the weights are trained afterwards).
        batches: how many those are; other schedules do not look at it.
        place: delta is added to the text encoder's output (the paper's figure) or to its input token embeddings.
        steps: K, at most this many updates of delta per batch.
        lr: Adam's learning rate for delta.
        stop: tau; a batch is done as soon as L < tau.
        init: deviation of delta's random start.
        bound: an extension, not in the paper: largest allowed |delta| / |e_c| on the span; null is no bound.
        keep_optimiser: Adam's moments live on from batch to batch; False re-creates it, as the released code does.
        zero_grad: gradients of delta are zeroed before each update; False sums them within a batch, as the released
            code does.
        span: tokens (all BPE pieces of the name) or words (one position per space-separated word, the released code's
            slip).
        suffix: appended to the name in the anchor's sentences; the released code has "'s".
        past: m of the similarity loss: how far along the concept's direction the anchor may stay, 0 at the superclass,
            below it past the superclass. Other losses do not look at it.
        similarity: w, the weight of that loss's second term.
        streams: of a model that is given tokens of several kinds those that delta moves: clip, t5, or all.
        sentence: delta moves the embedding of the whole sentence too, where the model is given one beside the tokens.
            With place=input it moves by itself.
        attributes: share of the loss's first term that the concept's named attributes have as references beside the
            concept itself (`--att_size` of the release); 0 is the concept alone.
    """

    name: str
    loss: Loss
    schedule: Schedule
    place: Literal["output", "input"]
    steps: Positive
    lr: Rate
    stop: float = 0.0
    init: Annotated[float, Field(ge=0)] = 1e-7
    bound: Rate | None = None
    keep_optimiser: bool = True
    zero_grad: bool = True
    span: Literal["tokens", "words"] = "tokens"
    suffix: str = ""
    batches: Annotated[int, Field(ge=0)] = 0
    past: float = 0.0
    similarity: Annotated[float, Field(ge=0)] = 0.0
    streams: Literal["all", "clip", "t5"] = "all"
    sentence: bool = False
    attributes: Annotated[float, Field(ge=0, le=1)] = 0.0
    version: int = 1

    def __post_init__(self) -> None:
        if self.loss != "similarity" and (self.past != 0 or self.similarity != 0):
            raise ValueError(f"loss={self.loss} has no past and no similarity: set both to 0, or loss=similarity")
        if (self.schedule == "ahead") != (self.batches > 0):
            remedy = "set batches above 0 with schedule=ahead, to 0 with another"
            raise ValueError(f"schedule={self.schedule} will not do with batches={self.batches}: {remedy}")

        if self.place == "input" and self.sentence:
            raise ValueError("place=input moves the sentence by itself: set sentence=false")

    @property
    def needs(self) -> tuple[Need, ...]:
        """Of a model: what is to be moved; with place=input one encoder, since which of two inputs is not said."""
        named: dict[Need, bool] = {
            "a single text encoder": self.place == "input",
            "CLIP's tokens": self.streams == "clip",
            "T5's tokens": self.streams == "t5",
            "an embedding of the whole sentence": self.sentence,
        }
        return tuple(need for need, there in named.items() if there)

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if attributes are asked for and the concept names none: known before a model is loaded."""
        if self.attributes > 0 and not concept.attributes:
            remedy = "name some in its yaml, or set anchor.attributes=0"
            raise BadInput(f"anchor.attributes={self.attributes:g}, and concept {concept.name} has none: {remedy}.")

    def slot(self, model: Model, concept: Concept) -> Slot:
        """What delta moves."""
        among = None if self.streams == "all" else (model.streams.index(self.streams),)
        return Slot(model, concept, self.suffix, self.span, among, self.sentence)

    def start(self, model: Model, concept: Concept, seed: int) -> Search:
        slot = self.slot(model, concept)
        tokens = slot.tokens()
        if any(
            len(place) != len(tokens) - self.sentence for places in slot.places(concept.templates) for place in places
        ):
            raise BadInput(
                f"'{concept.name}{self.suffix}' has not the same tokens in all of concept.templates: reword them."
            )
        # float32 always: a start at 1e-7 would vanish in half precision.
        start = self.init * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(seed))
        if self.sentence:
            start[-1, model.pooled :] = 0  # which is padding
        delta = start.to(model.device, torch.float32).requires_grad_()

        def project() -> None:
            if self.bound is None:
                return
            with torch.no_grad():
                delta.mul_(min(1.0, self.bound * float(tokens.norm()) / max(float(delta.norm()), 1e-20)))

        return Search(
            concept,
            delta,
            lambda templates: slot.encode(templates, delta, self.place),
            slot.ends,
            slot.subjects,
            project=project,
            loss=self.loss,
            schedule=self.schedule,
            steps=self.steps,
            lr=self.lr,
            stop=self.stop,
            keep_optimiser=self.keep_optimiser,
            zero_grad=self.zero_grad,
            batches=self.batches,
            past=self.past,
            similarity=self.similarity,
            references=references(concept, self.attributes),
        )


def references(concept: Concept, share: float) -> dict[str, float]:
    """phrase -> weight, 1 in all: `share` of it for the concept's attributes in the proportion of their weights."""
    if share == 0:
        return {concept.phrase: 1.0}
    whole = sum(concept.attributes.values())
    return {concept.phrase: 1 - share} | {phrase: share * w / whole for phrase, w in concept.attributes.items()}
