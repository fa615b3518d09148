"""What a command searches: the settings that it gives as choice(...), range(...) or interval(...), in Hydra's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, QuotedString, RangeSweep
from omegaconf import DictConfig

from advanchor.compose import compose_all, composed, expand
from advanchor.compose.overrides import parsed
from advanchor.core import BadInput, show
from advanchor.results.sweep import label

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

Space = dict[str, "BaseDistribution"]


@dataclass(frozen=True)
class Search:
    """One row's study.

    Attributes:
        row: what the rows of the table are called.
        words: the overrides that all its trials have.
        minimize, maximize: scores.
        file: its journal, to which all processes append.
    """

    row: tuple[str, ...]
    words: list[str]
    space: Space
    trials: int
    minimize: list[str]
    maximize: list[str]
    seed: int
    file: Path

    @property
    def scores(self) -> list[str]:
        return [*self.minimize, *self.maximize]

    def study(self) -> optuna.Study:
        """What its journal holds, as it stands now."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        ways: list[Literal["minimize", "maximize"]] = ["minimize"] * len(self.minimize)
        ways += ["maximize"] * len(self.maximize)
        storage = JournalStorage(JournalFileBackend(str(self.file)))
        return optuna.create_study(storage=storage, study_name=self.file.stem, directions=ways, load_if_exists=True)

    def place(self, number: int) -> Path:
        """The lock of a trial: held while a process is at it."""
        return self.file.with_suffix("") / f"trial-{number}.lock"

    def lines(self, params: Mapping[str, Any]) -> list[str]:
        """A trial as overrides."""
        return [*self.words, *(f"{name}={show(value)}" for name, value in params.items())]

    def again(self, params: Mapping[str, Any], seeds: Sequence[int]) -> list[str]:
        """A trial as overrides, with further seeds."""
        each = dict.fromkeys([*(cfg.seed for cfg in self.runs(params)), *seeds])
        lines = [line for line in self.lines(params) if not line.startswith("seed=")]
        return [*lines, f"seed={','.join(map(str, each))}"]

    def runs(self, params: Mapping[str, Any]) -> list[DictConfig]:
        """The configs that a trial runs: those of its row."""
        return self.mine(expand(self.lines(params)))

    def mine(self, runs: Sequence[Sequence[str]]) -> list[DictConfig]:
        """The configs of those runs of a sweep that are in this row."""
        configs = compose_all(runs)
        return [cfg for cfg in configs if tuple(label(cfg, name) for name in cfg.table.rows) == self.row]


def searched(line: str) -> bool:
    """Is this an override to search, and no list between commas, each value of which is run?"""
    one = parsed(line)
    value = one.value()
    return one.is_sweep_override() and (
        isinstance(value, IntervalSweep | RangeSweep) or (isinstance(value, ChoiceSweep) and not value.simple_form)
    )


def space(overrides: Sequence[str]) -> tuple[Space, list[str]]:
    """What is searched, name -> distribution, and the overrides that are not. An experiment may say what to search in
    its hydra.sweeper.params; what the command says of the same setting comes last.

    Raises:
        BadInput: nothing is to be searched, or in a way that cannot be.
    """
    chosen = [o for o in overrides if o.startswith(("experiment=", "config_dir="))]
    written = cast(Mapping[str, Any], composed(chosen).hydra.sweeper.get("params") or DictConfig({}))
    lines = {name: f"{name}={show(values)}" for name, values in written.items()}
    given = {o.partition("=")[0]: o for o in overrides if not o.startswith("config_dir=")}
    found = {name: line for name, line in {**lines, **given}.items() if "=" in line and searched(line)}
    if not found:
        example = "'method.lr=tag(log,interval(1e-5,1e-3))' or 'method.steps=choice(30,60,120)'"
        raise BadInput(f"nothing is to be searched: give a setting as {example}.")
    return {n: distribution(line) for n, line in found.items()}, [o for o in overrides if o not in found.values()]


def distribution(line: str) -> BaseDistribution:
    """What a value is drawn from; `int(interval(1,9))` has whole numbers.

    Raises:
        BadInput: an empty span, a logarithm of what is not above 0, or a tag that is not `log`.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    one = parsed(line)
    value = cast(ChoiceSweep | RangeSweep | IntervalSweep, one.value())
    log = value.tags == {"log"}
    if value.tags - {"log"} or (log and not isinstance(value, IntervalSweep)):
        raise BadInput(f"{line} has a tag that means nothing here: the one there is is tag(log,interval(low,high)).")
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution([plain(v) for v in value.list])
    low, high = (value.start, value.end) if isinstance(value, IntervalSweep) else (value.start, value.stop)
    if low is None or high is None or not low < high or (log and low <= 0):
        rule = "the first above 0, the second above the first" if log else "the second above the first"
        raise BadInput(f"{line} is no span: give two numbers, {rule}.")
    whole = isinstance(low, int) and isinstance(high, int)
    if isinstance(value, RangeSweep):  # whose end is not in it
        step = value.step
        if step <= 0:
            raise BadInput(f"{line} goes down: write it with a step above 0.")
        if whole and isinstance(step, int):
            return IntDistribution(int(low), int(low + (high - 1 - low) // step * step), step=step)
        return CategoricalDistribution([float(v) for v in value.range()])
    return IntDistribution(int(low), int(high), log=log) if whole else FloatDistribution(low, high, log=log)


def plain(value: Any) -> str | int | float | bool | None:
    """A value of choice(...) as a study keeps it.

    Raises:
        BadInput: it is a list or several settings.
    """
    if isinstance(value, QuotedString):
        return str(value.text)
    if isinstance(value, list | dict):
        raise BadInput(f"choice({show(value)}, ...) will not do: choose between numbers, words, true, false and null.")
    return cast("str | int | float | bool | None", value)
