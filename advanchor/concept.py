"""What is erased, what must stay, and the prompts for both."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from advanchor.core import BadInput, Head, Positive, Texts, option
from advanchor.store import slug


@plain_dataclass(frozen=True)
class Prompt:
    """One image to draw; (text, seed) decide it completely. `head` and `label` say what a detector should find."""

    text: str
    seed: int
    head: Head = "object"
    label: str = ""
    kept: Literal["", "in", "cross"] = ""  # "": the erased concept; same kind; other kind

    @property
    def file(self) -> str:
        """`<text>-<digest>_<seed>.png`: the same image has the same name for every concept and run, and no other text has it ("A fox!" is another image than "a fox?")."""
        return f"{slug(self.text)}_{self.seed:03d}.png"


@option("sample")
class Sample:
    """How images are drawn for measuring.

    Attributes:
        steps: denoising steps, up to the thousand that Stable Diffusion was trained on.
        guidance: classifier-free guidance scale; 1 is none.
        scheduler: own, the model's; ddim; or lms, as the released evaluation of AdvAnchor. What methods learn from is drawn with the model's own.
        erase, keep: images for each prompt of the erased concept, of the kept ones.
    """

    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance: Annotated[float, Field(ge=1)]
    scheduler: Literal["own", "ddim", "lms"]
    erase: Positive
    keep: Positive

    @property
    def looks(self) -> dict[str, Any]:
        """What an image depends on beside model, prompt and seed."""
        return {"steps": self.steps, "guidance": self.guidance, "scheduler": self.scheduler}


@option("concept")
class Concept:
    """What is erased, what must stay, and the prompts for both. Data only: conf/concept/.

    Attributes:
        name: the words that carry the concept; their tokens are the span an adversarial anchor may move.
        kind: which head of the judge recognises it.
        phrase: what fills `{}` in a template: "a fox", "a blob emoji". Contains `name`.
        superclass: the phrase without the concept's attributes: "an animal", "an emoji".
        siblings, unrelated, synonyms: other names, for anchors and attacks.
        templates: sentences with one `{}` used while erasing.
        evaluate: sentences with `{}` (the phrase) or `{name}`, used for measuring the erased and the kept concepts of its kind.
        keep: name -> phrase of concepts of the same kind that must stay, and are measured.
        preserve: name -> phrase of concepts of the same kind that a method which asks is told to keep; those of `keep` unless given.
        keep_cross: name -> phrase of concepts of the other kind that must stay.
        evaluate_cross: the sentences for `keep_cross`.
        prompts_csv: a file whose column `prompt` has the sentences for the erased concept instead of `evaluate`, with the seed of a column `sd_seed` if there is one
            (the layout of I2P, arXiv 2211.05105); it belongs to the run like any setting, so name another file after a change.
    """

    name: str
    kind: Head
    phrase: str
    superclass: str
    siblings: tuple[str, ...] = ()
    unrelated: str | None = None
    synonyms: tuple[str, ...] = ()
    templates: Texts
    evaluate: Texts
    keep: dict[str, str]
    preserve: dict[str, str] = Field(default_factory=dict)
    keep_cross: dict[str, str] = Field(default_factory=dict)
    evaluate_cross: tuple[str, ...] = ()
    prompts_csv: str | None = None

    def __post_init__(self) -> None:
        if self.name not in self.phrase:
            raise ValueError(f"phrase '{self.phrase}' must contain the name '{self.name}'")
        for template in self.templates:
            if template.count("{}") != 1:
                raise ValueError(f"template '{template}' must contain exactly one {{}}")

    @property
    def told(self) -> dict[str, str]:
        """Name -> phrase of what methods that preserve named concepts are told to preserve."""
        return {name: phrase for name, phrase in (self.preserve or self.keep).items() if name != self.name}

    @property
    def parts(self) -> tuple[Concept, ...]:
        """The concepts to erase: this one."""
        return (self,)

    def prompts(self, sample: Sample) -> dict[str, list[Prompt]]:
        """{"erase": ..., "keep": ...}: every image to draw, the same for every run on this concept."""
        asked = [(fill(sentence, self.name, self.phrase), 0) for sentence in self.evaluate] if self.prompts_csv is None else rows(self.prompts_csv)
        erase = [Prompt(text, first + i, self.kind, self.name) for text, first in asked for i in range(sample.erase)]
        other: Head = "style" if self.kind == "object" else "object"
        places: tuple[tuple[Literal["in", "cross"], Head, dict[str, str], tuple[str, ...]], ...] = (
            ("in", self.kind, self.keep, self.evaluate),
            ("cross", other, self.keep_cross, self.evaluate_cross),
        )
        keep = [
            Prompt(fill(sentence, name, phrase), seed, head, name, where)
            for where, head, names, sentences in places
            for name, phrase in names.items()
            if name != self.name
            for sentence in sentences
            if where == "in" or not mentions(sentence, self.name)  # "a noto emoji of a fox" tests no style once foxes are gone
            for seed in range(sample.keep)
        ]
        if not keep:
            raise BadInput(f"concept {self.name} has no prompts for kept concepts: fill `keep` in its yaml, or damage cannot be seen.")
        return {"erase": erase, "keep": keep}


def rows(file: str) -> list[tuple[str, int]]:
    """The sentences of a CSV file and the first seed of each.

    Raises:
        BadInput: there is no such file, it has no column `prompt`, or a seed is no number.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as lines:  # Excel puts a mark before the first column's name
            found = [(row["prompt"].strip(), int(row.get("sd_seed") or 0)) for row in csv.DictReader(lines)]
    except (OSError, KeyError, ValueError, AttributeError) as error:  # the last: a line with fewer columns than the first
        raise BadInput(f"concept.prompts_csv={file} cannot be read ({error}): it must be a CSV file with a column `prompt`, and numbers in `sd_seed` if it has that.") from None
    if not found:
        raise BadInput(f"concept.prompts_csv={file} holds no prompt.")
    return found


@option("concept")
class Concepts:
    """Several concepts erased together. What one of them keeps and another erases is erased.

    Attributes:
        name: of the set.
        several: the concepts, by any name.
    """

    name: str
    several: Annotated[dict[str, Concept], Field(min_length=2)]

    @property
    def parts(self) -> tuple[Concept, ...]:
        """The concepts to erase, none of which is kept by another."""
        gone = {concept.name for concept in self.several.values()}

        def rest(names: Mapping[str, str]) -> dict[str, str]:
            return {name: phrase for name, phrase in names.items() if name not in gone}

        return tuple(replace(concept, keep=rest(concept.keep), preserve=rest(concept.preserve), keep_cross=rest(concept.keep_cross)) for concept in self.several.values())

    def prompts(self, sample: Sample) -> dict[str, list[Prompt]]:
        """Those of all concepts; an image that several of them keep is drawn once, one that names an erased concept is not kept."""
        each = [concept.prompts(sample) for concept in self.parts]
        keep = {(p.text, p.seed, p.label): p for prompts in each for p in prompts["keep"] if not any(mentions(p.text, c.name) for c in self.parts)}
        return {"erase": [p for prompts in each for p in prompts["erase"]], "keep": list(keep.values())}


def mentions(sentence: str, name: str) -> bool:
    """Does the name stand in the sentence as a word of its own?"""
    return f" {name} " in f" {sentence} "


def fill(sentence: str, name: str, phrase: str) -> str:
    """The sentence with its slots filled and spaces tidied, so that an empty phrase leaves a clean sentence."""
    return " ".join(sentence.replace("{name}", name).replace("{}", phrase).split())


def kept(concept: Concept) -> list[str]:
    """Sentences about concepts of the same kind that are to be preserved, in the concept's templates.

    Raises:
        BadInput: there are none.
    """
    sentences = [fill(t, "", phrase) for t in concept.templates for phrase in concept.told.values()]
    if not sentences:
        raise BadInput(f"concept {concept.name} keeps nothing of its own kind, and this method needs it: fill `keep` in its yaml.")
    return sentences
