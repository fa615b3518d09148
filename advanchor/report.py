"""What a person reads of a finished run: its closing table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from advanchor.core import Scores
from advanchor.units import SPREAD

ARROW = {"higher": "↑", "lower": "↓"}
TWO_DIGITS = ("clip/", "content/clip", "fid/", "kid/", "cmmd/", "released_fid/", "reference/kid", "reference/cmmd")
SMEARS = 0.2  # share of pictures of nothing above which the table says so before all else


def cell(scores: Scores, name: str) -> str:
    """Value with its 95 % interval, or an em dash; shares in three decimals, no minus before a zero."""
    score = scores.get(name)
    if score is None:
        return "—"
    value, *bounds = (number(name, score[k]) for k in ("value", "low", "high") if k in score)
    return f"{value} [{', '.join(bounds)}]" if bounds else value


def number(name: str, value: float) -> str:
    digits = 2 if name.startswith(TWO_DIGITS) else 3
    return f"{round(value, digits) + 0.0:.{digits}f}"


def second(name: str) -> str:
    """What a score of the first detector is called when the second gives it: keep/hit2_in for keep/hit_in."""
    return re.sub(r"(/[a-z]+)", r"\g<1>2", name, count=1)


def titled(scores: Scores, concept: str) -> dict[str, str]:
    """The lines of the closing table: a score and what it is called."""
    labels = [name for name in scores if name.startswith("erasure/hit:") and "@" not in name]
    known = {
        "erasure/hit": f"{concept}: found",
        **{name: f"  {name.partition(':')[2]}" for name in labels},
        "content/hit": f"{concept}: rest of the sentence found",
        "content/clip": f"{concept}: CLIP score of the rest",
        "keep/hit": "kept: own concept found",
        "keep/hit_in": "  same kind",
        "keep/hit_cross": "  other kind",
        "keep/hit_near": "neighbours: own concept found",
        "broken/erase": f"{concept}: no picture of anything",
        "broken/keep": "kept: no picture of anything",
        "erasure/agree": f"{concept}: judges agree",
        "content/agree": "rest of the sentence: judges agree",
        "keep/agree": "kept: judges agree",
        "clip/erase": f"{concept}: CLIP score",
        "clip/keep": "kept: CLIP score",
        "fid/erase": f"{concept}: FID to before",
        "fid/keep": "kept: FID to before",
        "kid/erase": f"{concept}: KID to before x 1000",
        "kid/keep": "kept: KID to before x 1000",
        "erasure/rate": "erasure rate, 1 - after/before",
        "anchor/hit": f"under the anchor: {concept} found",
        "anchor/content": "under the anchor: rest found",
        "anchor/broken": "under the anchor: no picture",
        "anchor/agree": "under the anchor: judges agree",
    }
    said = {*known, *map(second, known)}
    own = {  # as they are called
        name: name for name in scores if name not in said and not re.search(r"[:@]|^attack/", name)
    }
    return {name: title for name, title in (known | own).items() if name in scores}


def lines_of(scores: Scores, concept: str) -> list[str]:
    """The scores as lines of text."""
    return aligned(rows_of(scores, concept))


def rows_of(scores: Scores, concept: str) -> list[tuple[str, ...]]:
    """The scores before and after, by both of the judge's detectors where it has two; the first row has the heads."""
    two = any(second(name) in scores for name in scores)
    heads = ("before, judge 1 / 2", "after, judge 1", "after, judge 2") if two else ("before", "after")
    rows: list[tuple[str, ...]] = [("", "images", *heads)]
    for name, title in titled(scores, concept).items():
        arrow = f" {ARROW[scores[name]['better']]}" if "better" in scores[name] else ""
        base, floor, other = f"{name}@base", f"{name}@floor", second(name)
        if other in scores and base in scores:
            before = f"{number(name, scores[base]['value'])} / {number(name, scores[other + '@base']['value'])}"
        else:
            said = {base: cell(scores, base), floor: f"floor {cell(scores, floor)}"}
            before = ", ".join(text for one, text in said.items() if one in scores)
        after = [cell(scores, name), *([cell(scores, other) if other in scores else ""] if two else [])]
        rows.append((title + arrow, str(scores[name]["n"]), before, *after))
    return rows


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines of one width, names to the left and numbers to the right, the first one underlined."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def attacks_of(scores: Scores) -> list[str]:
    """A line for each attack: found before and after it, by chance, in a model that never knew; of one that has doses
    also what is found at each.
    """
    heads = ("attack", "images", "before", "found after all, judge 1", "judge 2", "by chance", "never knew", "excess")
    rows: list[tuple[str, ...]] = [heads]
    curves = []
    for name in dict.fromkeys(name.split("/")[1] for name in scores if name.startswith("attack/")):
        of = f"attack/{name}/"
        shown = [cell(scores, of + one).partition(" ")[0] for one in ("before", "asr2", "chance", "never")]
        asr, excess = cell(scores, f"{of}asr"), cell(scores, f"{of}excess")
        rows.append((name, str(scores[f"{of}asr"]["n"]), shown[0], asr, *shown[1:], excess))
        for which, said in (("hit:", name), ("never:", f"{name}, never knew")):
            doses = [one for one in scores if one.startswith(f"{of}{which}")]
            at = f"{of}{'never_' if which == 'never:' else ''}half"
            half = f"half at {scores[at]['value']:.3g}" if at in scores else "half never"
            curve = ", ".join(f"{one.partition(':')[2]}: {cell(scores, one).partition(' ')[0]}" for one in doses)
            curves += [f"{said}  {curve}; {half}"] if doses else []
    return ["", *aligned(rows), *([""] if curves else []), *curves] if rows[1:] else []


def table(result: Mapping[str, Any]) -> str:
    """The closing table of a run, from its result.json alone."""
    if "then" in result:
        return anchor_table(result)
    scores: Scores = result["scores"]
    concept, judge = result["config"]["concept"]["name"], result["config"]["judge"]["name"]
    lines = lines_of(scores, concept)
    lines += attacks_of(scores)
    broken = max((scores[name]["value"] for name in ("broken/erase", "broken/erase2") if name in scores), default=0.0)
    if broken > SMEARS:
        said = f"{broken:.0%} of the pictures asked for {concept} are no picture of anything"
        lines = [f"{said.replace('%', ' %')}: look at grid.png before calling this an erasure.", "", *lines]
    anchor = {k.split("/")[1]: v for k, v in result["diagnostics"].items() if k.startswith("anchor/")}
    costs = costs_of(result)
    if shared := result["diagnostics"].get("cost/steps_shared"):
        steps = result["config"]["method"]["steps"]
        costs.append(f"{shared:.0f} of the {steps} steps of erasing made before, by a shorter training")
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
    notes = (
        [result["unmeasured"]] if result["unmeasured"] else missing(scores, result["config"].get("metric", {}), judge)
    )
    lines += [f"note     {note}" for note in notes]
    return "\n".join(lines)


def costs_of(result: Mapping[str, Any]) -> list[str]:
    """Seconds and memory of each stage."""
    return [f"{stage} {c['seconds']:.0f} s / {c['peak_mb']:.0f} MB" for stage, c in result["stages"].items()]


CLOSENESS = {
    "cosine_span": "cosine to the concept's tokens; 1 is the concept",
    "cosine_pooled": "cosine to the concept's whole sentence",
    "shift": "distance from the concept's tokens, over their length; 0 is the concept",
    "predicted": "squared distance of what is predicted; 0 is the concept, 1 as far as the superclass",
    "along": "place between them; 1 is the concept, 0 the superclass, less is past it",
    "across": "squared distance from that line",
}
THEN = {
    "fixed": "nothing was to be learned; stage=erase trains towards these anchors",
    "settled": "stage=erase begins here, and does not search again",
    "again": "stage=erase makes the same search again, in turn with the weights, and ends with these anchors",
    "moving": "stage=erase searches again on what the trained weights draw, and ends with other anchors",
}


def anchor_table(result: Mapping[str, Any]) -> str:
    """The closing table of stage=anchor, from its result.json alone."""
    config = result["config"]
    concept, then = config["concept"]["name"], result["then"]
    if then == "again" and config["method"].get("latents") == "training":  # which come from the weights (spm)
        then = "moving"
    ((_, images, *heads), *rows) = rows_of(result["scores"], concept)
    under = ("", images, *(head.replace("after", "under the anchor") for head in heads))
    lines = aligned([under, *((title.replace("under the anchor: ", ""), *rest) for title, *rest in rows)])
    anchor = {k.split("/")[1]: v for k, v in result["diagnostics"].items() if k.startswith("anchor/")}
    close = [(name, f"{anchor.pop(name):.4g}", f"  {means}") for name, means in CLOSENESS.items() if name in anchor]
    widths = [max(len(row[i]) for row in close) for i in (0, 1)]
    lines += ["", SPREAD.replace("training", "anchor").replace("; ", ";\n"), ""]
    lines += [f"{name.ljust(widths[0])}  {value.rjust(widths[1])}{means}" for name, value, means in close]
    lines += [
        "",
        f"anchor   {config['anchor']['name']}" + "".join(f", {k} {v:.4g}" for k, v in anchor.items()),
        f"then     {THEN[then]}",
        f"cost     {', '.join(costs_of(result))}",
        "changed  nothing: no weight was trained, no edit made",
        f"pictures {result['grid']}",
        f"tracker  {result['tracker']}",
        *([f"note     {result['unmeasured']}"] if result["unmeasured"] else []),
    ]
    return "\n".join(lines)


def missing(scores: Scores, metrics: Mapping[str, Any], judge: str) -> list[str]:
    """What was asked for and cannot be measured here."""
    why = {
        "content": f"no sentence names anything else that judge={judge} could find: content is not measured.",
        "broken": f"judge={judge} cannot tell that an image is no picture of anything: look at grid.png.",
    }
    return [said for name, said in why.items() if name in metrics and not any(s.startswith(f"{name}/") for s in scores)]
