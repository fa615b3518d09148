"""What is erased, what must stay, and the prompts for both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from advanchor.core import BadInput, Head, Texts, option
from advanchor.naming import fill, mentions, same, slots, whole
from advanchor.prompts import Prompt, Sample, few_enough, once, rows


@option("concept")
class Concept:
    """What is erased, what must stay, and the prompts for both. Data only: conf/concept/.

    The smallest one of your own, conf/concept/logo/acme.yaml:

        _target_: advanchor.concept.Concept
        name: acme
        kind: object
        phrase: an acme logo
        superclass: a logo
        templates: ["{}", "a photo of {}"]
        evaluate: ["{}", "a shirt with {}"]
        keep: {globex: a globex logo}
        prompts_csv: null

    With `defaults: [emoji/_object@_here_, _self_]` on top it inherits the sentences of the emoji world's objects, as
    fox.yaml does.

    No prompt for a kept concept names the erased one: names are found as whole words, in any case and number ("a Fox",
    "foxes", "the fox's", not "foxglove"), and a prompt in which one is found is left out. A kept name of several words
    is its own, though: "a hot dog" is no dog. An image (text, seed) is drawn and counted once, for the last that asks
    for it.

    Attributes:
        name: the words that carry the concept; their tokens are the span an adversarial anchor may move.
        kind: which head of the judge recognises it.
        phrase: what fills `{}` in a template: "a fox", "a blob emoji". Contains `name` as words of their own.
        superclass: the phrase without the concept's attributes: "an animal", "an emoji".
        siblings, unrelated: other names, for anchors; synonyms: more of its own, which nothing reads yet.
        attributes: phrase -> weight of what defines the concept, each with one attribute in it or alone ("a red rose",
            "impasto painting"): what `anchor.attributes` takes as further references.
        templates: sentences with one `{}` used while erasing.
        evaluate: sentences with one `{}` (the phrase) or `{name}`, used for measuring the erased and the kept concepts
            of its kind.
        keep: name -> phrase of concepts of the same kind that must stay, and are measured; lists may be shared, the
            concept itself is passed over.
        preserve: name -> phrase of concepts of the same kind that a method which asks is told to keep; those of `keep`
            unless given.
        keep_cross: name -> phrase of concepts of the other kind that must stay.
        evaluate_cross: the sentences for `keep_cross`, with a slot each as those of `evaluate`.
        near: name -> phrase of the concept's nearest neighbours of its kind, which are the hardest to keep and are
            measured by themselves, on other seeds than `keep` (scripts/neighbours.py finds those of the emoji world).
        evaluate_near: the sentences for `near`; those of `evaluate` unless given.
        prompts_csv: a CSV file whose column `prompt` has the sentences for the erased concept instead of `evaluate`,
            see `rows`; it belongs to the run like any setting, so name another file after a change.
        half: `choose` or `report`, if all that is measured on it is to serve one of the two: `sample.half` must be the
            same, or `all`.
    """

    name: str
    kind: Head
    phrase: str
    superclass: str
    siblings: tuple[str, ...] = ()
    unrelated: str | None = None
    synonyms: tuple[str, ...] = ()
    attributes: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    templates: Texts
    evaluate: Texts
    keep: dict[str, str]
    preserve: dict[str, str] = Field(default_factory=dict)
    keep_cross: dict[str, str] = Field(default_factory=dict)
    evaluate_cross: tuple[str, ...] = ()
    near: dict[str, str] = Field(default_factory=dict)
    evaluate_near: tuple[str, ...] = ()
    prompts_csv: str | None = None
    half: Literal["choose", "report"] | None = None

    def __post_init__(self) -> None:
        listed = {"keep": self.keep, "preserve": self.preserve, "keep_cross": self.keep_cross, "near": self.near}
        words = {
            "name": [self.name], "phrase": [self.phrase], "superclass": [self.superclass],
            "siblings": self.siblings, "synonyms": self.synonyms, "attributes": self.attributes,
            "unrelated": [] if self.unrelated is None else [self.unrelated],
            **{setting: [*names, *names.values()] for setting, names in listed.items()},
        }  # fmt: skip
        for setting, given in words.items():
            for text in given:
                if not text.strip() or slots(text):
                    raise ValueError(f"{setting} '{text}' must be words, without braces")
        if not whole(self.name).search(self.phrase):
            raise ValueError(f"phrase '{self.phrase}' must contain the name '{self.name}' as words of their own")
        for template in self.templates:
            if slots(template) != ["{}"]:
                raise ValueError(f"template '{template}' must contain exactly one {{}} and no other braces")
        measured = {
            "evaluate": self.evaluate,
            "evaluate_cross": self.evaluate_cross,
            "evaluate_near": self.evaluate_near,
        }
        for setting, sentences in measured.items():
            for sentence in sentences:
                if slots(sentence) not in (["{}"], ["{name}"]):
                    rule = "must contain exactly one slot, {} (the phrase) or {name}, and no other braces"
                    raise ValueError(f"{setting} '{sentence}' {rule}")
        for setting, names in listed.items():
            for name, phrase in names.items():
                if twin := next((other for other in names if other != name and other.lower() == name.lower()), None):
                    raise ValueError(f"{setting} has '{name}' and '{twin}', which are one name: leave one of them out")
                if not same(name, self.name) and mentions(phrase, self.name, name):
                    entry = f"{setting} has '{name}: {phrase}'"
                    raise ValueError(f"{entry}, which names the erased '{self.name}': word it otherwise or remove it")

    @property
    def told(self) -> dict[str, str]:
        """Name -> phrase of what methods that preserve named concepts are told to preserve."""
        return {name: phrase for name, phrase in (self.preserve or self.keep).items() if not same(name, self.name)}

    @property
    def parts(self) -> tuple[Concept, ...]:
        """The concepts to erase: this one."""
        return (self,)

    def prompts(self, sample: Sample) -> dict[str, list[Prompt]]:
        """{"erase": ..., "keep": ..., "near": ...}: every image to draw, the same for every run on this concept. "near"
        is empty for a concept without neighbours.

        Raises:
            BadInput: `prompts_csv` cannot be read; more than MOST images of a side; no prompt for a kept concept, or
                none in the half that is asked for; a concept of the other half; two kept names with the same words.
        """
        if sample.half != "all" and self.half not in (None, sample.half):
            remedy = f"set sample.half={self.half}, or take another concept"
            raise BadInput(f"{self.name} is a concept to {self.half} on, and sample.half={sample.half}: {remedy}.")
        bare = re.sub("^(an?|the) ", "", self.superclass)  # what stands for {name}
        if self.prompts_csv is None:
            asked = [
                (fill(sentence, self.name, self.phrase), sample.first, fill(sentence, bare, self.superclass))
                for sentence in self.evaluate
            ]
        else:
            phrase = whole(self.phrase)
            given = rows(self.prompts_csv)
            asked = [
                (text, first, phrase.sub(self.superclass, text) if phrase.search(text) else "") for text, first in given
            ]
        other: Head = "style" if self.kind == "object" else "object"
        places: tuple[tuple[Literal["in", "cross", "near"], Head, dict[str, str], tuple[str, ...]], ...] = (
            ("in", self.kind, self.keep, self.evaluate),
            ("cross", other, self.keep_cross, self.evaluate_cross),
            ("near", self.kind, self.near, self.evaluate_near or self.evaluate),
        )
        texts = {
            where: [
                (text, head, name, where)
                for name, phrase in names.items()
                for text in (fill(sentence, name, phrase) for sentence in sentences)
                # "a noto emoji of a fox" tests no style once foxes are gone
                if not same(name, self.name) and not mentions(text, self.name, name)
            ]
            for where, head, names, sentences in places
        }
        asked, texts = sample.part(asked), {where: sample.part(each) for where, each in texts.items()}
        if not asked:
            raise BadInput(f"sample.half={sample.half} leaves no prompt of one for {self.name}: give it a second one.")
        kept = texts["in"] + texts["cross"]
        counts = {"erase": (len(asked), sample.erase), "keep": (len(kept), sample.keep)}
        few_enough({**counts, "near": (len(texts["near"]), sample.near)})
        if not kept:
            missing = f"concept {self.name} has no prompts for kept concepts"
            raise BadInput(f"{missing}: fill `keep` in its yaml, or damage cannot be seen.")
        seeded = [(text, first + i, instead) for text, first, instead in asked for i in range(sample.erase)]
        again = [(one, sample.first + seed) for one in kept for seed in range(sample.keep)]
        further = [(one, sample.first + sample.keep + seed) for one in texts["near"] for seed in range(sample.near)]
        return {
            "erase": once(Prompt(text, seed, self.kind, self.name, instead=said) for text, seed, said in seeded),
            "keep": once(Prompt(text, seed, head, name, where) for (text, head, name, where), seed in again),
            "near": once(Prompt(text, seed, head, name, where) for (text, head, name, where), seed in further),
        }


@option("concept")
class Concepts:
    """Several concepts erased together. What one of them keeps and another erases is erased.

    Attributes:
        name: of the set.
        several: the concepts, by any name.
    """

    name: str
    several: Annotated[dict[str, Concept], Field(min_length=2)]

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name is empty: call the set something")
        names = [concept.name for concept in self.several.values()]
        for i, name in enumerate(names):
            if any(same(name, other) for other in names[:i]):
                raise ValueError(f"'{name}' is to be erased twice: leave one of them out")

    @property
    def parts(self) -> tuple[Concept, ...]:
        """The concepts to erase, none of which is kept by another."""
        gone = [concept.name for concept in self.several.values()]

        def rest(names: Mapping[str, str]) -> dict[str, str]:
            return {name: phrase for name, phrase in names.items() if not any(same(name, other) for other in gone)}

        def alone(one: Concept) -> Concept:
            kept = {"keep": one.keep, "preserve": one.preserve, "keep_cross": one.keep_cross, "near": one.near}
            left: dict[str, Any] = {setting: rest(names) for setting, names in kept.items()}
            return replace(one, **left)

        return tuple(alone(concept) for concept in self.several.values())

    def prompts(self, sample: Sample) -> dict[str, list[Prompt]]:
        """Those of all concepts; an image that several of them keep is drawn once.

        One that names an erased concept is not kept.

        Raises:
            BadInput: as `Concept.prompts`.
        """
        each = [concept.prompts(sample) for concept in self.parts]
        gone = [concept.name for concept in self.several.values()]

        def left(which: str) -> list[Prompt]:
            every = (p for prompts in each for p in prompts[which])
            return once(p for p in every if not any(mentions(p.text, name, p.label) for name in gone))

        found = {"erase": [p for one in each for p in one["erase"]], "keep": left("keep"), "near": left("near")}
        if not found["keep"]:
            raise BadInput(f"concept {self.name} has no prompts for kept concepts: all of them name an erased one.")
        return found


def kept(concept: Concept) -> list[str]:
    """Sentences about concepts of the same kind that are to be preserved, in the concept's templates.

    Raises:
        BadInput: there are none.
    """
    sentences = [fill(t, "", phrase) for t in concept.templates for phrase in concept.told.values()]
    if not sentences:
        raise BadInput(
            f"concept {concept.name} keeps nothing of its own kind, and this method needs it: fill `keep` in its yaml."
        )
    return sentences
