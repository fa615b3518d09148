"""The picture of the structure: which room of the package imports which, read off the sources.

    python scripts/architecture.py       # writes docs/architecture.svg

A room is a folder of advanchor, or a file beside them. It stands above all that it imports. Drawn are the imports that
no longer way says already; imports inside functions and for type checking count like all others. Needs no library.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "advanchor"
WIDTH, HEIGHT, GAP, RISE = 150, 44, 22, 58  # of a box, between boxes, between floors; px
# Where a room stands on its floor, so that lines do not run behind boxes; the floors follow from the imports.
COLUMNS = {
    "__init__": 2, "cli": 3, "run": 2, "results": 4, "methods": 0, "metrics": 1, "machine": 2, "trackers": 2,
    "models": 3, "judges": 1, "images": 4, "prompts": 4, "naming": 1, "provenance": 0, "compose": 6, "build": 5,
    "report": 4, "units": 5, "intervals": 5,
}  # fmt: skip
MIDDLE, LAST = 3, 6
SHIMS = ("lazy", "torchvision_ops")  # how a library is imported is no part of the structure
ABOUT = {
    "__init__": "erase(), load()", "cli": "the command", "commands": "what a command does",
    "run": "one run, top to bottom", "compose": "words to checked configs", "results": "tables, figures",
    "methods": "how weights get there", "anchors": "what to become", "metrics": "images to scores",
    "judges": "what sees images", "trackers": "where progress shows", "models": "the diffusion model",
    "training": "loop, pools, masks", "images": "drawn once, checked", "concept": "what, and its prompts",
    "store": "names, locks, sums", "core": "option, score, BadInput", "protocols": "what each kind must do",
    "machine": "devices, costs", "provenance": "which code made it", "identity": "what a run is called",
    "build": "what a config may build", "erasing": "the edit of a run", "trails": "ends of trainings",
    "naming": "names in sentences", "prompts": "the images to draw", "report": "one run, shown",
    "intervals": "how sure a mean is", "units": "what a score is of", "shown": "drawn when asked for",
    "attacks": "is it really gone?", "attacking": "attacks carried out", "references": "models that never knew",
    "verbs": "table, plot, front, tune",
}  # fmt: skip


def rooms() -> dict[str, set[str]]:
    """Room -> the rooms that it imports."""
    files = {
        ".".join(["advanchor", *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): file
        for file in sorted(PACKAGE.rglob("*.py"))
    }
    found: dict[str, set[str]] = {room_of(name): set() for name in files}
    for name, file in files.items():
        for node in ast.walk(ast.parse(file.read_text())):
            named: list[str] = []
            if isinstance(node, ast.Import):
                named = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                named = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
            found[room_of(name)] |= {room_of(one) for one in named if one in files and one != "advanchor"}
    return {room: needed - {room, *SHIMS} for room, needed in found.items() if room not in SHIMS}


def room_of(module: str) -> str:
    """`advanchor.anchors.slot` is in `anchors`; the package itself is `__init__`."""
    return [*module.split("."), "__init__"][1]


def reached(graph: dict[str, set[str]], room: str) -> set[str]:
    """All that a room imports, and all that those import."""
    found: set[str] = set()
    waiting = list(graph[room])
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += graph[one]
    return found


def floors(graph: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by how far they stand above the ground; the ground is first. Rooms that import each other share a floor."""
    below = {room: reached(graph, room) for room in graph}
    strict = {room: {one for one in below[room] if room not in below[one]} for room in graph}
    height: dict[str, int] = {}
    while len(height) < len(graph):
        for room in sorted(graph):
            if room not in height and strict[room] <= height.keys():
                height[room] = 1 + max((height[one] for one in strict[room]), default=-1)
    found = defaultdict(list)
    for room in sorted(height):
        found[height[room]].append(room)
    return [found[i] for i in sorted(found)]


def drawn(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that no longer way says already, in order."""
    below = {room: reached(graph, room) for room in graph}
    return [
        (room, one)
        for room in sorted(graph)
        for one in sorted(graph[room])
        if not any(one in below[other] and not {room, one} & on_a_par(below, other) for other in graph[room] - {one})
    ]


def on_a_par(below: dict[str, set[str]], room: str) -> set[str]:
    """The rooms that a room imports and that import it."""
    return {one for one in below[room] if room in below[one]}


def seats(row: list[str]) -> dict[str, int]:
    """Room -> column: the wanted one, or the next that is free."""
    found: dict[str, int] = {}
    for room in sorted(row, key=lambda one: (one not in COLUMNS, one)):
        wanted = COLUMNS.get(room, MIDDLE)
        free = [column for column in range(LAST + 1) if column not in found.values()]
        found[room] = min(free, key=lambda column: abs(column - wanted))
    return found


def of_options(room: str) -> bool:
    """Does a folder hold classes that a config names?"""
    return any("\n@option(" in file.read_text() for file in sorted((PACKAGE / room).glob("*.py")))


def picture() -> str:
    """SVG."""
    graph = rooms()
    rows = floors(graph)
    width, height = (LAST + 1) * (WIDTH + GAP) + GAP, len(rows) * (HEIGHT + RISE) + GAP
    place = {
        room: (GAP + column * (WIDTH + GAP), GAP + level * (HEIGHT + RISE))
        for level, row in enumerate(reversed(rows))
        for room, column in seats(row).items()
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#667"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    lines += [line(place[room], place[one]) for room, one in drawn(graph)]
    for room in sorted(place):
        lines += box(room, *place[room])
    return "\n".join([*lines, "</svg>", ""])


def line(above: tuple[int, int], below: tuple[int, int]) -> str:
    """An arrow that changes to the column of its end and then goes down; red between two that import each other."""
    (x, y), (u, v) = above, below
    a, b, start, bend = x + WIDTH // 2, u + WIDTH // 2, y + HEIGHT, RISE // 2
    colour, way = "#99a", f"C{a} {start + bend} {b} {start + bend} {b} {min(start + RISE, v - 6)}L{b} {v}"
    if v <= y:
        colour, way = "#c22", f"C{a} {start + bend} {b} {start + bend} {b} {start}"
    return f'<path d="M{a} {start}{way}" fill="none" stroke="{colour}" stroke-width="1.3" marker-end="url(#tip)"/>'


def box(room: str, x: int, y: int) -> list[str]:
    """A room by its name, and what it is for."""
    folder = (PACKAGE / room).is_dir()
    fill = "#f4f4f4" if not folder else "#dceaf7" if of_options(room) else "#e3f1de"
    label = f'text-anchor="middle" x="{x + WIDTH // 2}"'
    shape = f'width="{WIDTH}" height="{HEIGHT}" rx="{6 if folder else 0}"'
    return [
        f'<rect x="{x}" y="{y}" {shape} fill="{fill}" stroke="#456"/>',
        f'<text {label} y="{y + 18}" font-size="14" font-weight="bold">{room}{"/" if folder else ".py"}</text>',
        f'<text {label} y="{y + 34}" font-size="10.5" fill="#345">{escape(ABOUT.get(room, ""))}</text>',
    ]


if __name__ == "__main__":
    (ROOT / "docs/architecture.svg").write_text(picture())
