"""`advanchor report key=value ... --to=folder`: what a paper needs of a sweep, in one folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from advanchor.commands.folder import new_folder
from advanchor.core import BadInput
from advanchor.results import figures
from advanchor.results.checklist import checklist
from advanchor.results.collection import Finished, collected, collection, command
from advanchor.results.drawn import drawn
from advanchor.results.forms import clean, floating
from advanchor.results.methods import either, methods
from advanchor.results.published import beside, published
from advanchor.results.sweep import Sweep, read
from advanchor.results.tables import body, every_mark, known, leave_out, notes, parted
from advanchor.store import finish, part_of

HELP = """\
advanchor report key=value ... --to=<folder>   the runs of `advanchor -m key=value ...` as a paper needs them

tables/                         the table as `advanchor table` lays it out, with intervals: LaTeX (booktabs), Markdown
figures/                        what `advanchor plot` draws, PDF and PNG (pip install 'advanchor[plot]')
methods.md, methods.tex         every setting of every row
checklist.md                    what was done and what was not, with numbers
prompts.csv                     every image: set, prompt, label, seed
results.json                    every score of every run with its interval and single images (docs/schema/result.json)
README.md, SHA256SUMS           what is in the folder, and the command that makes the runs again

--to=<folder>                   where it goes; nothing is written over
--help                          this text

Nothing is computed. A run that is missing is said with its command, and the rest is reported. `table.rows` and the like
are as in `advanchor table`."""
README = """\
# Report of a sweep

{found} of {wanted} runs{missing}. The command that makes them{commit}:

```
{command}
```

and then this folder:

```
{report} '--to=<folder>'
```

Weights of the model: {weights} (a digest of its settings and files). Of the folders of the machine that this is from,
in `model.path` and the like, only the last name is here.

| file | what is in it |
| --- | --- |
| `tables/` | the table, `table.tex` (needs booktabs) and `table.md` |
| `figures/` | {figures} |
| `methods.md`, `methods.tex` | every setting of every row, what looked at the images, how intervals are made |
| `checklist.md` | what was done and what was not, with numbers |
| `prompts.csv` | every image: its set, what drew it, prompt, what it should show, seed, and which runs share it |
| `results.json` | every score of every run: value, n, direction, 95 % interval, what made it, values of single images |
| `SHA256SUMS` | of every folder: `sha256sum -c SHA256SUMS` |

`results.json` is described by `docs/schema/result.json` of advanchor (JSON Schema). The values of single images are
in the order of the set's lines in `prompts.csv`: `erase` for scores `erasure/` and `<metric>/erase`, `near` for
`keep/hit_near`, `keep` for the other `keep/` and `<metric>/keep` (`_in` and `_cross`: the lines with that in `kept`);
a score with `texts` names its prompts itself. Scores with `@base` are the unedited model's, those with a 2 the second
detector's.
"""
WITH = "what `advanchor plot` draws, PDF and PNG, and `correlations.json`"


def report(overrides: Sequence[str], to: Path) -> tuple[list[Finished], Sweep, str]:
    """Write the report of a sweep's finished runs; returns them, the sweep, and why there are no figures, if so.

    Raises:
        BadInput: as `read` and `collected`; a score of the table that no run has; the folder is there already, or
            cannot be written.
    """
    with new_folder(to) as part:
        sweep, cfg = read(overrides)
        leave_out(sweep, cfg.table)
        known(sweep, cfg.table)
        runs = collected(overrides)
        for name in ("tables", "figures"):
            (part / name).mkdir()
        for form, ending in (("latex", "tex"), ("markdown", "md")):
            (part / f"tables/table.{ending}").write_text(table(sweep, cfg, form), encoding="utf-8")
            (part / f"methods.{ending}").write_text(methods(runs, form), encoding="utf-8")
        without = painted(overrides, part / "figures")
        whole = collection(overrides, runs, sweep.missing)
        (part / "results.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False))
        (part / "checklist.md").write_text(checklist(runs, whole["missing"]), encoding="utf-8")
        (part / "prompts.csv").write_text(drawn(runs), encoding="utf-8")
        environments = [one.result["environment"] for one in runs]
        commits = either(f"{e['commit'] or 'unknown'}{' with changed files' * e['dirty']}" for e in environments)
        said = README.format(
            found=len(runs),
            wanted=whole["wanted"],
            missing=f" ({len(sweep.missing)} are missing: checklist.md)" if sweep.missing else "",
            commit=f", at commit {commits}",
            command=command("", overrides),
            report=command("report", overrides),
            weights=either(one.result["weights"] for one in runs),
            figures=f"empty: {without}" if without else WITH,
        )
        (part / "README.md").write_text(said, encoding="utf-8")
        for folder in (part, part / "tables", part / "figures"):
            files = sorted(file for file in folder.iterdir() if file.is_file())
            for file in files:
                file.rename(part_of(file))
            if files:
                finish(*files)
    return runs, sweep, without


def table(sweep: Sweep, cfg: DictConfig, form: str) -> str:
    """The sweep's table with an interval in every cell, how many images and seeds are behind it in its caption, and
    published numbers after it.
    """
    marks = every_mark(sweep, cfg.table)
    seeds = sorted({len(cell.seeds) for cell in sweep.cells.values() if cell.seeds})
    counted = f"{' or '.join(map(str, seeds))} {'seed' if seeds == [1] else 'seeds'} in each cell."
    caption = " ".join(["Means with their 95 % intervals.", *notes(sweep, cfg.table, bounded=True), counted])
    if marks:
        caption += " Bold is ahead of every other row, underlined of all but that."
    found = floating(form, body(sweep, cfg.table, form, marks, bounded=True), clean(form, caption), "tab:sweep")
    if paper := published(sweep, cfg):
        source = clean(form, f"Published in {cfg.paper.source}, beside ours.")
        found += "\n\n" + floating(form, beside(paper, form), source, "tab:published")
    return found + "\n"


def painted(overrides: Sequence[str], folder: Path) -> str:
    """Draw the figures into a folder; returns why there are none, if so."""
    try:
        figures.main([*(o for o in overrides if not o.lstrip("+").startswith("table.cells=")), f"--to={folder}"])
    except BadInput as error:
        return str(error)
    return ""


def main(args: Sequence[str]) -> str:
    """The command's arguments -> what was written.

    Raises:
        BadInput: a mistake in the arguments, or as `report`.
    """
    flags, overrides = parted("report", args, ["--to=<folder>", "--help"])
    if "--help" in flags:
        return HELP
    if not flags.get("--to"):
        raise BadInput("report writes a folder: say where, --to=<folder>.")
    to = Path(flags["--to"]).expanduser()
    runs, sweep, without = report(overrides, to)
    lines = [f"wrote {to}: {len(runs)} of {sweep.runs} runs; begin with README.md"]
    if sweep.missing:
        lines.append(
            f"{len(sweep.missing)} of {sweep.runs} runs are missing; the first is made by `{sweep.missing[0]}`"
        )
    if without:
        lines.append(f"no figures: {without}")
    return "\n".join(lines)
