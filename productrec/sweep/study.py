"""The journal of a sweep, which several processes share: who tries what, what came of it, what is tried next.

The one module that imports Optuna. Locks are the kernel's, so that a process that dies holds none.
"""

from __future__ import annotations

import contextlib
import fcntl
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

from productrec.artifacts import explain_storage_errors
from productrec.errors import RecipeError, StorageError
from productrec.recipe import Recipe
from productrec.sweep.space import Range, Space, Spec

_JOURNAL = "journal.log"
_PLACE, _REASON, _PRUNED = "place", "reason", "pruned"  # what is noted of a trial
_MOST_REFUSED = 100  # draws in a row that the recipe may refuse
_SPARED_TRIALS = 4  # that are trained to their end before others are compared with them


@dataclass(frozen=True)
class Row:
    """What is known of a trial; ``place`` counts from 1.

    ``state``: finished, pruned, failed, running, or stopped, which another one will take the place of. ``value`` is the
    best so far, None where there is none.
    """

    place: int
    state: str
    value: float | None
    epochs: int
    minutes: float
    settings: dict[str, Any]
    reason: str


class Taken:
    """A trial that this process runs; ``recipe`` is what to train, ``goes_on`` whether an earlier process began it."""

    def __init__(self, trial: optuna.Trial, place: int, settings: dict[str, Any], recipe: Recipe) -> None:
        self.trial, self.place, self.settings, self.recipe = trial, place, settings, recipe
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


class FileLock:
    """One process at a time; not to be taken twice by the same one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Wait for it."""
        return self._take(fcntl.LOCK_EX)

    def try_acquire(self) -> bool:
        """Take it if nobody has it."""
        return self._take(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _take(self, how: int) -> bool:
        with explain_storage_errors(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, how)  # unlike flock's, not inherited by loader processes that outlive this one
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            os.close(descriptor)
            raise StorageError(
                f"{self._path}: cannot be locked ({error.strerror}). Put the sweep on another disk with --out."
            ) from None
        self._descriptor = descriptor
        return True


class _JournalLock(JournalFileOpenLock):
    """Ours in the place of Optuna's, which a process that is killed leaves behind for half a minute.

    It also takes away the half line that a full disk or a power cut may leave, after which nothing could be read.
    """

    def __init__(self, path: Path, journal: Path) -> None:
        super().__init__(str(path))
        self._lock, self._journal = FileLock(path), journal

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
        self._lock = FileLock(folder / "locks" / "sweep")
        self._own: dict[int, FileLock] = {}
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

    def take(self, wanted: int | None, build: Callable[[int, dict[str, Any]], Recipe]) -> Taken | None:
        """Begin the next trial, or None where ``wanted`` are finished or running.

        A trial that was stopped, or whose process died, comes again at its place, with its settings.

        Args:
            wanted: trials in all, those of other processes included; None for no end.
            build: recipe of a place and its settings; settings that it refuses are drawn anew.

        Raises:
            RecipeError: nothing that was drawn suits the recipe.
        """
        with self.hold(), _allow_experiments():
            trials = self._reap()
            held = {trial.user_attrs[_PLACE] for trial in trials if trial.state is not TrialState.FAIL}
            if wanted is not None and len(held) >= wanted:
                return None
            place = next(number for number in range(1, len(held) + 2) if number not in held)
            earlier = [trial for trial in trials if trial.user_attrs[_PLACE] == place]
            waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if earlier and not waiting:  # there is one where a process died at this very line
                self._study.enqueue_trial(earlier[-1].params)
            refused = ""
            for attempt in range(_MOST_REFUSED):
                # By the place and not by a process's number: whoever takes it, and again after a kill, draws the same.
                self._study.sampler = build_sampler(self._seed, place, attempt)
                trial = self._study.ask(self._distributions)
                self._own[trial.number] = FileLock(self._folder / "locks" / str(trial.number))
                self._own[trial.number].acquire()
                settings = _decode(trial.params)
                try:
                    taken = Taken(trial, place, settings, build(place, settings))
                except RecipeError as error:
                    refused = str(error)
                    self._end(trial.number, TrialState.FAIL)
                    continue
                taken.goes_on = bool(earlier) and earlier[-1].params == trial.params
                taken.was_pruned = taken.goes_on and _PRUNED in earlier[-1].user_attrs
                if taken.was_pruned:
                    trial.set_user_attr(_PRUNED, True)
                trial.set_user_attr(_PLACE, place)
                return taken
        raise RecipeError(f"sweep: {_MOST_REFUSED} draws in a row were refused; the last: {refused}")

    def finish(self, taken: Taken, value: float) -> None:
        """Note what a trial that was trained to its end has reached."""
        self._end(taken.trial.number, TrialState.COMPLETE, value)

    def give_up(self, taken: Taken, reason: str = "") -> None:
        """Note that a trial was pruned or, with a ``reason``, that its settings cannot be trained with."""
        if reason:
            taken.trial.set_user_attr(_REASON, reason)
        self._end(taken.trial.number, TrialState.PRUNED)

    def stop(self, taken: Taken, reason: str) -> None:
        """Note that a trial must be gone on with later."""
        taken.trial.set_user_attr(_REASON, reason)
        self._end(taken.trial.number, TrialState.FAIL)

    def list_rows(self) -> list[Row]:
        """The newest of each place, by place; to be called within `hold`."""
        newest = {trial.user_attrs[_PLACE]: trial for trial in self._reap()}
        return [self._describe(trial) for _, trial in sorted(newest.items())]

    def _end(self, number: int, state: TrialState, value: float | None = None) -> None:
        self._study.tell(number, value, state=state)
        if number in self._own:
            self._own.pop(number).release()

    def _reap(self) -> list[FrozenTrial]:
        """All trials with a place, after those whose process is dead were ended."""
        trials = self._study.get_trials(deepcopy=False)
        died: list[dict[str, Any]] = [
            trial.params for trial in trials if trial.state is TrialState.FAIL and _REASON not in trial.user_attrs
        ]
        for trial in trials:
            if trial.state is not TrialState.RUNNING or trial.number in self._own:
                continue
            lock = FileLock(self._folder / "locks" / str(trial.number))
            if lock.try_acquire():
                lock.release()
                # What kills its process twice, by the memory it takes for instance, would do so for ever.
                is_deadly = _PLACE in trial.user_attrs and trial.params in died
                self._end(trial.number, TrialState.PRUNED if is_deadly else TrialState.FAIL)
        found = self._study.get_trials(deepcopy=False)
        return [trial for trial in found if _PLACE in trial.user_attrs]

    def _describe(self, trial: FrozenTrial) -> Row:
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
        return Row(attributes[_PLACE], state, value, epochs, minutes, _decode(trial.params), reason)


def build_sampler(seed: int, place: int, attempt: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimators (Bergstra et al. 2011) over all settings together."""
    state = int(np.random.SeedSequence([seed, place, attempt]).generate_state(1)[0])
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
