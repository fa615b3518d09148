"""What a search has found: the trials that no other beats, as a table, a figure and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from advanchor.report import ARROW
from advanchor.results.cells import Cell
from advanchor.results.figures import Figure, folder_for, painted
from advanchor.results.forms import clean, laid
from advanchor.results.sweep import read, shortest
from advanchor.units import SPREAD

if TYPE_CHECKING:
    import optuna

    from advanchor.commands.search import Search

CHOSEN = (
    "The best of many trials looks better than it is: report with sample.half=report, on concepts that nothing was "
    "chosen on."
)
HELP = """\
advanchor tune key=value ...           look for settings; the same command goes on, and several processes share the work

'method.lr=tag(log,interval(1e-5,1e-3))'  what is searched: interval, int(interval(1,9)), range or choice, here or in an
method.steps=choice(30,60,120)         experiment's hydra.sweeper.params
concept=emoji/fox,emoji/car            what is not: a trial's value is the mean over what stands between commas ...
anchor=sibling,superclass              ... but for what the rows of the table tell apart: each has a study of its own
tune.trials=20                         finished trials of each study, in all
tune.minimize=[erasure/hit]            scores, several at once if you like: then there are trials that no other beats
tune.maximize=[content/hit,keep/hit]
tune.replicas=[1,2]                    further seeds for those trials alone
tune.seed=0                            of the search
sample.half=choose                     the half of the prompts, unless told otherwise; report is for what is chosen

--to=<folder>                          also a figure and every trial as JSON
--help                                 this text"""


def best(search: Search) -> list[optuna.trial.FrozenTrial]:
    """The finished trials that no other beats, by their values."""
    return sorted(search.study().best_trials, key=lambda t: (t.values, t.number))


def cells(search: Search, trial: optuna.trial.FrozenTrial, seeds: Sequence[int]) -> dict[str, Cell]:
    """A trial's scores over all its runs, those with further seeds included."""
    lines = search.again(trial.params, seeds)
    shown = [line for line in lines if not line.startswith(("table.columns=", "table.cells="))]
    sweep, _ = read([*shown, "table.columns=[]", f"table.cells=[{','.join(search.scores)}]"])
    return {name: sweep.cells[search.row, (), name] for name in search.scores}


def page(searches: Sequence[Search], seeds: Sequence[int]) -> str:
    """For each study the trials that no other beats, and what they are not."""
    parts = []
    for search in searches:
        trials = search.study().get_trials(deepcopy=False)
        done, lost = (sum(t.state.name == state for t in trials) for state in ("COMPLETE", "FAIL"))
        count = f"{done} of {search.trials} trials finished" + (f", {lost} failed" if lost else "")
        arrows = [f"{n} {ARROW['lower' if n in search.minimize else 'higher']}" for n in search.scores]
        lines = [["trial", *search.space, *arrows]]
        for trial in best(search):
            found = cells(search, trial, seeds)
            settings = [shortest(trial.params[name]) for name in search.space]
            lines.append([str(trial.number), *settings, *(found[name].text() for name in search.scores)])
        clear = [[clean("markdown", one) for one in line] for line in lines]
        parts += [f"{' + '.join(search.row)}: {count}; those that no other beats:", ""]
        parts += [laid("markdown", clear[0], clear[1:], 1), ""]
    spread = "± is the standard deviation over seeds." if seeds else SPREAD
    return "\n".join([*parts, f"{spread} {CHOSEN}"])


def written(searches: Sequence[Search], seeds: Sequence[int], place: str) -> list[str]:
    """Figures and every trial of every study, in a folder; returns what was written."""
    folder = folder_for(place)
    figures: list[Figure] = []
    for search in searches:
        panels = max(1, len(search.scores) - 1)
        figures.append((search.file.stem, partial(trials_of, search=search), (4.2 * panels, 3.8)))
        content = {
            "row": search.row,
            "words": search.words,
            "space": {name: repr(one) for name, one in search.space.items()},
            "scores": search.scores,
            "trials": [
                {"number": t.number, "state": t.state.name, "params": t.params, "values": t.values}
                for t in search.study().get_trials(deepcopy=False)
            ],
            "best": [
                {"number": t.number, **{name: summary(cell) for name, cell in cells(search, t, seeds).items()}}
                for t in best(search)
            ],
        }
        (folder / f"{search.file.stem}.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    return [*painted(figures, folder), *(str(folder / f"{search.file.stem}.json") for search in searches)]


def summary(cell: Cell) -> dict[str, Any]:
    return {"mean": cell.mean, "seeds": cell.seeds, "interval": cell.bounds}


def trials_of(figure: Any, search: Search) -> None:
    """Every finished trial, grey, and those that no other beats, numbered: the first score against each other one; of a
    single score each trial in turn, and the best so far.
    """
    done = [t for t in search.study().get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    front = {t.number for t in best(search)}
    first, *others = search.scores
    panels = figure.subplots(1, max(1, len(others)), squeeze=False)[0]
    if not others:
        values = [t.values[0] for t in done]
        so_far = min if search.minimize else max
        panels[0].plot([t.number for t in done], values, "o", color="0.7", markersize=5)
        panels[0].step([t.number for t in done], [so_far(values[: i + 1]) for i in range(len(values))], where="post")
        panels[0].set_xlabel("trial", fontsize=8)
        panels[0].set_ylabel(first, fontsize=8)
    for axes, (i, name) in zip(panels, enumerate(others, 1), strict=False):
        for t in done:
            look = {"color": "#D55E00", "zorder": 3} if t.number in front else {"color": "0.75"}
            axes.plot(t.values[0], t.values[i], "o", markersize=6, **look)
            if t.number in front:
                at = {"xytext": (5, 4), "textcoords": "offset points", "fontsize": 7}
                axes.annotate(str(t.number), (t.values[0], t.values[i]), **at)
        axes.set_xlabel(f"{first} ({'lower' if first in search.minimize else 'higher'} is better)", fontsize=8)
        axes.set_ylabel(f"{name} ({'lower' if name in search.minimize else 'higher'} is better)", fontsize=8)
        axes.grid(alpha=0.25)
    figure.suptitle(" + ".join(search.row), fontsize=9)
