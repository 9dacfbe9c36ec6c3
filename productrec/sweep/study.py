"""The journal of a sweep, which several processes share: who tries what, what came of it, what is tried next.

The one module that imports Optuna. A trial of the sweep has a number from 1; where it is begun again, Optuna counts
another trial, which gets the same number here. The lock of a running trial tells whether its process is still alive.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from productrec.errors import RecipeError
from productrec.locking import ProcessLock
from productrec.recipe import Recipe
from productrec.sweep.space import Range, Space, Spec

_JOURNAL = "journal.log"
# What is noted of a trial; "place" is the number's name in the journals there are.
_NUMBER, _REASON, _PRUNED = "place", "reason", "pruned"
_MOST_REFUSED = 100  # draws in a row that the recipe may refuse
_SPARED_TRIALS = 4  # that are trained to their end before others are compared with them


@dataclass(frozen=True)
class TrialRow:
    """What is known of a trial; ``number`` counts from 1.

    ``state``: finished, pruned, failed, running, or stopped, which will be begun again. ``value``: the best so far,
    None where there is none.
    """

    number: int
    state: str
    value: float | None
    epochs: int
    minutes: float
    settings: dict[str, Any]
    reason: str


class ActiveTrial:
    """A trial that this process runs; ``recipe`` is what to train, ``goes_on`` whether an earlier process began it."""

    def __init__(self, trial: optuna.Trial, number: int, settings: dict[str, Any], recipe: Recipe) -> None:
        self.trial, self.number, self.settings, self.recipe = trial, number, settings, recipe
        self.goes_on = self.was_pruned = False
        self._told: set[int] = set()

    def tell(self, epoch: int, value: float) -> None:
        """Note the validation figure of an epoch (from 0), once."""
        if epoch not in self._told and np.isfinite(value):
            self._told.add(epoch)
            self.trial.report(value, epoch)

    def prune(self) -> bool:
        """Whether the trial is hopeless beside the others at its newest epoch; noted, if so."""
        self.was_pruned = self.trial.should_prune()
        if self.was_pruned:
            self.trial.set_user_attr(_PRUNED, True)
        return self.was_pruned


class _JournalLock(JournalFileOpenLock):
    """The kernel's lock instead of Optuna's, which a process that is killed leaves behind for half a minute.

    Taking it also removes the half line that a full disk or a power cut may leave, after which nothing could be read.
    """

    def __init__(self, path: Path, journal: Path) -> None:
        super().__init__(str(path))
        self._lock, self._journal = ProcessLock(path), journal

    def acquire(self) -> bool:
        self._lock.acquire()
        with self._journal.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                file.seek(end - 1)
                if file.read(1) == b"\n":
                    break
                end -= 1
            file.truncate(end)
        return True

    def release(self) -> None:
        self._lock.release()


class Study:
    """The trials of the sweep in a folder, shared with whatever other processes open it."""

    def __init__(self, folder: Path, space: Space, *, lower_is_better: bool, seed: int, epochs: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "locks").mkdir(exist_ok=True)
        self._folder, self._seed = folder, seed
        self._lower_is_better = lower_is_better
        self._distributions = {key: _build_distribution(spec) for key, spec in space.items()}
        self._lock = ProcessLock(folder / "locks" / "sweep")
        self._own: dict[int, ProcessLock] = {}
        with self.hold(), _allow_experiments():
            journal = folder / _JOURNAL
            backend = JournalFileBackend(str(journal), lock_obj=_JournalLock(folder / "locks" / "journal", journal))
            self._study = optuna.create_study(
                study_name="sweep",
                storage=JournalStorage(backend),
                direction="minimize" if lower_is_better else "maximize",
                pruner=build_pruner(epochs),
                load_if_exists=True,
            )

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the other processes from taking or ending a trial."""
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def take(self, wanted: int | None, build: Callable[[int, dict[str, Any]], Recipe]) -> ActiveTrial | None:
        """Begin the next trial, or None where ``wanted`` are finished or running.

        A trial that was stopped, or whose process died, is begun again with its number and its settings.

        Args:
            wanted: trials in all, those of other processes included; None for no end.
            build: recipe of a trial's number and settings; settings that it refuses are drawn anew.

        Raises:
            RecipeError: nothing that was drawn suits the recipe.
        """
        with self.hold(), _allow_experiments():
            trials = self._reap()
            held = {trial.user_attrs[_NUMBER] for trial in trials if trial.state is not TrialState.FAIL}
            if wanted is not None and len(held) >= wanted:
                return None
            number = next(free for free in range(1, len(held) + 2) if free not in held)
            earlier = [trial for trial in trials if trial.user_attrs[_NUMBER] == number]
            waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if earlier and not waiting:  # there is one where a process died at this very line
                self._study.enqueue_trial(earlier[-1].params)
            refused = ""
            for attempt in range(_MOST_REFUSED):
                # By the trial's number and not a process's: whoever takes it, and again after a kill, draws the same.
                self._study.sampler = build_sampler(self._seed, number, attempt)
                trial = self._study.ask(self._distributions)
                self._own[trial.number] = ProcessLock(self._folder / "locks" / str(trial.number))
                self._own[trial.number].acquire()
                settings = _decode(trial.params)
                try:
                    active = ActiveTrial(trial, number, settings, build(number, settings))
                except RecipeError as error:
                    refused = str(error)
                    self._end(trial.number, TrialState.FAIL)
                    continue
                active.goes_on = bool(earlier) and earlier[-1].params == trial.params
                active.was_pruned = active.goes_on and _PRUNED in earlier[-1].user_attrs
                if active.was_pruned:
                    trial.set_user_attr(_PRUNED, True)
                trial.set_user_attr(_NUMBER, number)
                return active
        raise RecipeError(f"sweep: {_MOST_REFUSED} draws in a row were refused; the last: {refused}")

    def finish(self, active: ActiveTrial, value: float) -> None:
        """Note what a trial that was trained to its end has reached."""
        self._end(active.trial.number, TrialState.COMPLETE, value)

    def give_up(self, active: ActiveTrial, reason: str = "") -> None:
        """Note that a trial was pruned or, with a ``reason``, that its settings cannot be trained with."""
        if reason:
            active.trial.set_user_attr(_REASON, reason)
        self._end(active.trial.number, TrialState.PRUNED)

    def stop(self, active: ActiveTrial, reason: str) -> None:
        """Note that a trial must be gone on with later."""
        active.trial.set_user_attr(_REASON, reason)
        self._end(active.trial.number, TrialState.FAIL)

    def list_rows(self) -> list[TrialRow]:
        """The newest state of each trial, by number; to be called within `hold`."""
        newest = {trial.user_attrs[_NUMBER]: trial for trial in self._reap()}
        return [self._describe(trial) for _, trial in sorted(newest.items())]

    def _end(self, optuna_number: int, state: TrialState, value: float | None = None) -> None:
        self._study.tell(optuna_number, value, state=state)
        if optuna_number in self._own:
            self._own.pop(optuna_number).release()

    def _reap(self) -> list[FrozenTrial]:
        """Optuna's trials that have a number here, after those whose process is dead were ended."""
        trials = self._study.get_trials(deepcopy=False)
        died: list[dict[str, Any]] = [
            trial.params for trial in trials if trial.state is TrialState.FAIL and _REASON not in trial.user_attrs
        ]
        for trial in trials:
            if trial.state is not TrialState.RUNNING or trial.number in self._own:
                continue
            lock = ProcessLock(self._folder / "locks" / str(trial.number))
            if lock.acquire(wait=False):
                lock.release()
                # What kills its process twice, by the memory it takes for instance, would do so for ever.
                is_deadly = _NUMBER in trial.user_attrs and trial.params in died
                self._end(trial.number, TrialState.PRUNED if is_deadly else TrialState.FAIL)
        return [trial for trial in self._study.get_trials(deepcopy=False) if _NUMBER in trial.user_attrs]

    def _describe(self, trial: FrozenTrial) -> TrialRow:
        attributes = trial.user_attrs
        states = {TrialState.COMPLETE: "finished", TrialState.RUNNING: "running", TrialState.FAIL: "stopped"}
        reason = str(attributes.get(_REASON, ""))
        state = states.get(trial.state, "pruned")
        if state == "stopped":
            reason = reason or "its process died"
        elif state == "pruned" and _PRUNED not in attributes:
            state, reason = "failed", reason or "its process died twice"
        values = list(trial.intermediate_values.values())
        value = trial.value if state == "finished" else None
        if value is None and values:
            value = min(values) if self._lower_is_better else max(values)
        duration = trial.duration
        minutes = 0.0 if duration is None else duration.total_seconds() / 60
        epochs = max(trial.intermediate_values, default=-1) + 1
        return TrialRow(attributes[_NUMBER], state, value, epochs, minutes, _decode(trial.params), reason)


def build_sampler(seed: int, number: int, attempt: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimators (Bergstra et al. 2011) over all settings together."""
    state = int(np.random.SeedSequence([seed, number, attempt]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=state, multivariate=True, constant_liar=True)


def build_pruner(epochs: int) -> optuna.pruners.BasePruner:
    """Prunes what is below the median of the trials before it at the same epoch, the first quarter aside."""
    return optuna.pruners.MedianPruner(n_startup_trials=_SPARED_TRIALS, n_warmup_steps=max(1, epochs // 4))


def _build_distribution(spec: Spec) -> BaseDistribution:
    if not isinstance(spec, Range):
        # As JSON: Optuna takes no lists, and 1, 1.0 and true for the same.
        return CategoricalDistribution([json.dumps(value, sort_keys=True) for value in spec.values])
    if spec.whole:
        return IntDistribution(int(spec.low), int(spec.high), log=spec.log, step=int(spec.step or 1))
    return FloatDistribution(spec.low, spec.high, log=spec.log, step=spec.step)


def _decode(params: dict[str, Any]) -> dict[str, Any]:
    return {key: json.loads(value) if isinstance(value, str) else value for key, value in params.items()}


@contextlib.contextmanager
def _allow_experiments() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
