"""Every anchor is what its name says: closed forms against plain tensors, controls against what they control for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TEMPLATES
from test_advanchor import ANCHOR
from torch import Tensor

from advanchor.anchors.adversarial import Adversarial
from advanchor.anchors.embeddings import Interpolate, Project, Random
from advanchor.anchors.learned import Learned, nearest
from advanchor.anchors.noise import Noise
from advanchor.anchors.similarity import similarity
from advanchor.anchors.words import Empty, Sibling, Superclass, Text, Unrelated
from advanchor.build import build, check
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.protocols import Step
from advanchor.training.closeness import closeness

FIELDS = {k: v for k, v in vars(ANCHOR).items() if k in ANCHOR.__dataclass_fields__}  # type: ignore[attr-defined]
LEARNED = Learned(
    name="learned", loss="direction", schedule="alternating", steps=8, lr=0.1, stop=-1e9, words=3, temperature=1.0
)


def condition(anchor: Any, model: Any, concept: Any, seed: int = 0) -> Tensor:
    return anchor.start(model, concept, seed).condition(TEMPLATES)


def encode(model: Any, phrase: str | None) -> Tensor:
    return model.encode(["" if phrase is None else t.replace("{}", phrase) for t in TEMPLATES])


def on_span(model: Any, concept: Any, e: Tensor) -> Tensor:
    """(sentences, s, d)."""
    return torch.stack(
        [row[model.span(t.replace("{}", concept.phrase), concept.name)] for row, t in zip(e, TEMPLATES, strict=True)]
    )


WORDS = [
    (Superclass(name="superclass"), "a bug"),
    (Empty(name="empty"), None),
    (Text(name="text", text="a red car"), "a red car"),
    (Sibling(name="sibling", of="first"), "a bee"),
    (Sibling(name="sibling", of="spider"), "a spider"),
    (Sibling(name="sibling", of="wombat"), "a wombat"),
    (Unrelated(name="unrelated"), "a church"),
]


@pytest.mark.parametrize(("anchor", "phrase"), WORDS, ids=lambda v: getattr(v, "name", str(v)))
def test_an_anchor_of_words_is_the_embedding_of_the_sentence_with_those_words(
    model: Any, concept: Any, anchor: Any, phrase: str | None
) -> None:
    concept = replace(
        concept,
        siblings=("bee",),
        unrelated="church",
        keep={**concept.keep, "bee": "a bee", "spider": "a spider", "church": "a church"},
    )
    target = anchor.start(model, concept, 0)
    assert torch.equal(target.condition(TEMPLATES), encode(model, phrase))
    texts = ["" if phrase is None else t.replace("{}", phrase) for t in TEMPLATES]
    assert target.ends(TEMPLATES) == [len(model.pipe.tokenizer(t).input_ids) - 1 for t in texts]
    if phrase:  # all of these sentences end with their subject
        assert target.subjects(TEMPLATES) == [[end - 1] for end in target.ends(TEMPLATES)]
        assert target.subjects(["{} of a cat"]) == target.subjects(["{}"])


def test_the_nearest_sibling_is_the_kept_concept_with_the_most_similar_sentences(model: Any, concept: Any) -> None:
    def pooled(phrase: str) -> Tensor:
        texts = [t.replace("{}", phrase) for t in concept.templates]
        ids = model.pipe.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
        return model.pipe.text_encoder(ids).pooler_output

    similarities = {
        p: float(F.cosine_similarity(pooled(p), pooled(concept.phrase)).mean()) for p in concept.keep.values()
    }
    assert nearest(model, concept, list(concept.keep.values())) == sorted(similarities, key=lambda p: -similarities[p])
    best = max(similarities, key=lambda p: similarities[p])
    assert torch.equal(condition(Sibling(name="sibling", of="nearest"), model, concept), encode(model, best))


def test_a_missing_sibling_or_unrelated_concept_is_said_in_one_sentence(model: Any, concept: Any) -> None:
    bare = replace(concept, siblings=(), unrelated=None)
    for anchor in (
        Sibling(name="s", of="first"),
        Unrelated(name="u"),
        Interpolate(name="i", other="sibling", weight=0.5),
        Interpolate(name="i", other="unrelated", weight=0.5),
    ):
        with pytest.raises(BadInput, match="butterfly"):
            anchor.start(model, bare, 0)


def test_the_random_anchor_has_the_tokens_norms_and_nothing_else_of_them(model: Any, concept: Any) -> None:
    e_a, e_c = condition(Random(name="random"), model, concept), encode(model, concept.phrase)
    a, c = on_span(model, concept, e_a), on_span(model, concept, e_c)
    assert torch.allclose(a.norm(dim=-1), c.norm(dim=-1), rtol=1e-5)
    assert F.cosine_similarity(a, c, dim=-1).abs().max() < 0.7
    assert (((e_a - e_c).abs().sum(-1) > 0).sum(-1) == a.shape[1]).all()
    assert torch.equal(e_a, condition(Random(name="random"), model, concept))
    assert not torch.equal(e_a, condition(Random(name="random"), model, concept, seed=1))


def test_noise_has_the_norm_of_the_adversarial_perturbation_in_another_direction(
    model: Any, concept: Any, step: Any
) -> None:
    noise, adversarial = Noise(**FIELDS).start(model, concept, 0), ANCHOR.start(model, concept, 0)
    e_c = encode(model, concept.phrase)
    noisy, moved = (on_span(model, concept, t.embed(step) - e_c) for t in (noise, adversarial))
    assert torch.equal(noise.parameter, adversarial.parameter)
    assert torch.allclose(noisy.norm(dim=(1, 2)), moved.norm(dim=(1, 2)), rtol=1e-3)
    assert moved.norm() > 0
    assert F.cosine_similarity(noisy.flatten(1), moved.flatten(1)).abs().max() < 0.7


@pytest.mark.parametrize(("other", "phrase"), [("superclass", "a bug"), ("empty", None)])
def test_interpolation_goes_from_the_concept_to_the_other_anchor(
    model: Any, concept: Any, other: Any, phrase: str | None
) -> None:
    e_c, e_o = encode(model, concept.phrase), encode(model, phrase)
    at = {
        w: condition(Interpolate(name="interpolate", other=other, weight=w), model, concept) for w in (0.0, 0.25, 1.0)
    }
    assert torch.equal(at[0.0], e_c)
    assert torch.allclose(at[0.25], 0.75 * e_c + 0.25 * e_o, atol=1e-6)
    assert torch.allclose(at[1.0], e_o, atol=1e-6)


def test_projection_leaves_nothing_along_the_defining_direction_and_everything_else(model: Any, concept: Any) -> None:
    concept = replace(concept, templates=TEMPLATES)
    e_c, e_b = encode(model, concept.phrase), encode(model, concept.superclass)
    own = on_span(model, concept, e_c).mean((0, 1))
    lengths = [len(model.pipe.tokenizer(t.format("a bug")).input_ids) for t in TEMPLATES]
    kinds = torch.stack([row[n - 3 : n - 1].mean(0) for row, n in zip(e_b, lengths, strict=True)]).mean(
        0
    )  # "a bug" is the end of each sentence
    v = (own - kinds) / (own - kinds).norm()
    moved = on_span(model, concept, condition(Project(name="project"), model, concept) - e_c)
    left = on_span(model, concept, condition(Project(name="project"), model, concept)) - kinds
    assert (left @ v).abs().max() < 1e-5
    across = moved - (moved @ v)[..., None] * v
    assert across.abs().max() < 1e-5
    assert moved.norm() > 0.1


def test_the_learned_anchor_is_a_mixture_of_its_vocabulary_that_lowers_the_loss(
    model: Any, concept: Any, step: Any
) -> None:
    target = LEARNED.start(model, concept, 0)
    phrases = nearest(model, concept, [*concept.keep.values(), concept.superclass])[:3]
    assert concept.phrase not in phrases
    e = torch.stack([encode(model, p) for p in phrases])
    assert torch.allclose(target.condition(TEMPLATES), e.mean(0), atol=1e-6)
    before = target.loss(step).item()
    got = target.embed(step)
    weights = target.parameter.detach().softmax(0)
    assert torch.allclose(got, (weights[:, None, None, None] * e).sum(0), atol=1e-6)
    assert target.loss(step).item() < before
    assert target.report()["anchor/steps"] == 8


def test_similarity_is_one_for_the_concept_and_falls_with_distance(model: Any, concept: Any) -> None:
    def of(anchor: Any) -> dict[str, float]:
        return similarity(model, anchor.start(model, concept, 0))

    near, far = (of(Interpolate(name="i", other="superclass", weight=w)) for w in (0.1, 0.9))
    same = of(Interpolate(name="i", other="superclass", weight=0.0))
    assert same["anchor/cosine_span"] == pytest.approx(1, abs=1e-5)
    assert same["anchor/cosine_pooled"] == pytest.approx(1, abs=1e-5)
    assert same["anchor/shift"] == pytest.approx(0, abs=1e-6)
    assert near["anchor/cosine_span"] > far["anchor/cosine_span"]
    assert near["anchor/shift"] < far["anchor/shift"]


# --- what cannot work is said at the start -----------------------------------------------------------------------

UNSUITABLE = [
    (Sibling(name="sibling", of="first"), {"siblings": ()}, "names no siblings: set anchor.of"),
    (Sibling(name="sibling", of="nearest"), {"keep": {}}, "keeps nothing to take the nearest of"),
    (Unrelated(name="unrelated"), {"unrelated": None}, "names nothing unrelated"),
    (
        Interpolate(name="interpolate", other="sibling", weight=0.5),
        {"siblings": ()},
        "has no sibling: choose another anchor.other",
    ),
    (
        Interpolate(name="interpolate", other="unrelated", weight=0.5),
        {"unrelated": None},
        "has no unrelated: choose another anchor.other",
    ),
    (LEARNED, {"keep": {}}, "there are no two: fill `keep`"),
    (LEARNED, {"keep": {"butterfly": "a butterfly"}}, "there are no two: fill `keep`"),
]


@pytest.mark.parametrize(("anchor", "changes", "sentence"), UNSUITABLE)
def test_an_anchor_that_a_concept_has_not_is_known_without_a_model_and_refused_at_the_start(
    anchor: Any, changes: dict[str, Any], sentence: str, model: Any, concept: Any
) -> None:
    anchor.suits(concept)
    poorer = replace(concept, **changes)
    for act in (lambda: anchor.suits(poorer), lambda: anchor.start(model, poorer, 0)):
        with pytest.raises(BadInput, match=sentence):
            act()


@pytest.mark.parametrize(("anchor", "changes", "sentence"), [
    (Project(name="project"), {"phrase": "butterfly", "superclass": "butterfly"}, "correct concept.superclass"),
    (ANCHOR, {"templates": ("{}", "an emoji of a {}ish thing")}, "does not stand in .* as a word of its own"),
    (replace(ANCHOR, span="words"), {"templates": ("{}", "a " * 30 + "{}")}, "is too long for the text encoder"),
])  # fmt: skip
def test_an_anchor_without_a_place_in_every_sentence_is_refused_at_the_start(
    anchor: Any, changes: dict[str, Any], sentence: str, model: Any, concept: Any
) -> None:
    with pytest.raises(BadInput, match=sentence):
        anchor.start(model, replace(concept, **changes), 0)


@pytest.mark.parametrize("anchor", [ANCHOR, LEARNED, Noise(**{**FIELDS, "name": "noise"})], ids=lambda a: a.name)
def test_an_anchor_that_is_not_finite_is_refused_when_it_is_used(anchor: Any, model: Any, concept: Any) -> None:
    target = anchor.start(model, concept, 0)
    with torch.no_grad():
        target.parameter.fill_(float("inf"))
    with pytest.raises(BadInput, match=r"the anchor is not finite after 0 updates: lower anchor\.lr"):
        target.condition(TEMPLATES)


def test_the_last_update_of_an_anchor_is_looked_at_though_no_loss_follows_it(
    model: Any, concept: Any, step: Any
) -> None:
    target = replace(LEARNED, steps=1, lr=1e30, temperature=1e-30).start(model, concept, 0)
    with pytest.raises(BadInput, match=r"the anchor is not finite after 1 updates"):
        target.embed(step)


@pytest.mark.parametrize(
    "setting", ["anchor.lr=1e39", "method.lr=1e39", "method.pool_steps=1000", "anchor=learned anchor.words=1"]
)
def test_a_number_that_no_run_could_use_is_refused_before_anything_is_loaded(setting: str) -> None:
    with pytest.raises(BadInput, match=rf"{setting.split()[-1].partition('=')[0]}=.* will not do"):
        compose(["model=random", *setting.split()])


# --- the similarity term, references, and a search that is finished ahead -----------------------------------------


def similar(**changes: Any) -> Any:
    fields = {**FIELDS, "loss": "similarity", "past": -1.0, "similarity": 0.3, "stop": 0.0, **changes}
    return Adversarial(**fields)


def a_step(model: Any, concept: Any, n: int = 3) -> Step:
    g = torch.Generator().manual_seed(5)
    x = torch.randn(n, 4, 8, 8, generator=g)
    return Step(model, concept, x, torch.tensor([100, 400, 800])[:n], TEMPLATES[:n])


def test_the_similarity_loss_is_the_formula_written_out(model: Any, concept: Any) -> None:
    search = similar().start(model, concept, 0)
    with torch.no_grad():
        search.parameter.normal_(generator=torch.Generator().manual_seed(1))
    step = a_step(model, concept)
    e_a = model.predict(step.x, step.t, search.condition(step.templates))
    e_c, e_b = step.frozen(concept.phrase), step.frozen(concept.superclass)
    each = []
    for image in range(len(step.x)):
        d, u = e_c[image] - e_b[image], e_a[image] - e_b[image]
        a = (u * d).sum() / (d * d).sum()
        each.append(max(float(a) + 1.0, 0.0) ** 2 * (d * d).mean() + 0.3 * (u * u).mean())
    assert search.loss(step).item() == pytest.approx(float(sum(each) / len(each)), rel=1e-4)


def test_the_similarity_loss_moves_the_anchor_down_the_concepts_direction_and_its_weight_holds_it_at_the_superclass(
    model: Any, concept: Any
) -> None:
    step = a_step(model, concept)
    e_b = step.frozen(concept.superclass)
    d = step.frozen(concept.phrase) - e_b

    def found(**changes: Any) -> tuple[float, float]:
        search = similar(lr=1e-2, **changes).start(model, concept, 0)
        search.descend(step, 200)
        u = model.predict(step.x, step.t, search.condition(step.templates)) - e_b
        return float((u * d).sum() / (d * d).sum()), float(u.square().mean())

    (free, far), (_, near) = found(similarity=0.0), found(similarity=30.0)
    assert free < 0.5
    assert near < far


def test_a_loss_over_attributes_is_the_weighted_mean_of_its_references(model: Any, concept: Any) -> None:
    concept = replace(concept, attributes={"a red fox": 3.0, "a wild bee": 1.0})
    step = a_step(model, concept)
    for kind in ("direction", "product"):
        anchor = Adversarial(**{**FIELDS, "loss": kind, "attributes": 0.5})
        search = anchor.start(model, concept, 0)
        e_a, e_b = model.predict(step.x, step.t, search.condition(step.templates)), step.frozen(concept.superclass)

        def term(phrase: str, kind: str = kind, e_a: Tensor = e_a, e_b: Tensor = e_b) -> Tensor:
            e_r = step.frozen(phrase)
            return (e_a * e_r).mean() if kind == "product" else ((e_a - e_b) * (e_r - e_b)).mean()

        mean = 0.5 * term(concept.phrase) + 0.375 * term("a red fox") + 0.125 * term("a wild bee")
        assert search.loss(step).item() == pytest.approx(float(mean), rel=1e-4, abs=1e-9)


def test_attributes_that_a_concept_does_not_name_are_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(BadInput, match=r"anchor.attributes=0.5, and concept car has none: name some in its yaml"):
        check(compose(["concept=emoji/car", "anchor.attributes=0.5"]))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (["anchor=adversarial", "anchor.past=-1"], "loss=direction has no past and no similarity"),
        (["anchor=adversarial", "anchor.batches=3"], "schedule=alternating will not do with batches=3"),
        (["anchor=similarity", "anchor.batches=0"], "schedule=ahead will not do with batches=0"),
    ],
)
def test_a_setting_that_a_loss_or_schedule_would_not_look_at_is_refused(setting: list[str], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        check(compose(setting))


def test_ahead_learns_on_so_many_batches_before_the_weights_and_is_fixed_afterwards(model: Any, concept: Any) -> None:
    search = similar(schedule="ahead", batches=4, steps=2).start(model, concept, 0)
    assert [search.rehearsals(steps) for steps in (0, 7, 500)] == [4, 4, 4]
    step = a_step(model, concept)
    search.rehearse(step)
    assert search.taken == 2
    learned = search.parameter.detach().clone()
    search.embed(step)
    assert torch.equal(search.parameter, learned)


def test_where_an_anchor_is_in_the_predictions_is_measured_between_superclass_and_concept(
    model: Any, concept: Any, tmp_path: Path
) -> None:
    found = {}
    for name in ("concept", "superclass", "empty"):
        anchor = build(compose(["model=random", "concept=emoji/butterfly", f"anchor={name}"]).anchor, "anchor")
        found[name] = closeness(model, anchor.start(model, concept, 0), tmp_path)
    names = ("anchor/predicted", "anchor/along", "anchor/across")
    assert [found["concept"][n] for n in names] == pytest.approx([0, 1, 0], abs=1e-4)
    assert [found["superclass"][n] for n in names] == pytest.approx([1, 0, 0], abs=1e-4)
    far = found["empty"]
    assert far["anchor/predicted"] > 0
    assert far["anchor/across"] > 0
    again = build(compose(["model=random", "anchor=empty"]).anchor, "anchor").start(model, concept, 5)
    assert closeness(model, again, tmp_path / "elsewhere") == far  # the same images, whatever the run's seed
