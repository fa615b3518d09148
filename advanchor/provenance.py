"""Which code made a number: a digest of the sources that can change it, and of no others.

A stage (an edit, images, a score) depends on the modules of its classes and on what those import within the package. A
change in a figure leaves every edit what it is, and a change in a sampler lets no older image pass for a new one.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
# As this process found them: a run that ends after somebody edited a file is still the work of the older ones.
SOURCES = {
    ".".join(["advanchor", *file.relative_to(HERE).with_suffix("").parts]).removesuffix(".__init__"): file.read_bytes()
    for file in sorted(HERE.rglob("*.py"))
}


def code(*modules: str) -> str:
    """Digest of the sources of these modules of the package ("advanchor.training.pools") and of all that they import in
    it, for type checking alone excepted.
    """
    found: dict[str, None] = {}
    waiting = list(modules)
    while waiting:
        if (name := waiting.pop()) not in found:
            found[name] = None
            waiting += imports(name)
    return hashlib.sha256(b"".join(name.encode() + b"\0" + SOURCES[name] for name in sorted(found))).hexdigest()[:10]


@cache
def imports(module: str) -> tuple[str, ...]:
    """The package's own modules that a module imports, at its top or inside its functions."""
    found = []
    for node in running(ast.parse(SOURCES[module])):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    return tuple(dict.fromkeys(name for name in found if name in SOURCES and name != "advanchor"))


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module that can run: not those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from running(node)
