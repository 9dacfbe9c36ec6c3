"""Train: an image table and a recipe become a run folder with checkpoints, resumable at any batch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from productrec.artifacts import compute_digest
from productrec.competitions.contract import check_training_splits, load_contract
from productrec.console import Bar, say, show_progress, warn
from productrec.data.dataset import (
    TrainingImages,
    ViewedImages,
    build_training_loader,
    build_view_loader,
    choose_workers,
)
from productrec.data.images import open_images
from productrec.data.samplers import EpochSampler
from productrec.data.table import ImageTable, load_table
from productrec.data.transforms import build_augmentation
from productrec.data.views import get_views
from productrec.errors import ArtifactError, DataError, describe_offenders
from productrec.losses.catalogue import build_metric_loss
from productrec.models.recognizer import Recognizer, build_recognizer
from productrec.recipe import Recipe, save_recipe
from productrec.retrieval.hard_mining import find_near_classes
from productrec.runtime import catch_stop, choose_device, choose_dtype, count_cores, keep_freed_memory, set_seed
from productrec.training.checkpoint import load_checkpoint, save_checkpoint
from productrec.training.loop import Trainer, explain_loader_death, run_training
from productrec.training.objective import JointLoss
from productrec.training.optimiser import build_optimizer
from productrec.training.run_folder import RunLog, check_run_folder, finish_run, load_figures, start_run
from productrec.training.validation import recognise_images, validate_network

# Settings that may differ between a run and its resumption: they change where and how fast, not what is computed.
_FREE_ON_RESUME = (("device",), ("runs",), ("train", "workers"), ("predict",), ("submit",), ("data",), ("competition",))

_NEAR_CLASSES = "near_classes"  # in the state of a checkpoint


@dataclass(frozen=True)
class Trained:
    """A finished run: its folder, the figures of its best checkpoint, and whether there was nothing to do."""

    folder: Path
    figures: dict[str, float]
    minutes: float
    skipped: bool


def run_train(recipe: Recipe, *, resume: bool = False) -> Trained:
    """Train one model (a recipe without members).

    Args:
        recipe: every setting.
        resume: go on with what the run folder holds; without it a started run is refused.

    Raises:
        ArtifactError: the run folder holds another run, or one that was stopped and ``resume`` is false.
        DataError: nothing to train on, or the rules forbid a split.
        Interrupted: stopped from outside; the run resumes.
        TrainingError: the model cannot be built, or the loss is no longer finite.
    """
    started = time.monotonic()
    folder = recipe.run_folder
    table = load_table(recipe.table, root=recipe.data.images)
    contract = load_contract(recipe.competition)
    check_training_splits(contract, recipe.train.splits, forced=recipe.train.force_splits)
    decisive = _get_decisive(recipe) | {"table": table.fingerprint}
    if check_run_folder(folder, decisive, resume=resume):
        return Trained(folder, load_figures(folder), 0.0, skipped=True)

    device = choose_device(recipe.device)
    dtype = choose_dtype(recipe.train.precision, device)
    keep_freed_memory(device)
    set_seed(recipe.seed)
    rows = table.select(recipe.train.splits)
    rows = _leave_out(rows[rows["label"].notna()], recipe.train.fold, recipe.table)
    if len(rows) < 2:
        raise DataError(
            f"{recipe.table}: splits {recipe.train.splits} must hold at least 2 readable images with a label; "
            f"got {len(rows)}."
        )
    class_ids = sorted(int(label) for label in rows["label"].unique())
    positions = {class_id: position for position, class_id in enumerate(class_ids)}
    labels = np.array([positions[int(label)] for label in rows["label"]], dtype=np.int64)
    _warn_of_single_images(labels, class_ids, pk=recipe.uses_pk_sampler)

    sampler = EpochSampler(
        labels,
        batch_size=recipe.train.batch_size,
        images_per_class=recipe.train.images_per_class if recipe.uses_pk_sampler else None,
        seed=recipe.seed,
        hard_share=recipe.train.hard_classes,
        weights=rows["weight"].fillna(1.0).to_numpy(dtype=np.float64),
    )
    augmentation = build_augmentation(recipe.train.augmentation, recipe.train.side_px)
    workers = choose_workers(recipe.train.workers, cores=count_cores(), on_gpu=device.type == "cuda")
    loader = build_training_loader(
        TrainingImages(open_images(table, rows), labels, augmentation, recipe.seed),
        sampler,
        workers=workers,
        pin_memory=device.type == "cuda",
    )
    sizes = np.bincount(labels, minlength=len(class_ids)).tolist()
    trainer = build_trainer(recipe, sizes, len(sampler), device=device, dtype=dtype)
    if resume and (folder / "checkpoints" / "last").exists():
        _resume(trainer, sampler, folder, class_ids)
    mine = _build_mining(table, recipe, rows, labels, device=device, dtype=dtype, workers=workers)
    validate = _build_validation(table, recipe, class_ids, device=device, dtype=dtype, workers=workers)

    start_run(folder, decisive, save_recipe(recipe))
    say(
        f"training {recipe.name}: {recipe.model.backbone} on {len(rows):,} images of {len(class_ids):,} classes, "
        f"{recipe.train.epochs} epochs of {len(sampler)} steps, {device} "
        f"{str(dtype).removeprefix('torch.')}, {workers} workers"
    )

    def save(name: str, figures: dict[str, float]) -> None:
        save_checkpoint(
            folder / "checkpoints" / name,
            trainer.evaluated,
            class_ids=class_ids,
            recipe=recipe.dump(),
            table_fingerprint=table.fingerprint,
            figures=figures,
            state=_get_state(trainer, sampler) if name == "last" else None,
            centres=next(trainer.objective.iterate_centres(), None),
        )

    total = recipe.train.epochs * len(sampler)
    with catch_stop() as stop, show_progress("training", total, "steps") as bar:
        bar.advance(trainer.progress.step)
        try:
            run_training(
                trainer,
                loader,
                sampler,
                epochs=recipe.train.epochs,
                validate=validate,
                validate_every=recipe.train.validate_every,
                keep_best_by=recipe.train.keep_best_by,
                save=save,
                on_step=_StepDisplay(bar, recipe.train.epochs),
                on_epoch=RunLog(folder, trainer.progress.epoch).write,
                stop=stop,
                mine=mine,
                mine_every=recipe.train.mine_every,
            )
        except RuntimeError as error:
            raise explain_loader_death(error, stop) from error
    figures = load_checkpoint(folder / "checkpoints" / "best").figures
    minutes = (time.monotonic() - started) / 60
    finish_run(folder, decisive, figures)
    return Trained(folder, figures, minutes, skipped=False)


def build_trainer(
    recipe: Recipe, class_sizes: Sequence[int], steps_per_epoch: int, *, device: torch.device, dtype: torch.dtype
) -> Trainer:
    """The model, its losses and its optimiser as a recipe says, on ``device``, ready for the first step.

    Args:
        recipe: every setting.
        class_sizes: (C,) training images of each class.
        steps_per_epoch: of the sampler.
        device: where to train.
        dtype: of activations.
    """
    class_count = len(class_sizes)
    recognizer = build_network(recipe, class_count).to(device)
    loss = recipe.loss
    metric = build_metric_loss(
        loss.metric,
        loss.get_metric_settings(),
        mining=loss.mining,
        mining_epsilon=loss.multi_similarity.epsilon,
        memory_rows=loss.memory.rows,
        memory_start_step=loss.memory.start_step,
        memory_weight=loss.memory.weight,
        memory_momentum=loss.memory.momentum,
        embedding_dim=recipe.model.embedding_dim,
        class_count=class_count,
        class_sizes=class_sizes,
    )
    objective = JointLoss(
        metric,
        metric_weight=loss.metric_weight,
        classification_weight=loss.classification_weight,
        label_smoothing=loss.label_smoothing,
    ).to(device)
    optimizer = build_optimizer(
        recipe.train.optimizer,
        backbone=recognizer.backbone.named_parameters(),
        heads=itertools.chain(recognizer.iterate_head_parameters(), objective.iterate_other_parameters()),
        centres=objective.iterate_centres(),
        learning_rate=recipe.train.learning_rate,
        head_rate_factor=recipe.train.head_rate_factor,
        centre_rate_factor=recipe.train.centre_rate_factor,
        weight_decay=recipe.train.weight_decay,
    )
    return Trainer(
        recognizer,
        objective,
        optimizer,
        device=device,
        dtype=dtype,
        warmup_steps=round(recipe.train.warmup_epochs * steps_per_epoch),
        total_steps=recipe.train.epochs * steps_per_epoch,
        gradient_clip=recipe.train.gradient_clip,
        ema_decay=recipe.train.ema_decay,
        compile_network=recipe.train.compile,
        cut_mix_share=recipe.train.cut_mix,
        seed=recipe.seed,
    )


def build_network(recipe: Recipe, class_count: int) -> Recognizer:
    """The network of a recipe, with the weights a training starts from."""
    return build_recognizer(
        backbone=recipe.model.backbone,
        pretrained=recipe.model.pretrained,
        side_px=recipe.train.side_px,
        pooling=recipe.model.pooling,
        gem_power=recipe.model.gem_power,
        embedding_dim=recipe.model.embedding_dim,
        class_count=class_count,
        drop_path=recipe.model.drop_path,
        dropout=recipe.model.dropout,
    )


def _leave_out(rows: pd.DataFrame, fold: int | None, table: Path) -> pd.DataFrame:
    if fold is None:
        return rows
    kept = rows[(rows["fold"] != fold).fillna(True)]
    if len(kept) == len(rows):
        raise DataError(
            f"{table}: has no image in fold {fold}, which train.fold leaves out. Ingest with --folds, and count from 0."
        )
    return kept


class _StepDisplay:
    """Shows each step on the progress bar, with images per second over the last few."""

    def __init__(self, bar: Bar, epochs: int) -> None:
        self._bar, self._epochs = bar, epochs
        self._images, self._since = 0, time.monotonic()
        self._note: dict[str, str] = {}

    def __call__(self, epoch: int, images: int, losses: dict[str, float]) -> None:
        self._images += images
        if losses:
            now = time.monotonic()
            rate = self._images / max(1e-9, now - self._since)
            self._images, self._since = 0, now
            self._note = {"epoch": f"{epoch + 1}/{self._epochs}", "images/s": f"{rate:,.0f}"}
            self._note |= {name: f"{value:.3f}" for name, value in losses.items()}
        self._bar.advance(1, **self._note)


def _build_validation(
    table: ImageTable, recipe: Recipe, class_ids: list[int], *, device: torch.device, dtype: torch.dtype, workers: int
) -> Callable[[nn.Module], dict[str, float]] | None:
    """What validates a network, or None where there are no labelled images that it is not trained on."""
    rows = table.select(["val"])
    rows = rows[rows["label"].notna()]
    if not len(rows):
        warn("no validation images; the last checkpoint counts as the best. data.validation_fraction holds some out.")
        return None
    unseen = sorted(set(rows["label"].astype(int)) - set(class_ids))
    if unseen:
        warn(f"{describe_offenders(unseen)} labels stand in val alone; they cannot be predicted and count as errors.")
    views = get_views("plain")
    loader = build_view_loader(
        ViewedImages(open_images(table, rows), views, recipe.train.side_px),
        batch_size=recipe.predict.batch_size,
        workers=workers,
        pin_memory=device.type == "cuda",
        persistent=True,
    )
    labels = rows["label"].to_numpy(dtype=np.int64)
    return lambda network: validate_network(network, loader, labels, np.array(class_ids), device=device, dtype=dtype)


def _build_mining(
    table: ImageTable,
    recipe: Recipe,
    rows: pd.DataFrame,
    labels: np.ndarray,
    *,
    device: torch.device,
    dtype: torch.dtype,
    workers: int,
) -> Callable[[nn.Module], np.ndarray] | None:
    """What finds the classes that a network puts near each other, by its embeddings of the training images."""
    if not recipe.train.hard_classes:
        return None
    loader = build_view_loader(
        ViewedImages(open_images(table, rows), get_views("plain"), recipe.train.side_px),
        batch_size=recipe.predict.batch_size,
        workers=workers,
        pin_memory=device.type == "cuda",
        persistent=False,
    )

    def mine(network: nn.Module) -> np.ndarray:
        kept, embeddings, _ = recognise_images(network, loader, device=device, dtype=dtype)
        return find_near_classes(embeddings, labels[kept], int(labels.max()) + 1, recipe.train.batch_size)

    return mine


def _get_decisive(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide a run's content."""
    settings = recipe.dump()
    for path in _FREE_ON_RESUME:
        section = settings
        for key in path[:-1]:
            section = section[key]
        section.pop(path[-1])
    # The augmentation file's content counts, not its name alone.
    augmentation = Path(recipe.train.augmentation)
    if augmentation.is_file():
        settings["train"]["augmentation"] = compute_digest(augmentation.read_bytes())
    return settings


def _get_state(trainer: Trainer, sampler: EpochSampler) -> dict[str, Any]:
    state = trainer.state_dict()
    if sampler.near_classes is not None:
        state[_NEAR_CLASSES] = torch.from_numpy(sampler.near_classes)
    return state


def _resume(trainer: Trainer, sampler: EpochSampler, folder: Path, class_ids: list[int]) -> None:
    checkpoint = load_checkpoint(folder / "checkpoints" / "last")
    if checkpoint.class_ids != class_ids:
        raise ArtifactError(
            f"{folder}: the checkpoint's class order must be the image table's; it differs. Train anew."
        )
    state = checkpoint.load_state()
    if _NEAR_CLASSES in state:
        sampler.near_classes = state.pop(_NEAR_CLASSES).numpy()
    trainer.load_state_dict(state)
    progress = trainer.progress
    say(f"resuming {folder} at epoch {progress.epoch + 1}, batch {progress.batch + 1}")


def _warn_of_single_images(labels: np.ndarray, class_ids: list[int], *, pk: bool) -> None:
    counts = np.bincount(labels, minlength=len(class_ids))
    single = [class_ids[position] for position in np.flatnonzero(counts == 1)]
    if single and pk:
        warn(f"{describe_offenders(single)} classes have a single training image; only its copies are its positives.")
