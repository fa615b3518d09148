"""A page of pictures: one HTML file that asks nobody for anything, with a run or a sweep in it."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from omegaconf import DictConfig

from advanchor.core import BadInput
from advanchor.gallery.album import Album
from advanchor.gallery.curves import HEIGHT, WIDTH
from advanchor.gallery.seen import Band, Pair, Sight
from advanchor.gallery.subject import Subject, subject
from advanchor.store import part_of
from advanchor.units import SPREAD

LIMIT = 9_900_000  # bytes of a page
STEPS = (math.inf, 96, 48, 24, 12, 6, 4, 3, 2, 1)  # pictures of a band: the most of these with which all runs fit
MARK = "<!doctype html><!-- advanchor gallery -->"
CARD = 90  # bytes of a pair's numbers in the page, at most
FILTERS = {
    "": "everything",
    "lost": "kept concept lost",
    "rest": "rest of the sentence lost",
    "found": "erased concept still found",
    "broken": "picture broken",
    "differ": "detectors differ",
}


@runtime_checkable
class Showing(Protocol):
    """A tracker that shows a run's page too; it asks for it only if it will."""

    def show(self, make: Callable[[], str]) -> None: ...


def page(subjects: Sequence[Subject], title: str, overview: dict[str, Any] | None = None) -> str:
    """The HTML of some runs, with as many of their pictures as fit.

    Args:
        overview: what stands before the runs of a sweep (results/overview.py); a run alone has none.

    Raises:
        BadInput: even without pictures it is too large.
    """
    bare = rendered(subjects, title, overview, Album(0, {}))
    if (room := LIMIT - len(bare.encode())) < 0:
        size = f"{len(bare.encode()) / 1e6:.0f} MB without any picture"
        raise BadInput(f"a page of {len(subjects)} runs would have {size}, and 10 MB are the most: name fewer runs.")
    made: dict[Path, str] = {}
    for most in STEPS:
        album = Album(room, made)
        if fill(subjects, most, album) or most == STEPS[-1]:
            return rendered(subjects, title, overview, album)
    raise AssertionError


def fill(subjects: Sequence[Subject], most: float, album: Album) -> bool:
    """Put so many pairs of each band into the album, evenly over it. Did all fit?

    Of a single pair those that do not are left out; of more the album is then of no use.
    """
    whole = True
    for one in subjects:
        one.shown = [[] for _ in one.bands]
    for one in subjects:
        for band, cards in zip(one.bands, one.shown, strict=True):
            number = min(most, len(band.pairs))
            for i in range(int(number)):
                card = carded(band, band.pairs[int(i * len(band.pairs) / number)], album)
                if card is None:
                    whole = False
                    if most != STEPS[-1]:
                        return False
                else:
                    cards.append(card)
    return whole


def carded(band: Band, pair: Pair, album: Album) -> list[Any] | None:
    """A pair in numbers, as page.js takes it apart: prompt, seed, what was asked for, the rest (-1 for none), pictures
    before (-1 for none) and after, what each detector saw in them, and what happened. None if there is no room.
    """
    sets = [images for images in (band.before, band.after) if images is not None]
    numbers = [album.picture(images.pictures, images.root / pair.prompt.file) for images in sets]
    album.room -= CARD
    if -1 in numbers or album.room < 0:
        return None

    def told(sights: Sequence[Sight]) -> list[list[int]]:
        return [[album.word(s.saw), album.word(s.beside) if pair.rest else -1] for s in sights]

    before, after = [-1, *numbers][-2:]
    asked, rest = album.word(pair.prompt.label), album.word(pair.rest) if pair.rest else -1
    seen = [told(pair.before), told(pair.after)]
    return [album.word(pair.prompt.text), pair.prompt.seed, asked, rest, before, after, *seen, " ".join(pair.happened)]


def rendered(subjects: Sequence[Subject], title: str, overview: dict[str, Any] | None, album: Album) -> str:
    """The page with what an album and the subjects hold by now."""
    data = {
        "pictures": album.pictures,
        "words": album.words,
        "runs": {one.run: dict(zip((band.name for band in one.bands), one.shown, strict=True)) for one in subjects},
    }
    style, script = text_of("page.css"), text_of("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{hashed(style)}'; script-src '{hashed(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return template().render(
        mark=MARK,
        title=title,
        policy=policy,
        style=style,
        script=script,
        data=data,
        subjects=subjects,
        overview=overview,
        spread=SPREAD,
        size=(WIDTH, HEIGHT),
        judges=subjects[0].judges,
        filters=FILTERS,
        small=album.small,
        told=told,
        left=sum(one.left for one in subjects),
    )


def told(score: Mapping[str, Any]) -> str:
    """A score in words: value, interval, count."""
    reach = f" [{score['low']:.3f}, {score['high']:.3f}]" if "low" in score else ""
    return f"{score['value']:.3f}{reach}, n = {score['n']}"


@cache
def template() -> Any:
    """Every text that is put in is escaped, unless it is a file of this folder."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return made.get_template("page.html")


def text_of(file: str) -> str:
    return (Path(__file__).parent / file).read_text(encoding="utf-8")


def hashed(text: str) -> str:
    """As a content security policy names what may stand in a page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def place(to: str) -> Path:
    """Where a page goes.

    Raises:
        BadInput: it is no name of an HTML file, or what is there is none of our pages, or it cannot be written.
    """
    file = Path(to).expanduser()
    if file.suffix != ".html":
        raise BadInput(f"--to={to} is no page: name a file that ends in .html.")
    try:
        if file.exists():
            with file.open("rb") as old:
                if old.read(len(MARK)) != MARK.encode():
                    raise BadInput(f"{file} is there already and is no gallery: name another file.")
        file.parent.mkdir(parents=True, exist_ok=True)
        part_of(file).touch()
    except OSError as error:
        raise BadInput(f"{file} cannot be written ({error.strerror}): name another file.") from None
    part_of(file).unlink()
    return file


def write(html: str, file: Path) -> Path:
    """It has its name only when it is complete."""
    part_of(file).write_text(html, encoding="utf-8")
    os.replace(part_of(file), file)
    return file


def one_run(cfg: DictConfig, result: dict[str, Any], words: Sequence[str] = ()) -> str:
    """The page of a finished run.

    Raises:
        BadInput: as `subject` and `page`.
    """
    one = subject(cfg, result, words)
    return page([one], one.title)
