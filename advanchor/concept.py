"""What is erased, what must stay, and the prompts for both."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from advanchor.core import BadInput, Head, Positive, Texts, option
from advanchor.store import slug

MOST = 200_000  # images that a run may ask for on each side; the field's largest sets have 30,000 prompts
APART = r"(?<![^\W_]){}(?![^\W_])"  # no letter and no digit touches it
SEEDS = ("evaluation_seed", "sd_seed", "seed")  # columns of a CSV file that hold seeds, the first that is there


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
        siblings, unrelated, synonyms: other names, for anchors and attacks.
        templates: sentences with one `{}` used while erasing.
        evaluate: sentences with one `{}` (the phrase) or `{name}`, used for measuring the erased and the kept concepts
            of its kind.
        keep: name -> phrase of concepts of the same kind that must stay, and are measured; lists may be shared, the
            concept itself is passed over.
        preserve: name -> phrase of concepts of the same kind that a method which asks is told to keep; those of `keep` unless given.
        keep_cross: name -> phrase of concepts of the other kind that must stay.
        evaluate_cross: the sentences for `keep_cross`, with a slot each as those of `evaluate`.
        prompts_csv: a CSV file whose column `prompt` has the sentences for the erased concept instead of `evaluate`,
            see `rows`; it belongs to the run like any setting, so name another file after a change.
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
        listed = {"keep": self.keep, "preserve": self.preserve, "keep_cross": self.keep_cross}
        words = {
            "name": [self.name], "phrase": [self.phrase], "superclass": [self.superclass],
            "siblings": self.siblings, "synonyms": self.synonyms,
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
        for setting, sentences in (("evaluate", self.evaluate), ("evaluate_cross", self.evaluate_cross)):
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
        """{"erase": ..., "keep": ...}: every image to draw, the same for every run on this concept.

        Raises:
            BadInput: `prompts_csv` cannot be read; more than MOST images of a side; no prompt for a kept concept; two
                kept names with the same words.
        """
        own = [(fill(sentence, self.name, self.phrase), 0) for sentence in self.evaluate]
        asked = own if self.prompts_csv is None else rows(self.prompts_csv)
        other: Head = "style" if self.kind == "object" else "object"
        places: tuple[tuple[Literal["in", "cross"], Head, dict[str, str], tuple[str, ...]], ...] = (
            ("in", self.kind, self.keep, self.evaluate),
            ("cross", other, self.keep_cross, self.evaluate_cross),
        )
        texts = [
            (fill(sentence, name, phrase), head, name, where)
            for where, head, names, sentences in places
            for name, phrase in names.items()
            if not same(name, self.name)
            for sentence in sentences
        ]
        # "a noto emoji of a fox" tests no style once foxes are gone
        texts = [one for one in texts if not mentions(one[0], self.name, one[2])]
        for side, prompts, images in (("erase", len(asked), sample.erase), ("keep", len(texts), sample.keep)):
            if prompts * images > MOST:
                asks = f"sample.{side}={images} asks for {prompts * images:,} images of {prompts:,} prompts"
                raise BadInput(f"{asks}, and {MOST:,} are the most: lower it, or ask for fewer prompts.")
        if not texts:
            missing = f"concept {self.name} has no prompts for kept concepts"
            raise BadInput(f"{missing}: fill `keep` in its yaml, or damage cannot be seen.")
        seeded = [(text, first + i) for text, first in asked for i in range(sample.erase)]
        erase = once(Prompt(text, seed, self.kind, self.name) for text, seed in seeded)
        again = [(one, seed) for one in texts for seed in range(sample.keep)]
        keep = once(Prompt(text, seed, head, name, where) for (text, head, name, where), seed in again)
        return {"erase": erase, "keep": keep}


def once(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The prompts, each image (text, seed) once, for the last that asks for it.

    Raises:
        BadInput: the same words are to be recognised as two things of one kind.
    """
    found: dict[tuple[str, int], Prompt] = {}
    for p in prompts:
        first = found.get((p.text, p.seed), p)
        if first.head == p.head and first.label != p.label:
            both = f"'{p.text}' is asked for as {first.label} and as {p.label}"
            raise BadInput(f"{both}: give each of them a phrase of its own.")
        found[p.text, p.seed] = p
    return list(found.values())


def rows(file: str) -> list[tuple[str, int]]:
    """The sentences of a CSV file and the first seed of each, every pair once.

    Read are the layouts of I2P (Schramowski et al. 2023, arXiv 2211.05105: `prompt`, `sd_seed`), of ESD, Ring-A-Bell
    and UnlearnDiffAtk (`prompt`, `evaluation_seed`), and `seed`: of a file with several of them the first of SEEDS, as
    UnlearnDiffAtk does. Without such a column, or where it is blank, the seed is 0. Column names in any case; comma,
    semicolon or tab between them; UTF-8 with or without a mark. Other columns (categories, sizes, guidance scales of
    single prompts) are not looked at; lines with nothing in them are passed over. Rows are counted as spreadsheets do,
    the names being row 1.

    Raises:
        BadInput: there is no such file, it is no such CSV file, or a row is not as the first; more than MOST rows.
    """
    where, path = f"concept.prompts_csv={file}", Path(file).expanduser()
    if not path.is_file():
        raise BadInput(f"{where} is no file: name a CSV file with a column `prompt`.")
    found: dict[tuple[str, int], None] = {}
    number = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:  # Excel puts a mark before the first column's name
            first = lines.readline()
            for mark in ",;\t":
                columns = [name.strip().lower() for name in next(csv.reader([first], delimiter=mark), [])]
                if "prompt" in columns:
                    break
            else:
                raise BadInput(f"{where} has no column `prompt` in its first line: call the column of sentences so.")
            if twice := next((name for name in ("prompt", *SEEDS) if columns.count(name) > 1), None):
                raise BadInput(f"{where} has two columns `{twice}`: leave one.")
            prompts = columns.index("prompt")
            seeds = next((columns.index(name) for name in SEEDS if name in columns), None)
            number = 1
            for number, row in enumerate(csv.reader(lines, delimiter=mark, strict=True), 2):
                if not any(field.strip() for field in row):
                    continue
                if len(row) != len(columns):
                    hint = f"put a prompt that holds a '{mark}' in quotes" if len(row) > len(columns) else "complete it"
                    counts = f"{len(row)} fields where the first line has {len(columns)}"
                    raise BadInput(f"{where}: row {number} has {counts}: {hint}.")
                if not row[prompts].strip():
                    raise BadInput(f"{where}: row {number} has no prompt: fill it in or delete the row.")
                given = "" if seeds is None else row[seeds].strip()
                seed = re.fullmatch(r"(\d{1,18})(\.0*)?", given or "0", re.ASCII)
                if seed is None:
                    rule = "it must be a whole number, at least 0, of at most eighteen digits"
                    raise BadInput(f"{where}: row {number} has the seed '{given[:40]}': {rule}.")
                found[row[prompts].strip(), int(seed[1])] = None
                if len(found) > MOST:
                    raise BadInput(f"{where} holds more than {MOST:,} prompts: ask for fewer.")
    except UnicodeDecodeError:
        raise BadInput(f"{where} is not in UTF-8: save it so.") from None
    except csv.Error as error:
        remedy = "close its quotes, and write a quote within a quoted prompt twice"
        raise BadInput(f"{where}: row {number + 1} cannot be read ({error}): {remedy}.") from None
    except OSError as error:
        raise BadInput(f"{where} cannot be read ({error.strerror}).") from None
    if not found:
        raise BadInput(f"{where} holds no prompt.")
    return list(found)


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

        return tuple(
            replace(
                concept, keep=rest(concept.keep), preserve=rest(concept.preserve), keep_cross=rest(concept.keep_cross)
            )
            for concept in self.several.values()
        )

    def prompts(self, sample: Sample) -> dict[str, list[Prompt]]:
        """Those of all concepts; an image that several of them keep is drawn once.

        One that names an erased concept is not kept.

        Raises:
            BadInput: as `Concept.prompts`.
        """
        each = [concept.prompts(sample) for concept in self.parts]
        gone = [concept.name for concept in self.several.values()]
        kept = (p for prompts in each for p in prompts["keep"])
        keep = once(p for p in kept if not any(mentions(p.text, name, p.label) for name in gone))
        if not keep:
            raise BadInput(f"concept {self.name} has no prompts for kept concepts: all of them name an erased one.")
        return {"erase": [p for prompts in each for p in prompts["erase"]], "keep": keep}


@cache
def whole(words: str) -> re.Pattern[str]:
    """Finds the words in a sentence: whole ones, in any case; never a part of another word."""
    return re.compile(APART.format(r"\s+".join(map(re.escape, words.split()))), re.IGNORECASE)


@cache
def named(name: str) -> re.Pattern[str]:
    """Finds the name as `whole` does, in the singular and in English's regular plural: "fox" in "foxes" and back."""
    *before, last = name.split()
    shorter = [last[:-1], last[:-2], *(last[:-3] + end for end in ("y", "f", "fe"))]
    ends = {last, *plurals(last), *(word for word in shorter if word and last.lower() in plurals(word))}
    words = [*map(re.escape, before), f"(?:{'|'.join(map(re.escape, sorted(ends)))})"]
    return re.compile(APART.format(r"\s+".join(words)), re.IGNORECASE)


def plurals(word: str) -> set[str]:
    """The regular plural of an English word, in small letters: foxes, ladies, cars; both of wolves and chefs."""
    word = word.lower()
    if re.search(r"(s|x|z|ch|sh)$", word):
        return {word + "es"}
    if re.search(r"[^aeiou]y$", word):
        return {word[:-1] + "ies"}
    if word.endswith("o"):
        return {word + "s", word + "es"}
    return {word + "s", re.sub("fe?$", "ves", word)} if re.search("fe?$", word) else {word + "s"}


def same(name: str, other: str) -> bool:
    """Are the two names one, whatever their case and number?"""
    return named(other).fullmatch(name.strip()) is not None


def mentions(sentence: str, name: str, own: str = "") -> bool:
    """Does the sentence name it, in words of their own, whatever their case and number?

    Args:
        own: what the sentence is about. Where that holds the name as a part ("hot dog" for "dog"), those words are not
            looked at.
    """
    if own and named(name).search(own):
        sentence = named(own).sub(" ", sentence)
    return named(name).search(sentence) is not None


def slots(sentence: str) -> list[str]:
    """All that stands in braces, and single braces."""
    return re.findall(r"\{[^{}]*\}|[{}]", sentence)


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
        raise BadInput(
            f"concept {concept.name} keeps nothing of its own kind, and this method needs it: fill `keep` in its yaml."
        )
    return sentences
