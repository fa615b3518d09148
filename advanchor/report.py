"""What a person sees of a finished run: a table in the terminal and a picture of before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advanchor.core import Scores
from advanchor.images import Images
from advanchor.prompts import Prompt
from advanchor.store import finish, part_of
from advanchor.units import SPREAD

ARROW = {"higher": "↑", "lower": "↓"}


def cell(scores: Scores, name: str) -> str:
    """Value with its 95 % interval, or an em dash; shares in three decimals, no minus before a zero."""
    score = scores.get(name)
    if score is None:
        return "—"
    digits = 2 if name.startswith(("clip/", "fid/", "kid/", "cmmd/", "released_fid/")) else 3
    value, *bounds = (f"{round(score[k], digits) + 0.0:.{digits}f}" for k in ("value", "low", "high") if k in score)
    return f"{value} [{', '.join(bounds)}]" if bounds else value


def table(result: Mapping[str, Any]) -> str:
    """The closing table of a run, from its result.json alone."""
    scores: Scores = result["scores"]
    concept = result["config"]["concept"]["name"]
    both = {
        "erasure/hit": f"{concept}: detector finds it",
        **{
            name: f"  {name.partition(':')[2]}"
            for name in scores
            if name.startswith("erasure/hit:") and "@" not in name
        },
        "keep/hit": "kept: own concept found",
        "keep/hit_in": "  same kind",
        "keep/hit_cross": "  other kind",
        "clip/erase": f"{concept}: CLIP score",
        "clip/keep": "kept: CLIP score",
    }
    alone = {
        "fid/erase": f"{concept}: FID to before",
        "fid/keep": "kept: FID to before",
        "kid/erase": f"{concept}: KID to before x 1000",
        "kid/keep": "kept: KID to before x 1000",
        "erasure/rate": "erasure rate, 1 - after/before",
        "anchor/hit": f"unedited model under the anchor: {concept} found",
    }
    titles = {name: title for name, title in (both | alone).items() if name in scores}
    said = ("erasure/", "keep/hit", "clip/", "fid/", "kid/", "anchor/hit")
    for name in scores:  # of metrics that have no words of their own here: as they are called
        if not name.startswith(said) and ":" not in name and "@" not in name:
            titles[name] = name
    rows = [("", "images", "before", "after")]
    for name, title in titles.items():
        arrow = f" {ARROW[scores[name]['better']]}" if "better" in scores[name] else ""
        unedited = name in both or (name not in alone and f"{name}@base" in scores)
        before = cell(scores, f"{name}@base") if unedited else ""
        rows.append((title + arrow, str(scores[name]["n"]), before, cell(scores, name)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    anchor = {k.split("/")[1]: v for k, v in result["diagnostics"].items() if k.startswith("anchor/")}
    costs = [f"{stage} {c['seconds']:.0f} s / {c['peak_mb']:.0f} MB" for stage, c in result["stages"].items()]
    if shared := result["diagnostics"].get("cost/steps_shared"):
        steps = result["config"]["method"]["steps"]
        costs.append(f"{shared:.0f} of the {steps} steps of erasing made before, by a shorter training")
    lines.insert(1, "-" * len(lines[0]))
    lines += [
        "",
        SPREAD.replace("; ", ";\n"),  # no line of a closing table is longer than 120
        "",
        f"anchor   {result['config']['anchor']['name']}" + "".join(f", {k} {v:.4g}" for k, v in anchor.items()),
        f"cost     {', '.join(costs)}",
        f"changed  {result['changed']['tensors']} tensors, {result['changed']['parameters']:,} parameters",
        f"pictures {result['grid']}",
        f"tracker  {result['tracker']}",
    ]
    if result["unmeasured"]:
        lines.append(f"note     {result['unmeasured']}")
    return "\n".join(lines)


def grid(images: Mapping[str, Images], concept: str, path: Path) -> None:
    """The same prompts and seeds before and after, in pairs of rows: erased concept, kept concepts of its kind, of the
    other kind.
    """
    from PIL import Image, ImageDraw

    kept = {where: [p for p in images["keep"].prompts if p.kept == where] for where in ("in", "cross")}
    bands = [
        (f"erased: {concept}", "erase", spread(list(images["erase"].prompts), 12)),
        ("kept: same kind", "keep", spread(kept["in"], 12)),
        ("kept: other kind", "keep", spread(kept["cross"], 12)),
    ]
    side = images["erase"].pictures[0].width
    scale = max(1, 64 // side)
    cell = min(side * scale, 192)
    height = 6 + sum(2 * (cell + 4) + 22 for _, _, prompts in bands if prompts)
    page = Image.new("RGB", (70 + 12 * (cell + 4), height), "white")
    draw, y = ImageDraw.Draw(page), 6
    for title, name, prompts in bands:
        if not prompts:
            continue
        draw.text((6, y), title, fill="black")
        y += 16
        for label, which in (("before", f"{name}@base"), ("after", name)):
            draw.text((6, y + cell // 2 - 6), label, fill="black")
            for column, prompt in enumerate(prompts):
                tile = images[which].pictures.open(images[which].root / prompt.file)
                tile = tile.resize((cell, cell), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
                page.paste(tile, (70 + column * (cell + 4), y))
            y += cell + 4
        y += 6
    page.save(part_of(path), format="PNG")
    finish(path)


def spread(prompts: Sequence[Prompt], n: int) -> list[Prompt]:
    """Up to n prompts, evenly over the list, so that a row shows as many concepts and sentences as it can."""
    return [prompts[i * len(prompts) // n] for i in range(n)] if len(prompts) > n else list(prompts)
