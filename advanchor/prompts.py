"""The images to draw: a text and a seed each, and what a detector should find; also from a CSV file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from advanchor.core import BadInput, Head, Need, Positive, option
from advanchor.store import slug

MOST = 200_000  # images that a run may ask for on each side; the field's largest sets have 30,000 prompts
REPORTED = 1000
SEEDS = ("evaluation_seed", "sd_seed", "seed")  # columns of a CSV file that hold seeds, the first that is there


@option("sample")
class Sample:
    """How images are drawn for measuring.

    Attributes:
        steps: denoising steps, up to the thousand that Stable Diffusion was trained on.
        guidance: classifier-free guidance scale; 1 is none.
        scheduler: own, the model's; ddim; or lms, as the released evaluation of AdvAnchor. What methods learn from is
            drawn with the model's own.
        erase, keep, near: images for each prompt of the erased concept, of the kept ones, of its neighbours.
        half: of the prompts. `choose` takes the first, third, ... of each side, for settings to be chosen on; `report`
            the others, with seeds from REPORTED on, for what is told of them; `all` every one.
    """

    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance: Annotated[float, Field(ge=1)]
    scheduler: Literal["own", "ddim", "lms"]
    erase: Positive
    keep: Positive
    near: Positive
    half: Literal["all", "choose", "report"] = "all"

    @property
    def needs(self) -> tuple[Need, ...]:
        """Of a model (core.py)."""
        return () if self.scheduler == "own" else ("a diffusion's noise schedule",)

    @property
    def first(self) -> int:
        """The seed of the first image of a prompt that has none of its own."""
        return REPORTED if self.half == "report" else 0

    def part(self, prompts: Sequence[Any]) -> list[Any]:
        """Those of the half that is drawn."""
        return list({"all": prompts, "choose": prompts[::2], "report": prompts[1::2]}[self.half])

    @property
    def looks(self) -> dict[str, Any]:
        """What an image depends on beside model, prompt and seed."""
        return {"steps": self.steps, "guidance": self.guidance, "scheduler": self.scheduler}


@dataclass(frozen=True)
class Prompt:
    """One image to draw; (text, seed) decide it completely. `head` and `label` say what a detector should find, `kept`
    why: "" is the erased concept, `in` a kept one of its kind, `cross` of the other kind, `near` a neighbour. `instead`
    is the sentence with the superclass in the erased concept's place, "" where it has none.
    """

    text: str
    seed: int
    head: Head = "object"
    label: str = ""
    kept: Literal["", "in", "cross", "near"] = ""
    instead: str = ""

    @property
    def file(self) -> str:
        """`<text>-<digest>_<seed>.png`: the same image has the same name for every concept and run, and no other text
        has it ("A fox!" is another image than "a fox?").
        """
        return f"{slug(self.text)}_{self.seed:03d}.png"


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


def few_enough(asked: Mapping[str, tuple[int, int]]) -> None:
    """Raise BadInput if a side, name -> (prompts, images of each), has more than MOST images."""
    for side, (prompts, images) in asked.items():
        if prompts * images > MOST:
            asks = f"sample.{side}={images} asks for {prompts * images:,} images of {prompts:,} prompts"
            raise BadInput(f"{asks}, and {MOST:,} are the most: lower it, or ask for fewer prompts.")


def reseeded(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The same prompts on other seeds, as many: for each text those that follow its highest."""
    last: dict[str, int] = {}
    for p in prompts:
        last[p.text] = max(p.seed, last.get(p.text, 0))
    return [replace(p, seed=p.seed + last[p.text] + 1) for p in prompts]


def rows(file: str) -> list[tuple[str, int]]:
    """The sentences of a CSV file and the first seed of each, every pair once.

    Read are the layouts of I2P (Schramowski et al. 2023, arXiv 2211.05105: `prompt`, `sd_seed`), of ESD, Ring-A-Bell
    and UnlearnDiffAtk (`prompt`, `evaluation_seed`), and `seed`: of a file with several of them the first of SEEDS, as
    UnlearnDiffAtk does. Without such a column, or where it is blank, the seed is 0. Column names in any case; comma,
    semicolon or tab between them; UTF-8 with or without a mark. Other columns (categories, sizes, guidance scales of
    single prompts) are not looked at; lines with nothing in them are passed over. Rows are counted as spreadsheets do,
    the names being row 1. MS-COCO's captions have the layout of ESD. Of a .txt file (UnlearnCanvas, HUB) every line is
    a sentence, with seed 0.

    Raises:
        BadInput: there is no such file, it is no such CSV file, or a row is not as the first; more than MOST rows.
    """
    return list(dict.fromkeys((text, seed) for text, seed, _ in rows_of(file, "concept.prompts_csv")))


def rows_of(file: str, setting: str) -> list[tuple[str, int, str]]:
    """As `rows`, with what stands in a column `of`, "" without one: the plain sentence that a row says otherwise.

    Args:
        setting: that names the file.

    Raises:
        BadInput: as `rows`.
    """
    where, path = f"{setting}={file}", Path(file).expanduser()
    if not path.is_file():
        raise BadInput(f"{where} is no file: name a CSV file with a column `prompt`.")
    found: dict[tuple[str, int, str], None] = {}
    number = 0
    try:
        if path.suffix.lower() == ".txt":  # a sentence in each line, as UnlearnCanvas and HUB have them
            sentences = path.read_text(encoding="utf-8-sig").splitlines()
            if len(sentences) > MOST:
                raise BadInput(f"{where} holds more than {MOST:,} prompts: ask for fewer.")
            found = dict.fromkeys((text, 0, "") for line in sentences if (text := line.strip()))
            if not found:
                raise BadInput(f"{where} holds no prompt.")
            return list(found)
        with path.open(newline="", encoding="utf-8-sig") as lines:  # Excel puts a mark before the first column's name
            first = lines.readline()
            for mark in ",;\t":
                columns = [name.strip().lower() for name in next(csv.reader([first], delimiter=mark), [])]
                if "prompt" in columns:
                    break
            else:
                raise BadInput(f"{where} has no column `prompt` in its first line: call the column of sentences so.")
            if twice := next((name for name in ("prompt", "of", *SEEDS) if columns.count(name) > 1), None):
                raise BadInput(f"{where} has two columns `{twice}`: leave one.")
            prompts = columns.index("prompt")
            seeds = next((columns.index(name) for name in SEEDS if name in columns), None)
            of = columns.index("of") if "of" in columns else None
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
                found[row[prompts].strip(), int(seed[1]), "" if of is None else row[of].strip()] = None
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
