"""The trials of a sweep, one after another, in one process: train, prune, keep the best, write down what is known."""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from productrec.artifacts import write_file, write_text
from productrec.console import get_console, say
from productrec.delimited import write_for_people
from productrec.errors import Interrupted, RecipeError, TrainingError, describe_error
from productrec.metrics.figures import VALIDATION_FIGURES
from productrec.recipe import Recipe, change_recipe, save_recipe
from productrec.runtime import ALONE, Share, StopRequest
from productrec.stages.train import run_train
from productrec.sweep.space import Space
from productrec.training.run.endings import Ending

if TYPE_CHECKING:
    from productrec.sweep.study import ActiveTrial, Study, TrialRow

ENDED = ("finished", "pruned", "failed")
_MOST_FAILED = 3  # trials that cannot be trained before one could


@dataclass(frozen=True)
class Job:
    """What every worker knows. ``deadline``: of `time.time`, the machine's; ``allow_code``: that of `run_train`."""

    recipe: Recipe
    space: Space
    folder: Path
    trials: int | None
    deadline: float | None
    workers: int
    allow_code: bool = False

    @property
    def figure(self) -> str:
        """What trials are compared by."""
        return self.recipe.train.keep_best_by

    def open_study(self) -> Study:
        """The trials; one a process."""
        from productrec.sweep.study import Study

        return Study(
            self.folder,
            self.space,
            lower_is_better=VALIDATION_FIGURES[self.figure].lower_is_better,
            seed=self.recipe.seed,
            epochs=self.recipe.train.epochs,
        )

    def build_trial(self, number: int, settings: dict[str, Any]) -> Recipe:
        """The recipe of a trial; its run lands in the sweep's folder."""
        own = {"name": self.get_run(number).name, "runs": self.folder, "data.table": self.recipe.table}
        return change_recipe(self.recipe, settings | own, f"trial {number}")

    def get_run(self, number: int) -> Path:
        """Run folder of a trial."""
        return self.folder / f"{self.recipe.name}-{number:03d}"


@dataclass(frozen=True)
class SweepResult:
    """A sweep: its folder, its trials by number, and the best of them, None where none is finished."""

    folder: Path
    rows: list[TrialRow]
    best: TrialRow | None


def run_trials(job: Job, study: Study, stop: StopRequest, share: Share = ALONE) -> None:
    """Run trials until there are enough of them, or no time is left; ``share`` is that of this worker.

    Raises:
        Interrupted: stopped from outside.
        RecipeError: nothing that was drawn suits the recipe.
        TrainingError: the first trials all failed.
    """
    while not stop.wanted and (job.deadline is None or time.time() < job.deadline):
        active = study.take(job.trials, job.build_trial)
        if active is None:
            return
        begins = "goes on" if active.goes_on else "begins"
        say(f"trial {active.number} {begins}: {describe_settings(active.settings)}")
        _run_trial(job, study, active, stop, share)
        result = settle(job, study)
        row = next(row for row in result.rows if row.number == active.number)
        shown = f"{job.figure} {row.value:.4f}" if row.value is not None else row.reason
        say(f"trial {row.number} {row.state}: {shown}" + (", the best so far" if row is result.best else ""))
        failed = [row for row in result.rows if row.state == "failed"]
        if len(failed) >= _MOST_FAILED and not any(row.state in ("finished", "pruned") for row in result.rows):
            raise TrainingError(f"sweep: the first {len(failed)} trials failed; the last: {failed[-1].reason}")
    if stop.wanted:
        raise Interrupted("stopped", exit_code=stop.exit_code)


def _run_trial(job: Job, study: Study, active: ActiveTrial, stop: StopRequest, share: Share) -> None:
    folder = job.get_run(active.number)
    if active.goes_on:
        for epoch, value in _read_figures(folder, job.figure):
            active.tell(epoch, value)
    elif folder.exists():
        shutil.rmtree(folder)

    def should_stop(epoch: int, figures: dict[str, float]) -> bool:
        if job.figure in figures:
            active.tell(epoch, figures[job.figure])
        if stop.wanted:
            raise Interrupted("stopped", exit_code=stop.exit_code)
        return job.figure in figures and epoch + 1 < active.recipe.train.epochs and active.prune()

    left = None if job.deadline is None else max(0.0, job.deadline - time.time()) / 60
    try:
        with _keep_quiet(job.workers > 1):
            trained = run_train(
                active.recipe,
                resume=True,
                max_minutes=left,
                allow_code=job.allow_code,
                should_stop=should_stop,
                share=share,
            )
    except (RecipeError, TrainingError) as error:
        study.give_up(active, reason=str(error))
    except BaseException as error:
        with contextlib.suppress(OSError):  # a full disk
            study.stop(active, reason=describe_error(error))
        raise
    else:
        if trained.ending is Ending.OUT_OF_TIME:
            study.stop(active, reason="no time was left")
        elif active.was_pruned and (trained.skipped or trained.ending is Ending.NO_BETTER):
            study.give_up(active)
        else:
            study.finish(active, trained.figures[job.figure])
    gc.collect()  # the next trial needs the device's memory
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if active.recipe.train.compile:
        torch.compiler.reset()


def _read_figures(folder: Path, figure: str) -> Iterator[tuple[int, float]]:
    """The epochs that an earlier process has validated after."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):  # a kill may have left half a line
            figures = json.loads(line)
            if figure in figures:
                yield figures["epoch"], figures[figure]


@contextlib.contextmanager
def _keep_quiet(wanted: bool) -> Iterator[None]:
    """Print nothing where several trainings would print over one another; each has its ``train.log``."""
    console = get_console()
    before, console.quiet = console.quiet, wanted
    try:
        yield
    finally:
        console.quiet = before


def settle(job: Job, study: Study) -> SweepResult:
    """Write the best recipe and the table of trials, and remove the weights of ended trials that are not the best."""
    with study.hold():
        rows = study.list_rows()
        finished = [row for row in rows if row.state == "finished"]
        best = min(finished, key=lambda row: rank_row(row, job.figure), default=None)
        if best is not None:
            changes = best.settings | {"name": f"{job.recipe.name}-best", "data.table": job.recipe.table}
            write_text(job.folder / "best.yaml", save_recipe(change_recipe(job.recipe, changes, "best")))
        with write_file(job.folder / "trials.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
            columns = ["trial", "state", job.figure, "epochs", "minutes", *job.space, "reason"]
            write_for_people(file, columns, [_build_row(row, job.space) for row in rows])
        for row in rows:
            if row.state in ENDED and row is not best:
                shutil.rmtree(job.get_run(row.number) / "checkpoints", ignore_errors=True)
        return SweepResult(job.folder, rows, best)


def _build_row(row: TrialRow, keys: Iterable[str]) -> list[Any]:
    known = [row.number, row.state, row.value, row.epochs, f"{row.minutes:.2f}"]
    return [*known, *(_write(row.settings[key]) for key in keys), row.reason]


def _write(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json.dumps(value)


def rank_row(row: TrialRow, figure: str) -> tuple[float, int]:
    """What finished trials are sorted by, the best first."""
    assert row.value is not None
    return -VALIDATION_FIGURES[figure].orient(row.value), row.number


def describe_settings(settings: dict[str, Any], between: str = ", ") -> str:
    """The settings of a trial as a person reads them: by the last part of a key, where that is enough."""
    last = [key.rpartition(".")[2] for key in settings]
    texts = []
    for key, short in zip(settings, last, strict=True):
        value = settings[key]
        shown = f"{value:.4g}" if isinstance(value, float) else _write(value)
        texts.append(f"{short if last.count(short) == 1 else key}={shown}")
    return between.join(texts)
