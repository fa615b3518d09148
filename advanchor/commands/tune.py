"""`advanchor tune`: Optuna asks for settings, a trial makes the runs that have them, and is told what they scored.

    advanchor tune anchor=similarity,sibling 'method.lr=tag(log,interval(1e-5,1e-3))' 'method.steps=choice(30,60,120)'

Each row of the table (method and anchor) has a study of its own, with as many trials as the others. What stands between
commas and is in no row is no choice: a trial's value is the mean over it (concepts, seeds). Nothing of a trial is lost
when it is killed: its runs resume as all runs do, and whoever comes next, in this process or another, goes on with it.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig

from advanchor.commands.attempts import attempt, writable
from advanchor.commands.search import Search, space
from advanchor.compose import compose_all, expand, validate
from advanchor.core import BadInput, show
from advanchor.identity import key, plain, run_id
from advanchor.results.sweep import label, shortest
from advanchor.run import finished
from advanchor.store import lock, slug

if TYPE_CHECKING:
    import optuna

log = logging.getLogger("advanchor.commands.tune")
FAILED = 3  # trials one after the other without one that finished


def searches(overrides: Sequence[str]) -> tuple[list[Search], DictConfig]:
    """A study for each row of what the command asks for, and the config of its first run. Nothing is written.

    Raises:
        BadInput: a mistake in the command or its space; settings are to be chosen on the half to report on.
    """
    found, words = space(overrides)
    ends = [[f"{name}={show(end(one, last))}" for name, one in found.items()] for last in (False, True)]
    configs = compose_all(expand([*words, *ends[0]]))
    if any(one.sample.get("half") == "report" for one in configs):
        raise BadInput("sample.half=report is what is reported on, and nothing is chosen there: take choose, or all.")
    if not any(word.startswith("sample.half=") for word in words):
        words = [*words, "sample.half=choose"]
        configs = compose_all(expand([*words, *ends[0]]))
    for values in ends:
        validate([*words, *values])
    cfg = configs[0]
    asked = settings(cfg)
    if cfg.stage == "anchor" and any(
        not name.startswith("anchor/") for name in (*asked["minimize"], *asked["maximize"])
    ):
        such = "tune.minimize=[anchor/hit] tune.maximize=[anchor/content]"
        raise BadInput(f"stage=anchor measures what is drawn under an anchor and nothing else: say {such}.")
    if inside := [name for name in found if name in cfg.table.rows or name in cfg.table.columns]:
        raise BadInput(f"{inside[0]} is searched, and cannot tell rows apart: take it out of table.rows and columns.")
    rows = dict.fromkeys(tuple(label(one, name) for name in cfg.table.rows) for one in configs)
    studies = []
    for row in rows:
        runs = sorted(run_id(one) for one in configs if tuple(label(one, name) for name in one.table.rows) == row)
        what = [sorted((name, repr(one)) for name, one in found.items()), asked["minimize"], asked["maximize"]]
        name = key(runs, what, asked["seed"], plain(cfg.judge), plain(cfg.get("metric", {})))
        file = Path(cfg.root) / "studies" / f"{slug(' '.join(row))[:-9]}-{name}.journal"
        studies.append(Search(row, words, found, file=file, **asked))
    return studies, cfg


def settings(cfg: DictConfig) -> dict[str, Any]:
    """`tune` of a config, but for the replicas.

    Raises:
        BadInput: one of them will not do.
    """
    spec = cfg.tune
    known = ("trials", "minimize", "maximize", "replicas", "seed")
    if unknown := [name for name in spec if name not in known]:
        raise BadInput(f"there is no setting 'tune.{unknown[0]}': choose from {', '.join(known)}.")
    for name, least in (("trials", 1), ("seed", 0)):
        if not isinstance(spec.get(name), int) or isinstance(spec[name], bool) or spec[name] < least:
            raise BadInput(
                f"tune.{name}={show(spec.get(name))} will not do: it must be a whole number, at least {least}."
            )
    for name in ("minimize", "maximize", "replicas"):
        kind = int if name == "replicas" else str
        if not isinstance(spec.get(name), ListConfig) or not all(type(one) is kind for one in spec[name]):
            such = "[1,2]" if name == "replicas" else "[erasure/hit]"
            raise BadInput(f"tune.{name}={show(spec.get(name))} will not do: it must be a list, such as {such}.")
    every = [*spec.minimize, *spec.maximize]
    if not every or len({*every}) < len(every):
        raise BadInput("tune.minimize and tune.maximize name a score twice, or none: name each once.")
    return {"trials": spec.trials, "seed": spec.seed, "minimize": [*spec.minimize], "maximize": [*spec.maximize]}


def end(one: Any, last: bool) -> Any:
    """The first or last value of a distribution."""
    return one.choices[-1 if last else 0] if hasattr(one, "choices") else one.high if last else one.low


@contextmanager
def taken(search: Search) -> Iterator[tuple[optuna.Study, int, dict[str, Any]] | None]:
    """A trial to make, under its lock: one that a killed process has left, or a new one; None if as many as are asked
    for are finished, or are being made by others.
    """
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    search.place(0).parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as holding:
        with lock(search.place(0).with_name("ask.lock")):
            number, params = left_over(search, holding)
            study = search.study()
            trials = study.get_trials(deepcopy=False)
            taking = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.RUNNING)]
            if number is None and len(taking) < search.trials:
                # A sampler of its own for each trial: the same is asked for after a kill.
                study.sampler = TPESampler(seed=search.seed * 100_003 + len(trials))
                new = study.ask(search.space)
                number, params = new.number, dict(new.params)
                holding.enter_context(lock(search.place(number)))
        yield None if number is None else (study, number, params)


def left_over(search: Search, holding: ExitStack) -> tuple[int | None, dict[str, Any]]:
    """A trial that a killed process has left, whose lock `holding` has from now on; None if there is none."""
    from optuna.trial import TrialState

    for left in search.study().get_trials(deepcopy=False):
        if left.state != TrialState.RUNNING:
            continue
        with ExitStack() as trying:
            if not trying.enter_context(lock(search.place(left.number), block=False)):
                continue
            study = search.study()  # as it is now: whoever made the trial tells it before letting go of the lock
            if study.get_trials(deepcopy=False)[left.number].state != TrialState.RUNNING:
                continue
            if {*left.params} == {*search.space}:
                holding.push(trying.pop_all())
                return left.number, dict(left.params)
            study.tell(left.number, state=TrialState.FAIL)  # killed while it was being asked for
    return None, {}


def made(search: Search) -> str | None:
    """Make trials until as many as are asked for are finished; returns what is to be said if they fail."""
    from optuna.trial import TrialState

    failing = 0
    while failing < FAILED:
        with taken(search) as trial:
            if trial is None:
                return None
            study, number, params = trial
            values, why = scored(search, params)
            said = ", ".join(f"{name} {shortest(value)}" for name, value in params.items())
            if values is None:
                failing += 1
                study.tell(number, state=TrialState.FAIL)
                log.info("%s, trial %d: %s: failed: %s", " + ".join(search.row), number, said, why)
                continue
            failing = 0
            study.tell(number, values)
            got = ", ".join(f"{name} {value:.3f}" for name, value in zip(search.scores, values, strict=True))
            log.info("%s, trial %d: %s: %s", " + ".join(search.row), number, said, got)
    return f"{' + '.join(search.row)}: {FAILED} trials failed one after the other; the last: {why}"


def scored(search: Search, params: Mapping[str, Any]) -> tuple[list[float] | None, str]:
    """A trial's value of each score, the mean over its runs; or None and why it failed.

    Raises:
        BadInput: its runs have no such score.
    """
    results, failed = [], dict[Path, str]()
    for cfg in search.runs(params):
        out = Path(cfg.root) / run_id(cfg)
        result = finished(cfg) or attempt(cfg, out, failed)
        if result is None and not failed:
            with lock(out / ".lock"):  # another process is at it
                result = finished(cfg)
        if result is None:
            return None, failed.get(out, f"{out} was made by another process, and failed there")
        if lacking := [name for name in search.scores if name not in result["scores"]]:
            there = ", ".join(sorted(result["scores"]))
            remedy = f"correct tune.minimize or tune.maximize; there are {there}"
            raise BadInput(f"the runs have no score '{lacking[0]}': {remedy}.")
        results.append([result["scores"][name]["value"] for name in search.scores])
    return [statistics.mean(values) for values in zip(*results, strict=True)], ""


def replicated(search: Search, seeds: Sequence[int], root: Path) -> list[str]:
    """The trials that no other beats, made again with further seeds; returns what is to be said of those that failed.

    Their study is not told: it would compare them with trials of fewer seeds.
    """
    failed: dict[Path, str] = {}
    for trial in search.study().best_trials:
        for cfg in search.mine(expand(search.again(trial.params, seeds))):
            if not finished(cfg):
                attempt(cfg, root / run_id(cfg), failed)
    return [f"{out}: {why}" for out, why in failed.items()]


def main(args: Sequence[str]) -> str:
    """The command's arguments -> the text to print.

    Raises:
        BadInput: a mistake in the command; Optuna is not installed; a folder cannot be written; what failed, with the
            rest printed before.
    """
    from advanchor.commands.studies import HELP, page, written
    from advanchor.results.tables import parted

    flags, words = parted("tune", args, ["--to=<folder>", "--help"])
    if "--help" in flags:
        return HELP
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise BadInput("advanchor tune needs Optuna: pip install 'advanchor[tune]'.") from None
    each, cfg = searches(words)
    writable(Path(cfg.root))
    failed = [why for search in each if (why := made(search))]
    for search in each if cfg.tune.replicas else ():
        failed += replicated(search, cfg.tune.replicas, Path(cfg.root))
    said = page(each, cfg.tune.replicas)
    if "--to" in flags:
        said = "\n".join([said, "", *written(each, cfg.tune.replicas, flags["--to"])])
    if failed:
        print(said)
        raise BadInput("; ".join(failed))
    return said
