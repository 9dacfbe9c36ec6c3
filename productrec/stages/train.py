"""Train: an image table and a recipe become a run folder with checkpoints, resumable at any batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from productrec.assembly.precision import is_timed, keep_precision
from productrec.assembly.resources import join_training
from productrec.assembly.resume import get_decisive_settings
from productrec.assembly.session import build_session
from productrec.assembly.training_data import load_allowed_table
from productrec.console import say
from productrec.errors import ProductrecError, TrainingError
from productrec.losses.declared import MetricLoss
from productrec.losses.own_loss import check_code_allowed, explain_own_error
from productrec.plots.figure import save
from productrec.plots.training import draw_training_curves
from productrec.recipe import Recipe, save_recipe
from productrec.runtime import ALONE, Share, StopRequest, catch_stop
from productrec.training.ranks.group import Ranks, is_first_process, leave_ranks, refuse_once
from productrec.training.ranks.resources import Resources
from productrec.training.run.checkpoint import load_checkpoint
from productrec.training.run.endings import Ending, explain_death
from productrec.training.run.loop import run_training
from productrec.training.run.run_checkpoints import BEST
from productrec.training.run.run_folder import (
    check_run_folder,
    claim_run_folder,
    finish_run,
    load_epochs,
    load_figures,
    start_run,
)
from productrec.training.run.session import Session


@dataclass(frozen=True)
class Trained:
    """A run: its folder, the figures of its best checkpoint, and whether there was nothing to do.

    ``ending`` says why it ended; one that ran out of time has a best checkpoint too, and resumes. ``warning`` tells of
    a loss that went up.
    """

    folder: Path
    figures: dict[str, float]
    minutes: float
    skipped: bool
    ending: Ending = Ending.FINISHED
    warning: str = ""


def run_train(
    recipe: Recipe,
    *,
    resume: bool = False,
    max_minutes: float | None = None,
    allow_code: bool = False,
    should_stop: Callable[[int, dict[str, float]], bool] = lambda epoch, figures: False,
    share: Share = ALONE,
) -> Trained:
    """Train one model (a recipe without members), alone or as one of the ranks that torchrun started.

    Args:
        recipe: every setting.
        resume: go on with what the run folder holds; without it a started run is refused.
        max_minutes: stop in time, with a usable model, so that all of this takes no longer; None for no limit.
        allow_code: whether the recipe's loss may be imported from outside productrec, which runs that code.
        should_stop: asked after every epoch, with its figures; where it says so the run ends there and is finished.
        share: of this machine, where other trainings run beside this one.

    Raises:
        ArtifactError: the run folder holds another run, one that was stopped and ``resume`` is false, or one that
            another process trains at this moment.
        DataError: nothing to train on, or the rules forbid a split.
        Interrupted: stopped from outside; the run resumes.
        RecipeError: the loss's code is not allowed.
        TrainingError: the model cannot be built, or the loss is no longer finite.
    """
    started = time.monotonic()
    deadline = None if max_minutes is None else started + 60 * max_minutes
    folder = recipe.run_folder
    with refuse_once():
        check_code_allowed(recipe.loss.metric, allow_code=allow_code)
    with claim_run_folder(folder) if is_first_process() else contextlib.nullcontext():
        with refuse_once():
            table = load_allowed_table(recipe)
            decisive = get_decisive_settings(recipe) | {"table": table.fingerprint}
            if (finished := _find_finished(recipe, decisive, resume=resume)) is not None:
                return finished
            resources = join_training(recipe, share)
            session = build_session(
                recipe,
                table,
                resources,
                resume=resume,
                allow_code=allow_code,
                deadline=deadline,
                should_stop=should_stop,
            )
        if resources.ranks.is_first:
            start_run(folder, decisive, save_recipe(recipe))
            if is_timed(recipe, resources.device):
                keep_precision(folder, "train", resources.dtype)
            say(_describe_start(recipe, session, resources))
        ending, soup = _run_session(session, recipe.loss.metric)
        figures = load_checkpoint(folder / "checkpoints" / BEST).figures if resources.ranks.is_first else {}
        minutes = (time.monotonic() - started) / 60
        if resources.ranks.is_first:
            save(draw_training_curves(load_epochs(folder)), folder / "curves.png")
        if resources.ranks.is_first and ending is not Ending.OUT_OF_TIME:
            finish_run(folder, decisive, figures, soup)
        return Trained(folder, figures, minutes, skipped=False, ending=ending, warning=session.reporter.warning)


def find_finished(recipe: Recipe, *, resume: bool = False) -> Trained | None:
    """The finished run of a recipe without members; None where there is something left to train.

    Args:
        recipe: every setting.
        resume: whether a run that was stopped may go on.

    Raises:
        ArtifactError: see `run_train`, which would not begin either.
        DataError: the table is not there, or the rules forbid a split.
    """
    with claim_run_folder(recipe.run_folder):
        decisive = get_decisive_settings(recipe) | {"table": load_allowed_table(recipe).fingerprint}
        return _find_finished(recipe, decisive, resume=resume)


def _find_finished(recipe: Recipe, decisive: dict[str, Any], *, resume: bool) -> Trained | None:
    folder = recipe.run_folder
    defaults = get_decisive_settings(Recipe(name=recipe.name))
    if not check_run_folder(folder, decisive, resume=resume, defaults=defaults):
        return None
    return Trained(folder, load_figures(folder), 0.0, skipped=True)


def _describe_start(recipe: Recipe, session: Session, resources: Resources) -> str:
    count = resources.ranks.size
    return (
        f"training {recipe.name}: {recipe.model.backbone} on {len(session.image_ids):,} images of "
        f"{len(session.checkpoints.class_ids):,} classes, "
        f"{recipe.train.epochs} epochs of {len(session.batches)} steps, "
        f"{resources.device} {str(resources.dtype).removeprefix('torch.')}, {resources.workers} workers"
        f"{f', {count} processes' if count > 1 else ''}"
    )


def _run_session(session: Session, metric: MetricLoss | None) -> tuple[Ending, dict[str, float] | None]:
    """Train to an end; why it is one, and the figures of the averaged weights where these were tried."""
    trainer, soup = session.trainer, None
    with session.reporter.open(trainer.progress), catch_stop() as stop:
        try:
            ending = run_training(session, stop)
            if ending is not Ending.OUT_OF_TIME:
                soup = session.try_soup()
        except Exception as error:
            raise _explain(error, metric, stop, trainer.ranks) from error
        finally:
            leave_ranks()
    return ending, soup


def _explain(error: Exception, metric: MetricLoss | None, stop: StopRequest, ranks: Ranks) -> Exception:
    """What to raise for an error of `run_training`: another process's death, and a user's own loss, are told."""
    if isinstance(error, ProductrecError):
        return error
    explained = explain_death(error, stop, ranks) if isinstance(error, RuntimeError) else error
    if explained is error and (own := explain_own_error(metric, error)):  # a death is raised in whatever line runs
        return TrainingError(f"training: {own}")
    return explained
