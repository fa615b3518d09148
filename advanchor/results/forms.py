"""The forms of a table: Markdown, LaTeX, and every score on a line of its own, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from advanchor.results.sweep import Place, Sweep
from advanchor.units import SPREAD

FORMS = ("markdown", "latex", "csv", "json")
SEVERAL = "[low, high] is 95 % over seeds and prompts."
SIGNS = {
    "markdown": {"\\": "\\\\", "|": "\\|", "*": "\\*", "`": "\\`", "<": "&lt;", "\n": " "},
    "latex": {
        **{c: f"\\{c}" for c in "_%&#${}"}, "\\": "\\textbackslash{}", "^": "\\^{}", "~": "\\~{}",
        "<": "$<$", ">": "$>$", "|": "$|$", "\n": " ",
        "↑": "$\\uparrow$", "↓": "$\\downarrow$", "±": "$\\pm$", "—": "---",
    },
}  # fmt: skip
STYLE: dict[str, dict[str, Callable[[str], str]]] = {
    "markdown": {"": str, "best": "**{}**".format, "second": "<u>{}</u>".format},
    "latex": {"": str, "best": "\\textbf{{{}}}".format, "second": "\\underline{{{}}}".format},
}


def clean(form: str, text: str) -> str:
    """The text as it is, whatever its signs mean in this form."""
    return "".join(SIGNS[form].get(c, c) for c in text)


def laid(form: str, heads: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    """A table of clean text, in markdown or latex; the first `names` columns are names."""
    if form == "latex":
        return latex(heads, lines, names)
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *lines])


def latex(heads: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    """For \\usepackage{booktabs}, of clean text. A line's [ would be an argument of the \\\\ before it."""
    rows = ["{}" * line[0].startswith("[") + " & ".join(line) + " \\\\" for line in [heads, *lines]]
    begin = f"\\begin{{tabular}}{{{'l' * names}{'r' * (len(heads) - names)}}}"
    return "\n".join([begin, "\\toprule", rows[0], "\\midrule", *rows[1:], "\\bottomrule", "\\end{tabular}"])


def floating(form: str, table: str, caption: str, label: str = "") -> str:
    """A table with its caption, all of it clean text, in markdown or latex."""
    if form == "latex":
        named = f"\n\\label{{{label}}}" if label else ""
        return f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}{named}\n{table}\n\\end{{table}}"
    return f"{caption}\n\n{table}"


def long(sweep: Sweep, spec: Any, form: str, paper: Sequence[Mapping[str, Any]], marks: Mapping[Place, str]) -> str:
    """A line for every score: where it stands, mean, standard deviation over seeds, 95 % interval with the degrees of
    freedom of its parts, mark, counts, direction and what made it.
    """
    lines = []
    for place, cell in sweep.cells.items():
        row, column, name = place
        low, high = cell.bounds or (None, None)
        df = {part: round(float(df), 2) for part, (_, df) in cell.spread.parts.items()} if cell.spread else {}
        lines.append(
            {
                **dict(zip(spec.rows, row, strict=True)),
                **dict(zip(spec.columns, column, strict=True)),
                "score": name,
                "mean": cell.mean,
                "sd": statistics.stdev(cell.seeds) if len(cell.seeds) > 1 else None,
                "low": low,
                "high": high,
                "df_seeds": df.get("seeds"),
                "df_prompts": df.get("prompts"),
                "mark": marks.get(place),
                "n": min((f["n"] for f in cell.facts.values()), default=None),
                "runs": len(cell.runs),
                "wanted": cell.wanted,
                "seeds": len(cell.seeds),
                "better": cell.better,
                "extractor": next((f["extractor"] for f in cell.facts.values()), None),
                "code": ", ".join(sorted(cell.code)) or None,
            }
        )
    if form == "json":
        code = {stage: sorted(by) for stage, by in sweep.code.items()}
        whole = {
            "runs": sweep.runs,
            "missing": sweep.missing,
            "code": code,
            "interval": {"several seeds": SEVERAL, "one seed": SPREAD},
            "scores": lines,
            **({"paper": list(paper)} if paper else {}),
        }
        return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else ["score"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().rstrip()
