"""The trials of a sweep, one after another, in one process: train, prune, keep the best, write down what is known."""

from __future__ import annotations

import contextlib
import csv
import gc
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from productrec.artifacts import write_file, write_text
from productrec.console import get_console, say
from productrec.errors import DataError, Interrupted, RecipeError, TrainingError
from productrec.recipe import Recipe, change_recipe, save_recipe
from productrec.runtime import StopRequest
from productrec.stages.train import run_train
from productrec.sweep.space import Space
from productrec.training.run.endings import Ending

if TYPE_CHECKING:
    from productrec.sweep.study import Row, Study, Taken

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

    @property
    def lower_is_better(self) -> bool:
        """Whether a trial with less of it is the better one."""
        return self.figure.endswith("error")

    def open_study(self) -> Study:
        """The trials; one a process."""
        from productrec.sweep.study import Study

        epochs = self.recipe.train.epochs
        return Study(
            self.folder, self.space, lower_is_better=self.lower_is_better, seed=self.recipe.seed, epochs=epochs
        )

    def build_trial(self, place: int, settings: dict[str, Any]) -> Recipe:
        """The recipe of a trial; its run lands in the sweep's folder."""
        own = {"name": f"{self.recipe.name}-{place:03d}", "runs": self.folder, "data.table": self.recipe.table}
        return change_recipe(self.recipe, settings | own, f"trial {place}")

    def get_run(self, place: int) -> Path:
        """Run folder of a trial."""
        return self.folder / f"{self.recipe.name}-{place:03d}"


@dataclass(frozen=True)
class Swept:
    """A sweep: its folder, its trials by place, and the best one's, None where none is finished."""

    folder: Path
    rows: list[Row]
    best: Row | None


def run_trials(job: Job, study: Study, stop: StopRequest) -> None:
    """Run trials until there are enough of them, or no time is left.

    Raises:
        Interrupted: stopped from outside.
        RecipeError: nothing that was drawn suits the recipe.
        TrainingError: the first trials all failed.
    """
    while not stop.wanted and (job.deadline is None or time.time() < job.deadline):
        taken = study.take(job.trials, job.build_trial)
        if taken is None:
            return
        begins = "goes on" if taken.goes_on else "begins"
        say(f"trial {taken.place} {begins}: {describe_settings(taken.settings)}")
        _run_trial(job, study, taken, stop)
        swept = settle(job, study)
        row = next(row for row in swept.rows if row.place == taken.place)
        shown = f"{job.figure} {row.value:.4f}" if row.value is not None else row.reason
        say(f"trial {row.place} {row.state}: {shown}" + (", the best so far" if row is swept.best else ""))
        failed = [one for one in swept.rows if one.state == "failed"]
        if len(failed) >= _MOST_FAILED and not any(one.state in ("finished", "pruned") for one in swept.rows):
            raise TrainingError(f"sweep: the first {len(failed)} trials failed; the last: {failed[-1].reason}")
    if stop.wanted:
        raise Interrupted("stopped", exit_code=stop.exit_code)


def _run_trial(job: Job, study: Study, taken: Taken, stop: StopRequest) -> None:
    folder = job.get_run(taken.place)
    if taken.goes_on:
        for epoch, value in _read_figures(folder, job.figure):
            taken.tell(epoch, value)
    elif folder.exists():
        shutil.rmtree(folder)

    def should_stop(epoch: int, figures: dict[str, float]) -> bool:
        if job.figure in figures:
            taken.tell(epoch, figures[job.figure])
        if stop.wanted:
            raise Interrupted("stopped", exit_code=stop.exit_code)
        return job.figure in figures and epoch + 1 < taken.recipe.train.epochs and taken.prune()

    left = None if job.deadline is None else max(0.0, job.deadline - time.time()) / 60
    try:
        with _hush(job.workers > 1):
            trained = run_train(
                taken.recipe, resume=True, max_minutes=left, allow_code=job.allow_code, should_stop=should_stop
            )
    except (RecipeError, TrainingError) as error:
        study.give_up(taken, reason=str(error))
    except BaseException as error:
        with contextlib.suppress(OSError):  # a full disk
            study.stop(taken, reason=str(error) or type(error).__name__)
        raise
    else:
        if trained.ending is Ending.OUT_OF_TIME:
            study.stop(taken, reason="no time was left")
        elif taken.was_pruned and (trained.skipped or trained.ending is Ending.NO_BETTER):
            study.give_up(taken)
        elif job.figure not in trained.figures:
            raise DataError(
                f"{job.recipe.name}: trials must be compared by a figure that validation gives; {job.figure} is none, "
                "as no validation image is of a class to train on. Set train.keep_best_by=recall@1."
            )
        else:
            study.finish(taken, trained.figures[job.figure])
    gc.collect()  # the next trial needs the device's memory
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if taken.recipe.train.compile:
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
def _hush(wanted: bool) -> Iterator[None]:
    """Print nothing where several trainings would print over one another; each has its ``train.log``."""
    console = get_console()
    before, console.quiet = console.quiet, wanted
    try:
        yield
    finally:
        console.quiet = before


def settle(job: Job, study: Study) -> Swept:
    """Write the best recipe and the table of trials, and remove the weights of ended trials that are not the best."""
    with study.hold():
        rows = study.list_rows()
        finished = [row for row in rows if row.state == "finished"]
        best = min(finished, key=lambda row: rank_row(row, job.figure), default=None)
        if best is not None:
            changes = best.settings | {"name": f"{job.recipe.name}-best", "data.table": job.recipe.table}
            write_text(job.folder / "best.yaml", save_recipe(change_recipe(job.recipe, changes, "best")))
        with write_file(job.folder / "trials.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["trial", "state", job.figure, "epochs", "minutes", *job.space, "reason"])
            for row in rows:
                settings = [_write(row.settings[key]) for key in job.space]
                known = [row.place, row.state, row.value, row.epochs, f"{row.minutes:.2f}"]
                writer.writerow([*known, *settings, row.reason])
        for row in rows:
            if row.state in ENDED and row is not best:
                shutil.rmtree(job.get_run(row.place) / "checkpoints", ignore_errors=True)
        return Swept(job.folder, rows, best)


def _write(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json.dumps(value)


def rank_row(row: Row, figure: str) -> tuple[float, int]:
    """What finished trials are sorted by, the best first."""
    assert row.value is not None
    return (row.value if figure.endswith("error") else -row.value), row.place


def describe_settings(settings: dict[str, Any], between: str = ", ") -> str:
    """The settings of a trial as a person reads them: by the last part of a key, where that is enough."""
    last = [key.rpartition(".")[2] for key in settings]
    texts = []
    for key, short in zip(settings, last, strict=True):
        value = settings[key]
        shown = f"{value:.4g}" if isinstance(value, float) else _write(value)
        texts.append(f"{short if last.count(short) == 1 else key}={shown}")
    return between.join(texts)
