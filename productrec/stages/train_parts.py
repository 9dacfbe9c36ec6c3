"""What a training is made of, as a recipe says: network, losses, optimiser, batches, and what validates and mines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from productrec.console import warn
from productrec.data.dataset import ViewedImages, build_view_loader
from productrec.data.images import open_images
from productrec.data.samplers import CLASS_POWERS, EpochSampler
from productrec.data.table import ImageTable
from productrec.data.transforms import Augmentation, build_augmentation, grow_sides
from productrec.data.views import get_views
from productrec.errors import DataError, describe_offenders
from productrec.losses.catalogue import build_metric_loss
from productrec.models.recognizer import Recognizer, build_recognizer
from productrec.recipe import Recipe
from productrec.retrieval.hard_mining import find_near_classes
from productrec.training.jigsaw import Jigsaw
from productrec.training.mixing import Mixing
from productrec.training.objective import JointLoss
from productrec.training.optimiser import build_optimizer
from productrec.training.ranks import Ranks
from productrec.training.schedule import compute_rate_factor
from productrec.training.trainer import Trainer
from productrec.training.validation import recognise_images, slice_of_rank, validate_network


@dataclass(frozen=True)
class Place:
    """Where a training computes: device, type of activations, loader processes, and the ranks it is one of."""

    device: torch.device
    dtype: torch.dtype
    workers: int
    ranks: Ranks


def leave_fold_out(rows: pd.DataFrame, fold: int | None, table: Path) -> pd.DataFrame:
    """The training images without those of a fold.

    Raises:
        DataError: none is in that fold.
    """
    if fold is None:
        return rows
    kept = rows[(rows["fold"] != fold).fillna(True)]
    if len(kept) == len(rows):
        raise DataError(
            f"{table}: has no image in fold {fold}, which train.fold leaves out. Ingest with --folds, and count from 0."
        )
    return kept


def build_sampler(
    recipe: Recipe, table: ImageTable, rows: pd.DataFrame, labels: np.ndarray, class_ids: list[int], ranks: Ranks
) -> EpochSampler:
    """What makes up the batches of training images ``rows`` with class positions ``labels``."""
    train = recipe.train
    return EpochSampler(
        labels,
        batch_size=train.batch_size,
        images_per_class=train.images_per_class if recipe.uses_pk_sampler else None,
        seed=recipe.seed,
        pk_share=train.pk_share if train.sampler == "mixed" else 1.0,
        class_power=CLASS_POWERS.get(train.sampler, 1.0),
        hard_share=train.hard_classes,
        categories=_get_categories(table, class_ids),
        category_share=train.category_share,
        weights=rows["weight"].fillna(1.0).to_numpy(dtype=np.float64),
        rank=ranks.rank,
        world_size=ranks.size,
    )


def warn_of_single_images(labels: np.ndarray, class_ids: list[int], *, pk: bool) -> None:
    """Tell of classes whose image is its own only positive."""
    counts = np.bincount(labels, minlength=len(class_ids))
    single = [class_ids[position] for position in np.flatnonzero(counts == 1)]
    if single and pk:
        warn(f"{describe_offenders(single)} classes have a single training image; only its copies are its positives.")


def build_trainer(
    recipe: Recipe,
    class_sizes: Sequence[int],
    steps_per_epoch: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks | None = None,
) -> Trainer:
    """The model, its losses and its optimiser as a recipe says, on ``device``, ready for the first step.

    Args:
        recipe: every setting.
        class_sizes: (C,) training images of each class.
        steps_per_epoch: of the sampler.
        device: where to train.
        dtype: of activations.
        ranks: that train together.
    """
    class_count = len(class_sizes)
    ranks = ranks or Ranks()
    recognizer = build_network(recipe, class_count)
    if recipe.train.sync_norms and ranks.size > 1 and device.type == "cuda":
        recognizer = nn.SyncBatchNorm.convert_sync_batchnorm(recognizer)  # type: ignore[no-untyped-call]
    recognizer = recognizer.to(device)
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
        jigsaw=_build_jigsaw(recipe, recognizer),
    ).to(device)
    optimizer = build_optimizer(
        recipe.train.optimizer,
        backbone=recognizer.backbone,
        heads=itertools.chain(recognizer.iterate_head_parameters(), objective.iterate_other_parameters()),
        centres=objective.iterate_centres(),
        learning_rate=recipe.train.learning_rate,
        head_rate_factor=recipe.train.head_rate_factor,
        centre_rate_factor=recipe.train.centre_rate_factor,
        weight_decay=recipe.train.weight_decay,
        layer_decay=recipe.train.layer_decay,
    )
    schedule = partial(
        compute_rate_factor,
        warmup_steps=round(recipe.train.warmup_epochs * steps_per_epoch),
        total_steps=recipe.train.epochs * steps_per_epoch,
        schedule=recipe.train.schedule,
        cooldown=recipe.train.cooldown,
        drop_at=recipe.train.drop_at,
        drop_factor=recipe.train.drop_factor,
    )
    return Trainer(
        recognizer,
        objective,
        optimizer,
        device=device,
        dtype=dtype,
        schedule=schedule,
        gradient_clip=recipe.train.gradient_clip,
        ema_decay=recipe.train.ema_decay,
        compile_network=recipe.train.compile,
        mixing=_build_mixing(recipe, ranks),
        chunk_size=recipe.train.chunk_size,
        ranks=ranks,
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


def build_augmentations(recipe: Recipe) -> list[Augmentation]:
    """One augmentation an epoch, where squares grow; else one for all."""
    train = recipe.train
    sides = grow_sides(train.first_side_px or train.side_px, train.side_px, train.epochs)
    built = {side_px: build_augmentation(train.augmentation, side_px) for side_px in dict.fromkeys(sides)}
    return [built[side_px] for side_px in sides]


def build_validation(
    table: ImageTable, recipe: Recipe, class_ids: list[int], place: Place
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
    loader = build_view_loader(
        ViewedImages(
            open_images(table, rows.iloc[slice_of_rank(len(rows), place.ranks)]),
            get_views("plain"),
            recipe.train.side_px,
        ),
        batch_size=recipe.predict.batch_size,
        workers=place.workers,
        pin_memory=place.device.type == "cuda",
        persistent=True,
    )
    labels = rows["label"].to_numpy(dtype=np.int64)
    is_query = (
        (rows["role"] == "query").fillna(False).to_numpy(dtype=bool)
    )  # of benchmarks that tell them from a gallery

    def measure(network: nn.Module) -> dict[str, float]:
        return validate_network(
            network,
            loader,
            labels,
            np.array(class_ids),
            device=place.device,
            dtype=place.dtype,
            is_query=is_query if is_query.any() and not is_query.all() else None,
            ranks=place.ranks,
        )

    return measure


def build_mining(
    table: ImageTable, recipe: Recipe, rows: pd.DataFrame, labels: np.ndarray, place: Place
) -> Callable[[nn.Module], np.ndarray] | None:
    """What finds the classes that a network puts near each other, by its embeddings of the training images."""
    if not recipe.train.hard_classes:
        return None
    loader = build_view_loader(
        ViewedImages(open_images(table, rows), get_views("plain"), recipe.train.side_px),
        batch_size=recipe.predict.batch_size,
        workers=place.workers,
        pin_memory=place.device.type == "cuda",
        persistent=False,
    )

    def mine(network: nn.Module) -> np.ndarray:
        kept, embeddings, _ = recognise_images(network, loader, device=place.device, dtype=place.dtype)
        return find_near_classes(embeddings, labels[kept], int(labels.max()) + 1, recipe.train.batch_size)

    return mine


def _build_mixing(recipe: Recipe, ranks: Ranks) -> Mixing | None:
    train = recipe.train
    if not train.cut_mix and not train.mix_up:
        return None
    return Mixing(
        cut_mix_share=train.cut_mix,
        mix_up_share=train.mix_up,
        mix_up_alpha=train.mix_up_alpha,
        seed=recipe.seed,
        rank=ranks.rank,
    )


def _build_jigsaw(recipe: Recipe, recognizer: Recognizer) -> Jigsaw | None:
    jigsaw = recipe.train.jigsaw
    if not jigsaw.parts:
        return None
    return Jigsaw(recognizer.backbone.feature_dim, **jigsaw.model_dump(), seed=recipe.seed)


def _get_categories(table: ImageTable, class_ids: list[int]) -> np.ndarray:
    """Code (C,) of each class's category, -1 where the source tells none."""
    paths = dict(zip(table.classes["id"].tolist(), table.classes["path"].tolist(), strict=True))
    codes, _ = pd.factorize(np.array([paths.get(class_id) for class_id in class_ids], dtype=object))
    return np.asarray(codes, dtype=np.int64)
