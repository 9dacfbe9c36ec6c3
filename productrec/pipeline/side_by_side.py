"""Side by side: several models of one recipe trained at once, each in a process of its own with its share of the cores.

Nothing heavy is imported with this module: a process that it starts sets its threads before it imports torch.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from productrec.console import Bars, Listener, Said, relay_to, say, show_bars, warn
from productrec.errors import Interrupted, ProcessLost, ProductrecError, RecipeError, describe_error
from productrec.pipeline.processes import begin_process, end_processes, name_end, start_process
from productrec.recipe import Recipe
from productrec.runtime import Share, StopRequest, catch_stop, choose_device, count_cores

if TYPE_CHECKING:
    from productrec.stages.train import Trained

_LOOK_SECONDS = 0.5  # between two looks at who has died and whether a stop is wanted


def choose_jobs(recipes: Sequence[Recipe], wanted: int | None = None) -> int:
    """How many of ``recipes`` train at once: ``wanted``, but no more than there are.

    None chooses: on a CPU as many as there are cores, since two small networks beside each other train faster than one
    after the other with twice the threads; one, where any computes on another device or torchrun has started this.

    Raises:
        RecipeError: several are wanted of a process that torchrun has started, or a device is not there.
    """
    from productrec.training.ranks.group import is_only_process

    jobs = min(len(recipes), count_cores() if wanted is None else wanted)
    if not is_only_process():
        if wanted is not None and jobs > 1:
            raise RecipeError(
                f"jobs: must be 1 where several processes train one model together; got {wanted}. Leave it out."
            )
        return 1
    if wanted is None and jobs > 1 and any(choose_device(recipe.device).type != "cpu" for recipe in recipes):
        return 1
    return jobs


def train_side_by_side(
    recipes: Sequence[Recipe],
    *,
    jobs: int = 1,
    resume: bool = False,
    max_minutes: float | None = None,
    allow_code: bool = False,
    on_ended: Callable[[Trained], None] = lambda trained: None,
) -> list[Trained]:
    """Train several models, at most ``jobs`` at once, each in a process of its own; a single job is this process.

    Each has the cores of this machine divided by ``jobs``, however many still train: so a model's threads, and with
    them the rounding of its weights, do not depend on how long the others take, nor on a resume. When one fails, the
    others are stopped as by a signal.

    Args:
        recipes: models, without members; what each says is printed after its name.
        jobs: trainings at once.
        resume: that of `run_train`, for all of them.
        max_minutes: of each.
        allow_code: that of `run_train`.
        on_ended: told of each model, in the order of ``recipes``, once it and those before it have ended.

    Returns:
        Outcomes, in the order of ``recipes``.

    Raises:
        Interrupted: stopped from outside; all that had begun resume.
        ProcessLost: a process was killed.
        ProductrecError: the first error of any training, see `run_train`.
    """
    from productrec.stages.train import find_finished, run_train

    options = {"resume": resume, "max_minutes": max_minutes, "allow_code": allow_code}
    if jobs == 1:
        trained = []
        for recipe in recipes:
            trained.append(run_train(recipe, resume=resume, max_minutes=max_minutes, allow_code=allow_code))
            on_ended(trained[-1])
        return trained
    # What is finished costs no process, and what a process would refuse at once is refused before any is started.
    ended = {n: done for n, recipe in enumerate(recipes) if (done := find_finished(recipe, resume=resume))}
    with catch_stop() as stop, show_bars() as bars:
        team = _Team(recipes, jobs, options, bars, ended, on_ended)
        try:
            team.work(stop)
        finally:
            team.close()
    return [ended[number] for number in range(len(recipes))]


@dataclass
class _Training:
    """One that runs: its place among the recipes, its seat among the jobs, its process and what came of it."""

    number: int
    seat: int
    name: str
    process: BaseProcess
    channel: Connection
    listener: Listener
    outcome: Trained | BaseException | None = None
    is_silent: bool = False

    def hear(self) -> None:
        """Show what it has said meanwhile, and keep what it came to."""
        try:
            while self.channel.poll():
                said = self.channel.recv()
                if isinstance(said, Said):
                    self.listener.show(said)
                else:
                    self.outcome = said
        except (EOFError, OSError):  # it has ended, or was killed in the middle of a word
            self.is_silent = True

    def explain_end(self) -> BaseException:
        """What to raise where it came to no model."""
        if isinstance(self.outcome, BaseException):
            return self.outcome
        return ProcessLost(
            f"training: the process that trained {self.name} was ended ({name_end(self.process.exitcode or 0)}); out "
            "of memory is a usual reason. --jobs 1 trains one model after the other; --resume goes on."
        )


class _Team:
    """The trainings that run, those that wait, and those that have ended."""

    def __init__(
        self,
        recipes: Sequence[Recipe],
        jobs: int,
        options: dict[str, Any],
        bars: Bars,
        ended: dict[int, Trained],
        on_ended: Callable[[Trained], None],
    ) -> None:
        self._recipes, self._jobs, self._options, self._bars = recipes, jobs, options, bars
        self._ended, self._on_ended, self._told = ended, on_ended, 0
        self._waiting = [number for number in range(len(recipes)) if number not in ended]
        self._running: list[_Training] = []
        self._stopped: list[str] = []
        self._failure: BaseException | None = None
        self._is_stopping = False

    def work(self, stop: StopRequest) -> None:
        """Train all, or until one fails or a stop is wanted; those that run are then waited for."""
        while self._running or (self._waiting and not self._is_stopping):
            self._tell_ended()
            while self._waiting and len(self._running) < self._jobs and not (stop.wanted or self._is_stopping):
                self._start(self._waiting.pop(0))
            waits = [one.process.sentinel if one.is_silent else one.channel for one in self._running]
            connection.wait(waits, timeout=_LOOK_SECONDS)
            for training in list(self._running):
                was_alive = training.process.is_alive()  # asked first: then all that it ever said is there
                training.hear()
                if not was_alive:
                    self._end(training)
            if (stop.wanted or self._failure is not None) and not self._is_stopping:
                self._is_stopping = True
                end_processes(one.process for one in self._running)
        self._tell_ended(all_of_them=True)
        if self._failure is not None:
            raise self._failure
        if stop.wanted and len(self._ended) < len(self._recipes):
            names = ", ".join(self._stopped) or "nothing"
            raise Interrupted(f"stopped while training {names}; what each has reached is saved.", stop.exit_code)

    def close(self) -> None:
        """End what still runs, after an error of this process or a second stop."""
        end_processes(training.process for training in self._running)
        for training in self._running:
            training.listener.close()
            training.channel.close()

    def _start(self, number: int) -> None:
        recipe = self._recipes[number]
        seat = min(set(range(self._jobs)) - {one.seat for one in self._running})
        channel, its_end = multiprocessing.Pipe(duplex=False)
        share = Share(seat, self._jobs)
        process = start_process(_train_apart, recipe, self._options, share, its_end, time.time())
        its_end.close()
        listener = Listener(recipe.name, self._bars)
        self._running.append(_Training(number, seat, recipe.name, process, channel, listener))

    def _end(self, training: _Training) -> None:
        self._running.remove(training)
        training.listener.close()
        training.channel.close()
        if training.outcome is not None and not isinstance(training.outcome, BaseException):
            self._ended[training.number] = training.outcome
            return
        error = training.explain_end()
        is_asked = self._is_stopping and training.process.exitcode == -signal.SIGTERM
        if self._is_stopping and (is_asked or isinstance(error, Interrupted)):
            self._stopped.append(training.name)
            say(f"{training.name}: {error if isinstance(error, Interrupted) else 'stopped'}")
        elif self._failure is None:
            self._failure = error
            others = ", ".join(one.name for one in self._running)
            warn(f"{training.name} failed" + (f"; stopping {others}, which can be resumed" if others else ""))
        else:
            warn(f"{training.name} failed as well: {describe_error(error)}")

    def _tell_ended(self, *, all_of_them: bool = False) -> None:
        while self._told < len(self._recipes) and (self._told in self._ended or all_of_them):
            if self._told in self._ended:
                self._on_ended(self._ended[self._told])
            self._told += 1


def _train_apart(recipe: Recipe, options: dict[str, Any], share: Share, channel: Connection, started: float) -> None:
    """What a process does that was started for one model: train, and send what it says and what it came to."""
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock, contextlib.suppress(OSError):  # the command is gone
            channel.send(message)

    begin_process(share)
    relay_to(send)
    try:
        from productrec.stages.train import run_train

        if options["max_minutes"] is not None:  # starting took some of it
            options["max_minutes"] -= (time.time() - started) / 60
        send(run_train(recipe, share=share, **options))
    except KeyboardInterrupt:  # a second stop
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        send(_make_portable(error, recipe.name))
        sys.exit(error.exit_code if isinstance(error, ProductrecError) else 1)


def _make_portable(error: Exception, name: str) -> Exception:
    """The error as another process can raise it, with a note of where it came from."""
    where = f"in the process that trained {name}:\n{''.join(traceback.format_exception(error))}"
    try:
        portable: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # an error of a library may take arguments that it does not keep
        portable = RuntimeError(f"{type(error).__name__}: {describe_error(error)}")
    portable.add_note(where)
    return portable
