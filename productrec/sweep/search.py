"""Sweep: a conductor that trains a recipe with many settings, keeps the best, and gives up the hopeless ones early."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from productrec.artifacts import write_json
from productrec.assembly.training_data import leave_fold_out
from productrec.console import print_table, say, warn
from productrec.data.table import ImageTable, load_table
from productrec.errors import ArtifactError, DataError, Interrupted, ProductrecError, RecipeError, TrainingError
from productrec.losses.own_loss import check_code_allowed
from productrec.metrics.figures import VALIDATION_FIGURES
from productrec.pipeline.processes import begin_process, end_processes, name_end, start_process
from productrec.recipe import Recipe, select_settings
from productrec.recipe.loss import LossSettings
from productrec.runtime import Share, StopRequest, catch_stop
from productrec.sweep.space import Choices, Spec, load_space
from productrec.sweep.trials import ENDED, Job, SweepResult, describe_settings, rank_row, run_trials, settle

DEFAULT_TRIALS = 20
_SWEEP = "sweep.json"


def run_sweep(
    recipe: Recipe,
    space: Path,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    workers: int = 1,
    out: Path | None = None,
    allow_code: bool = False,
) -> SweepResult:
    """Search settings of one model; a sweep that stands in the folder goes on.

    Args:
        recipe: what is searched around.
        space: YAML file of `load_space`.
        trials: in all, those of earlier commands included; default `DEFAULT_TRIALS`, or no end where there are
            ``minutes``.
        minutes: stop after so long; a trial that is cut off goes on with the next command.
        workers: processes that train a trial each.
        out: folder; default NAME.sweep beside the recipe's run.
        allow_code: whether the recipe or the space may name a loss outside productrec, which runs that code.

    Raises:
        ArtifactError: the folder holds another sweep.
        DataError: there are no validation images to compare trials by.
        Interrupted: stopped from outside; the same command goes on.
        RecipeError: a key or a value of the space does not suit, or Optuna is not installed.
        TrainingError: the first trials cannot be trained, or a worker died.
    """
    started = time.time()
    if recipe.members:
        raise RecipeError("sweep: searches the settings of one model; the recipe has members. Add members={}.")
    if "val" in recipe.train.splits:
        raise RecipeError("sweep: compares trials on val, so train.splits must not hold it. Add train.splits=[train].")
    searched = load_space(space, recipe)
    for metric in [recipe.loss.metric, *_list_values(searched.get("loss.metric"))]:
        check_code_allowed(LossSettings(metric=metric).metric, allow_code=allow_code)
    _check_optuna()
    if trials is None and minutes is None:
        trials = DEFAULT_TRIALS
    folder = out or recipe.runs / f"{recipe.name}.sweep"
    job = Job(
        recipe, searched, folder, trials, None if minutes is None else started + 60 * minutes, workers, allow_code
    )
    _claim_folder(job)
    study = job.open_study()
    try:
        with catch_stop() as stop:
            if workers == 1:
                run_trials(job, study, stop)
            else:
                _run_workers(job, stop)
    except Interrupted as error:
        done = len([row for row in settle(job, study).rows if row.state in ENDED])
        raise Interrupted(
            f"sweep: stopped after {done} trials; the same command goes on.", exit_code=error.exit_code
        ) from None
    return settle(job, study)


def report(result: SweepResult, figure: str) -> None:
    """Print the trials, the best first, and where things lie."""
    ended = [row for row in result.rows if row.state == "finished"]
    order = sorted(ended, key=lambda row: rank_row(row, figure)) + [row for row in result.rows if row not in ended]
    lines = [
        (
            f"{row.number}",
            row.state,
            "" if row.value is None else f"{row.value:.4f}",
            f"{row.epochs}",
            f"{row.minutes:.1f}",
            describe_settings(row.settings, "\n"),
        )
        for row in order
    ]
    if lines:
        columns = ("trial", "state", figure, "epochs", "min", "settings")
        print_table(f"trials of {result.folder}", columns, lines, wrap_last=True)
    for row in result.rows:
        if row.state == "failed":
            warn(f"trial {row.number} failed: {row.reason}")
    if any(row.state == "stopped" for row in result.rows):
        say("Trials that were stopped go on with the same command.")
    say(f"trials: {result.folder / 'trials.csv'}")
    if result.best is not None:
        say(f"best recipe: {result.folder / 'best.yaml'} (trial {result.best.number})")


def _list_values(spec: Spec | None) -> tuple[Any, ...]:
    return spec.values if isinstance(spec, Choices) else ()


def _check_optuna() -> None:
    try:
        import productrec.sweep.study  # noqa: F401
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "productrec":
            raise
        raise RecipeError(
            f"sweep: needs the library Optuna; it cannot be imported ({error}). Run pip install 'productrec[sweep]'."
        ) from None


def _claim_folder(job: Job) -> None:
    """Note in the folder what is swept there, or see that it is the same."""
    table = load_table(job.recipe.table, root=job.recipe.data.images)
    _check_validation(job, table)
    wanted = {"table": table.fingerprint, "figure": job.figure} | select_settings(job.recipe, "run")
    wanted["space"] = {key: asdict(spec) for key, spec in job.space.items()}
    wanted = json.loads(json.dumps(wanted, default=str))
    path = job.folder / _SWEEP
    if not path.exists():
        # Hidden files are those of another command that begins at this moment.
        if job.folder.is_file() or any(not path.name.startswith(".") for path in job.folder.glob("*")):
            raise ArtifactError(f"{job.folder}: holds files that are no sweep. Choose another folder with --out.")
        write_json(path, wanted)
        return
    noted = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key in wanted if key in noted and noted[key] != wanted[key]]
    if changed:
        raise ArtifactError(
            f"{job.folder}: already holds another sweep; what differs: {', '.join(changed[:5])}. "
            "Choose another folder with --out, or remove this one."
        )


def _check_validation(job: Job, table: ImageTable) -> None:
    """Refuse validation images that the figure cannot be measured on, before any trial is trained."""
    known = table.select(["val"])["label"].dropna()
    if not len(known):
        raise DataError(
            f"{job.recipe.table}: must hold validation images with labels, by which trials are compared; got none. "
            "Ingest with data.validation_fraction."
        )
    rows = table.select(job.recipe.train.splits)
    trained = leave_fold_out(rows, job.recipe.train.fold, job.recipe.table)["label"].dropna()
    if VALIDATION_FIGURES[job.figure].judges == "head" and set(known).isdisjoint(trained):
        raise DataError(
            f"{job.recipe.table}: at least one validation image must be of a class to train on for trials to be "
            f"compared by {job.figure}, which judges the head; none is. Set train.keep_best_by=recall@1."
        )


def _run_workers(job: Job, stop: StopRequest) -> None:
    """Start the workers and wait for them; a stop is handed on, once."""
    processes: list[BaseProcess] = []
    is_stopping = False
    try:
        for number in range(job.workers):
            processes.append(start_process(_start_worker, job, Share(number, job.workers)))
        while alive := [process for process in processes if process.is_alive()]:
            connection.wait([process.sentinel for process in alive], timeout=0.5)
            if stop.wanted and not is_stopping:
                is_stopping = True
                end_processes(alive)
    finally:
        end_processes(processes)
    if stop.wanted:
        raise Interrupted("stopped", exit_code=stop.exit_code)
    codes = [process.exitcode for process in processes if process.exitcode]
    if codes:
        how = ", ".join(map(name_end, codes))
        raise TrainingError(
            f"sweep: {len(codes)} of {job.workers} workers ended early ({how}); their own messages say why. "
            "The same command goes on."
        )


def _start_worker(job: Job, share: Share) -> None:
    """What a process does that the command has started."""
    begin_process(share)
    try:
        with catch_stop() as stop:
            run_trials(job, job.open_study(), stop, share)
    except Interrupted as error:
        sys.exit(error.exit_code)
    except ProductrecError as error:
        print(f"error: worker {share.number + 1}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
