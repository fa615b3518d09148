"""`advanchor gallery key=value ... --to=page.html`: a finished run or sweep as one page of pictures."""

from __future__ import annotations

from collections.abc import Sequence

from advanchor.compose import compose_all, expand, validate
from advanchor.core import BadInput
from advanchor.gallery.page import one_run, place, write
from advanchor.results.overview import finished_runs, sweep_page
from advanchor.results.sweep import erasures
from advanchor.results.tables import parted

HELP = """\
advanchor gallery key=value ... --to=<page.html>   a finished run, or a sweep's, as one page of pictures

--to=<page.html>                where it goes: one file that needs no network, below 10 MB
--help                          this text

The words are those of the run: `advanchor method=esd seed=1` is shown by `advanchor gallery method=esd seed=1`.
Nothing is trained or drawn; a judge looks again only where its records are gone. A sweep's page has its table, the
trade-off figure, what was lost where, and every run with some of its pictures; `table.rows` and the like are as in
`advanchor table`.

experiment=<name>               the runs of an experiment
root=outputs                    where the runs are"""


def main(args: Sequence[str]) -> str:
    """The command's arguments -> what was written.

    Raises:
        BadInput: a mistake in the arguments; no run of these words is there, or another judge measured it; a picture is
            damaged; the page cannot be written, or would be too large.
    """
    flags, overrides = parted("gallery", args, ["--to=<page.html>", "--help"])
    if "--help" in flags:
        return HELP
    if not flags.get("--to"):
        raise BadInput("gallery writes a page: say where, --to=<page.html>.")
    file = place(flags["--to"])
    validate(overrides)
    choices = expand(overrides)
    configs = compose_all(choices)
    erasures(configs, "gallery")
    runs = finished_runs(overrides, choices, configs)
    if several := len(choices) > 1:
        html = sweep_page(overrides, runs)
    else:
        ((cfg, result, words),) = runs
        html = one_run(cfg, result, words)
    write(html, file)
    shown = f"{len(runs)} of {len(choices)} runs" if several else "the run"
    return f"wrote {file}: {shown}, {len(html.encode()) / 1e6:.1f} MB"
