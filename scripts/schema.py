"""The page of the schema of results, for people: what each field of result.json and results.json means.

    python scripts/schema.py             # writes docs/schema/README.md from docs/schema/result.json

Needs no library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "docs/schema"
HEAD = """\
# The schema of results

[`result.json`](result.json) in this folder is a JSON Schema (draft 2020-12) of what a run leaves in its folder
(`outputs/<run>/result.json`) and of what `advanchor report` makes of a sweep (`results.json`). It is cut in five: a
*collection* holds *results*, a result its *config*, *scores* and *stages*. A file with `runs` at its top is held
against the collection, any other against the result. This page is written from it (`scripts/schema.py`).

```python
import json
import jsonschema

schema = json.load(open("docs/schema/result.json"))
jsonschema.Draft202012Validator(schema).validate(json.load(open("outputs/<run>/result.json")))
```

Fields in *italics* may be absent. No other field may be there, but in `config` and below it, where each chosen option
has its own settings.
"""


def page() -> str:
    """The page, as Markdown."""
    schema = json.loads((FOLDER / "result.json").read_text())
    parts = [HEAD]
    for name in ("collection", "result", "config", "score", "stage"):
        part = schema["$defs"][name]
        lines = [f"## {name}", "", part["description"], "", "| field | type | meaning |", "| --- | --- | --- |"]
        parts.append("\n".join([*lines, *fields(part, schema)]) + "\n")
    return "\n".join(parts)


def fields(part: dict[str, Any], schema: dict[str, Any], above: str = "") -> list[str]:
    """A line for each field of an object, and for those of the objects within it."""
    lines = []
    for name, of in part["properties"].items():
        shown = f"`{above}{name}`" if name in part["required"] else f"*`{above}{name}`*"
        about = of if "$ref" not in of else schema["$defs"][of["$ref"].rpartition("/")[2]]
        lines.append(f"| {shown} | {kind(of)} | {about['description']} |".replace("\n", " "))
        lines += fields(of, schema, f"{above}{name}.") if "properties" in of else []
    return lines


def kind(of: dict[str, Any]) -> str:
    """The type of a field in words."""
    if "$ref" in of:
        name = of["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})"
    if "enum" in of:
        return " or ".join(f"`{one}`" for one in of["enum"])
    said = of["type"] if isinstance(of["type"], str) else " or ".join(of["type"])
    inner = of.get("items", of.get("additionalProperties"))
    return f"{said} of {kind(inner)}" if isinstance(inner, dict) and ("$ref" in inner or "type" in inner) else said


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(page())
