"""The pictures and words of a page, each there once, within so many bytes."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from advanchor.images import Pictures

SIDE = 160  # px of a thumbnail's longer side; smaller pictures are as they were drawn
SMALL = 64  # px


class Album:
    """Data URIs and texts by number.

    Attributes:
        room: bytes that may still be added.
        made: the thumbnails of other albums of the same page, which need not be made again.
        small: are all pictures of so few pixels that these should be seen?
    """

    def __init__(self, room: float, made: dict[Path, str]) -> None:
        self.room, self.made = room, made
        self.pictures: list[str] = []
        self.words: list[str] = []
        self.numbers: dict[str | Path, int] = {}
        self.small = True

    def word(self, text: str) -> int:
        if text not in self.numbers:
            self.numbers[text] = len(self.words)
            self.words.append(text)
            self.room -= 2 * len(text.encode()) + 3
        return self.numbers[text]

    def picture(self, pictures: Pictures, file: Path) -> int:
        """The number of a picture of a folder; -1 if there is no room for it.

        Raises:
            BadInput: the file is not what was drawn.
        """
        if file not in self.numbers:
            if file not in self.made:
                self.made[file] = thumbnail(pictures, file)
            uri = self.made[file]
            if self.room < len(uri) + 3:
                return -1
            self.numbers[file] = len(self.pictures)
            self.pictures.append(uri)
            self.room -= len(uri) + 3
            self.small = self.small and max(pictures.open(file).size) <= SMALL
        return self.numbers[file]


def thumbnail(pictures: Pictures, file: Path) -> str:
    """A picture as a data URI: small ones pixel for pixel, larger ones at most SIDE wide and high."""
    from PIL import Image, features

    image, out = pictures.open(file), io.BytesIO()
    small = max(image.size) <= SIDE
    kind = "webp" if features.check("webp") else "png" if small else "jpeg"
    if not small:
        image = image.copy()
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    image.save(out, format=kind, **({"lossless": True, "method": 2} if small and kind == "webp" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
