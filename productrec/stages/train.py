"""Train: an image table and a recipe become a run folder with checkpoints, resumable at any batch."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from productrec.assembly.resume import BEFORE, LAST, get_decisive_settings, get_state, resume_training
from productrec.assembly.trainer import build_trainer
from productrec.assembly.training_data import (
    Place,
    add_pseudo_labels,
    build_augmentations,
    build_merging,
    build_mining,
    build_sampler,
    build_validation,
    choose_figure,
    leave_fold_out,
    warn_of_uneven_classes,
)
from productrec.competitions.contract import check_pseudo_labels, check_training_splits, load_contract
from productrec.console import say, show_progress, silence, warn
from productrec.data.class_keys import get_class_keys
from productrec.data.dataset import TrainingImages, build_training_loader, choose_workers
from productrec.data.images import open_images
from productrec.data.table import load_table
from productrec.errors import DataError, ProductrecError, TrainingError
from productrec.losses.declared import MetricLoss
from productrec.losses.own_loss import check_code_allowed, explain_own_error
from productrec.plots import draw_training_curves
from productrec.recipe import Recipe, save_recipe
from productrec.runtime import (
    StopRequest,
    catch_stop,
    choose_device,
    choose_dtype,
    count_cores,
    keep_freed_memory,
    measure_memory,
    set_seed,
    take_own_device,
)
from productrec.training.ranks.group import Ranks, is_first_process, join_ranks, leave_ranks, refuse_once
from productrec.training.run.checkpoint import load_checkpoint, save_checkpoint
from productrec.training.run.display import StepDisplay
from productrec.training.run.loop import Ending, Plan, describe_images, describe_rise, explain_death, run_training
from productrec.training.run.run_folder import (
    RunLog,
    check_run_folder,
    claim_run_folder,
    finish_run,
    load_epochs,
    load_figures,
    start_run,
)
from productrec.training.run.soup import average_weights, drop_older, get_recent_folder, list_recent
from productrec.training.run.tracking import start_trackers
from productrec.training.step.fitting import explain_large_network
from productrec.training.step.memory_estimate import check_step_fits
from productrec.training.step.trainer import Trainer
from productrec.training.tricks.freezing import set_backbone_frozen, set_norms_frozen


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
) -> Trained:
    """Train one model (a recipe without members), alone or as one of the ranks that torchrun started.

    Args:
        recipe: every setting.
        resume: go on with what the run folder holds; without it a started run is refused.
        max_minutes: stop in time, with a usable model, so that all of this takes no longer; None for no limit.
        allow_code: whether the recipe's loss may be imported from outside productrec, which runs that code.
        should_stop: asked after every epoch, with its figures; where it says so the run ends there and is finished.

    Raises:
        ArtifactError: the run folder holds another run, one that was stopped and ``resume`` is false, or one that
            another process trains at this moment.
        DataError: nothing to train on, or the rules forbid a split.
        Interrupted: stopped from outside; the run resumes.
        RecipeError: the loss's code is not allowed.
        TrainingError: the model cannot be built, or the loss is no longer finite.
    """
    started = time.monotonic()
    with refuse_once():
        check_code_allowed(recipe.loss.metric, allow_code=allow_code)
    with claim_run_folder(recipe.run_folder) if is_first_process() else contextlib.nullcontext():
        return _train(recipe, started, resume, max_minutes, allow_code, should_stop)


def _train(
    recipe: Recipe,
    started: float,
    resume: bool,
    max_minutes: float | None,
    allow_code: bool,
    should_stop: Callable[[int, dict[str, float]], bool],
) -> Trained:
    folder = recipe.run_folder
    with refuse_once():
        table = load_table(recipe.table, root=recipe.data.images)
        contract = load_contract(recipe.competition)
        check_training_splits(contract, recipe.train.splits, forced=recipe.train.force_splits)
        if recipe.train.pseudo_labels is not None:
            check_pseudo_labels(contract, forced=recipe.train.force_splits)
        decisive = get_decisive_settings(recipe) | {"table": table.fingerprint}
        defaults = get_decisive_settings(Recipe(name=recipe.name))
        if check_run_folder(folder, decisive, resume=resume, defaults=defaults):
            return Trained(folder, load_figures(folder), 0.0, skipped=True)

        device = take_own_device(choose_device(recipe.device))
        ranks = join_ranks(device, timeout_minutes=recipe.train.timeout_minutes)
        if not ranks.is_first:
            silence()
        dtype = choose_dtype(recipe.train.precision, device)
        keep_freed_memory(device)
        set_seed(recipe.seed)
        rows = table.select(recipe.train.splits)
        rows = leave_fold_out(rows[rows["label"].notna()], recipe.train.fold, recipe.table)
        if len(rows) < 2:
            raise DataError(
                f"{recipe.table}: splits {recipe.train.splits} must hold at least 2 readable images with a label; "
                f"got {len(rows)}."
            )
        rows = add_pseudo_labels(rows, table, recipe)
        class_ids = sorted(int(label) for label in rows["label"].unique())
        positions = {class_id: position for position, class_id in enumerate(class_ids)}
        labels = np.array([positions[int(label)] for label in rows["label"]], dtype=np.int64)
        sampler = build_sampler(recipe, table, rows, labels, class_ids, ranks)
        warn_of_uneven_classes(labels, class_ids, sampler, pk=recipe.uses_pk_sampler)

        place = Place(
            device,
            dtype,
            choose_workers(
                recipe.train.workers, cores=max(1, count_cores() // ranks.local_size), on_gpu=device.type == "cuda"
            ),
            ranks,
        )
        loader = build_training_loader(
            TrainingImages(open_images(table, rows), labels, build_augmentations(recipe), recipe.seed),
            sampler,
            workers=place.workers,
            pin_memory=device.type == "cuda",
            local_size=ranks.local_size,
        )
        sizes = np.bincount(labels, minlength=len(class_ids)).tolist()
        try:
            trainer = build_trainer(
                recipe, sizes, len(sampler), device=device, dtype=dtype, ranks=ranks, allow_code=allow_code
            )
        except RuntimeError as error:
            raise explain_large_network(error) from error
        multiple_of = recipe.train.images_per_class if recipe.uses_pk_sampler else 2
        check_step_fits(
            trainer,
            batch_size=recipe.train.batch_size,
            side_px=recipe.train.side_px,
            multiple_of=multiple_of,
            dtype=dtype,
            is_frozen=recipe.train.freeze_epochs >= recipe.train.epochs,
        )
        if ranks.size > 1:
            torch.manual_seed(recipe.seed + ranks.rank)  # weights are equal; what each drops is its own
        if resume:
            resume_training(trainer, sampler, folder, class_ids)
        mine = build_mining(table, recipe, rows, labels, place)
        merge = build_merging(table, recipe, class_ids, trainer.objective.metric, place)
        measure = build_validation(table, recipe, class_ids, place)
        figure = choose_figure(table, recipe, class_ids)

    if ranks.is_first:
        start_run(folder, decisive, save_recipe(recipe))
        say(
            f"training {recipe.name}: {recipe.model.backbone} on {len(rows):,} images of {len(class_ids):,} classes, "
            f"{recipe.train.epochs} epochs of {len(sampler)} steps, {device} "
            f"{str(dtype).removeprefix('torch.')}, {place.workers} workers"
            f"{f', {ranks.size} processes' if ranks.size > 1 else ''}"
        )

    checkpoints = folder / "checkpoints"
    log = RunLog(folder, trainer.progress.epoch) if ranks.is_first else None

    def validate() -> dict[str, float]:
        assert measure is not None
        try:
            figures = measure(trainer.evaluated, stop)
            if trainer.average is not None and recipe.train.validate_raw:
                figures |= {f"raw_{name}": value for name, value in measure(trainer.raw, stop).items()}
        except DataError as error:
            if "must be finite" not in str(error):
                raise
            raise TrainingError(
                "training: what the network says of validation images must be finite; it no longer is. Train anew with "
                "a lower train.learning_rate or a longer train.warmup_epochs, under another name (name=...)."
            ) from error
        return figures

    def save(name: str, figures: dict[str, float], network: nn.Module | None = None) -> None:
        state = get_state(trainer, sampler) if name == LAST else None  # all ranks put it together
        network = network or trainer.evaluated
        if ranks.is_first:
            save_checkpoint(
                checkpoints / name,
                network,
                class_ids=class_ids,
                class_keys=get_class_keys(table, class_ids),
                class_names=table.get_class_names(class_ids),
                recipe=recipe.dump(),
                table_fingerprint=table.fingerprint,
                figures=figures,
                state=state,
                centres=trainer.objective.get_centres(),
                keep_earlier=checkpoints / BEFORE if name == LAST else None,
            )

    trackers = start_trackers(
        recipe.train.track if ranks.is_first else (),
        folder,
        name=recipe.name,
        settings=recipe.dump(),
        first_step=trainer.progress.step,
    )

    warning = ""

    def finish_epoch(epoch: int, figures: dict[str, float]) -> None:
        nonlocal warning
        if log is not None:
            log.write(epoch, figures)
        was_told, warning = bool(warning), describe_rise(trainer.progress, figures)
        if warning and not was_told:
            warn(f"epoch {epoch + 1}: {warning}")
        trackers.write(trainer.progress.step, figures, kind="epoch")
        if recipe.train.soup:
            save(get_recent_folder(checkpoints, epoch).name, figures)
            if ranks.is_first:
                drop_older(checkpoints, recipe.train.soup)

    def freeze(epoch: int) -> None:
        is_frozen = epoch < recipe.train.freeze_epochs
        set_backbone_frozen(trainer.recognizer, is_frozen)
        set_norms_frozen(trainer.recognizer, is_frozen or recipe.train.freeze_norms)

    ids = rows["image_id"].tolist()
    total = recipe.train.epochs * len(sampler)
    with trackers, catch_stop() as stop, show_progress("training", total, "steps") as bar:
        bar.advance(trainer.progress.step)
        display = StepDisplay(bar, recipe.train.epochs, ranks.size, partial(measure_memory, device))

        def show_step(epoch: int, images: int, figures: dict[str, float]) -> None:
            display(epoch, images, figures)
            trackers.write(trainer.progress.step, figures, kind="step")

        try:
            ending = run_training(
                trainer,
                loader,
                sampler,
                Plan(
                    epochs=recipe.train.epochs,
                    keep_best_by=figure,
                    validate_every=recipe.train.validate_every,
                    mine_every=recipe.train.mine_every,
                    merge_every=getattr(recipe.loss.metric, "merge_every_epochs", 0),
                    patience=recipe.train.patience,
                    deadline=None if max_minutes is None else started + 60 * max_minutes,
                    batch_multiple=multiple_of,
                ),
                validate=None if measure is None else validate,
                save=save,
                on_step=show_step,
                on_epoch=finish_epoch,
                on_epoch_start=freeze,
                stop=stop,
                mine=mine,
                merge=merge,
                describe_rows=lambda chosen: describe_images(ids, chosen, folder / "not_finite.txt"),
                should_stop=should_stop,
            )
            soup = None
            if recipe.train.soup and measure is not None and ending is not Ending.OUT_OF_TIME:
                soup = _cook(trainer, measure, save, checkpoints, recipe.train.soup, figure)
        except Exception as error:
            raise _explain(error, recipe.loss.metric, stop, ranks) from error
        finally:
            leave_ranks()
    figures = load_checkpoint(folder / "checkpoints" / "best").figures if ranks.is_first else {}
    minutes = (time.monotonic() - started) / 60
    if ranks.is_first:
        draw_training_curves(folder / "curves.png", load_epochs(folder))
    if ranks.is_first and ending is not Ending.OUT_OF_TIME:
        finish_run(folder, decisive, figures, soup)
    return Trained(folder, figures, minutes, skipped=False, ending=ending, warning=warning)


def _explain(error: Exception, metric: MetricLoss | None, stop: StopRequest, ranks: Ranks) -> Exception:
    """What to raise for an error of `run_training`: another process's death, and a user's own loss, are told."""
    if isinstance(error, ProductrecError):
        return error
    told = explain_death(error, stop, ranks) if isinstance(error, RuntimeError) else error
    if told is error and (own := explain_own_error(metric, error)):  # a death is raised in whatever line runs
        return TrainingError(f"training: {own}")
    return told


def _cook(
    trainer: Trainer,
    measure: Callable[[nn.Module, None], dict[str, float]],
    save: Callable[[str, dict[str, float], nn.Module], None],
    checkpoints: Path,
    epochs: int,
    name: str,
) -> dict[str, float] | None:
    """Average the weights of the newest epochs; what validates better than the best checkpoint becomes it.

    Returns:
        Its figures, kept or not; None where no epoch was validated.
    """
    if trainer.progress.best is None:
        return None
    recent = list_recent(checkpoints, epochs)
    averaged = trainer.ranks.gather_objects(average_weights(recent) if trainer.ranks.is_first else None)[0]
    network = copy.deepcopy(trainer.evaluated)
    network.load_state_dict(averaged)
    figures = measure(network, None)
    sign = -1.0 if name.endswith("error") else 1.0
    is_better = sign * figures[name] > sign * trainer.progress.best
    if is_better:
        save("best", figures, network)
    if trainer.ranks.is_first:
        say(
            f"average of {len(recent)} epochs: {name} {figures[name]:.4f}, best epoch {trainer.progress.best:.4f}; "
            f"{'kept' if is_better else 'not kept'}"
        )
    return figures
