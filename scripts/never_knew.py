"""What a model that never learned a concept draws when asked for it, beside what erasures of it leave.

    python scripts/never_knew.py outputs/<run> outputs/<run> --never outputs/references/without-1 --to castle.png

The runs erased one concept and have one sampling. Rows: the unedited model, each model that never knew, each run's
edited model, and what the unedited model draws under each run's finished anchor (of sentences and seeds of its own,
metric=anchor's); columns: the first seed of each of the concept's sentences, then the second. What the judge's first
detector calls the pictures of each row, of as many seeds as the run had, is printed as a table.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from PIL import Image, ImageDraw

import advanchor
from advanchor.attacking import never
from advanchor.build import build, sample_of
from advanchor.compose import compose
from advanchor.images import Images, draw
from advanchor.metrics.reference import called
from advanchor.prompts import Prompt
from advanchor.shown import drawn_under

COLUMNS, SIDE, LEFT = 12, 64, 190


def drawn(runs: Sequence[Path], references: Sequence[Path]) -> tuple[str, dict[str, Images], Any]:
    """The concept, the pictures of each row, and the judge.

    Raises:
        SystemExit: the runs erased different concepts, or were drawn in different ways.
    """
    results = [json.loads((run / "result.json").read_text()) for run in runs]
    if len({json.dumps([one["config"]["concept"], one["config"]["sample"]], sort_keys=True) for one in results}) > 1:
        sys.exit("the runs erase different concepts, or draw in different ways: name runs that differ in neither.")
    about = results[0]["config"]
    cfg = compose([f"model={about['model']['name']}", f"concept=emoji/{about['concept']['name']}"])
    for name, value in about["sample"].items():
        OmegaConf.update(cfg, f"sample.{name}", value)
    node = OmegaConf.merge({"_target_": cfg.concept._target_}, about["concept"])
    concept, sample, judge = build(node, "concept"), sample_of(cfg), build(cfg.judge, "judge").to("cpu")
    prompts, model = concept.prompts(sample)["erase"], advanchor.load(results[0])[0]
    folder = Path(tempfile.mkdtemp())

    def paint(name: str, edit: Any) -> Images:
        with model.edited(edit):
            own: Callable[[Sequence[Prompt]], list[Image.Image]] = partial(model.draw, **sample.looks)
            return draw(own, prompts, folder / name, batch=50, label=name)

    rows = {"unedited": paint("unedited", {})}
    for folder_of in references:
        name = f"never knew, {folder_of.name}"
        rows[name] = paint(name, never(str(folder_of)))
    anchors = {}
    for run, result in zip(runs, results, strict=True):
        name = f"{result['config']['method']['name']}, {result['config']['anchor']['name']}"
        rows[name] = paint(run.name, advanchor.load(result)[1])
        file = Path(result["config"]["root"]) / result["artifacts"]["edit"] / "anchor.safetensors"
        if file.exists():
            anchors[f"under: {name}"] = drawn_under(file, model, concept, sample, folder / f"under-{run.name}", 50)
    return concept.name, rows | anchors, judge


def page(rows: dict[str, Images], file: Path) -> None:
    """The first pictures of each row, side by side."""
    sheet = Image.new("RGB", (LEFT + COLUMNS * (SIDE + 3), 4 + len(rows) * (SIDE + 3)), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (name, shown) in enumerate(rows.items()):
        pen.text((4, 4 + y * (SIDE + 3) + SIDE // 2 - 6), name, fill="black")
        each: dict[str, list[Prompt]] = {}
        for p in shown.prompts:
            each.setdefault(p.text, []).append(p)
        seeds = max(map(len, each.values()))
        some = [group[i] for i in range(seeds) for group in each.values() if i < len(group)][:COLUMNS]
        for x, p in enumerate(some):
            tile = shown.pictures.open(shown.root / p.file).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(tile, (LEFT + x * (SIDE + 3), 4 + y * (SIDE + 3)))
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--never", nargs="+", type=Path, required=True, help="folders made by train_reference.py")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="a picture")
    args = parser.parse_args()
    concept, rows, judge = drawn(args.runs, args.never)
    page(rows, args.to)
    print(f"| asked for {concept} | pictures | called |\n| --- | --- | --- |")
    for name, shown in rows.items():
        said = Counter(one for each in called(judge, shown).values() for one in each)
        print(f"| {name} | {said.total()} | {', '.join(f'{word} {n}' for word, n in said.most_common(8))} |")


if __name__ == "__main__":
    main()
