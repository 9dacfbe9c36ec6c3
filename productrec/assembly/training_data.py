"""What a training learns from, and what judges it, as a recipe says: images, batches, validation, near classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from productrec.assembly.table_state import find_class_ids
from productrec.console import say, warn
from productrec.data.dataset import ViewedImages, build_view_loader
from productrec.data.images import open_images
from productrec.data.samplers import CLASS_POWERS, EpochSampler
from productrec.data.table import ImageTable
from productrec.data.transforms import Augmentation, build_augmentation, grow_sides
from productrec.data.view_presets import get_views
from productrec.errors import ArtifactError, DataError, describe_offenders
from productrec.losses.centres.soft_triple import SoftTripleModule
from productrec.losses.proxy.soft_triple import SoftTriple
from productrec.recipe import Recipe
from productrec.recognition.probabilities import load_probabilities
from productrec.recognition.pseudo_labels import choose_pseudo_labels
from productrec.retrieval.hard_mining import find_near_classes
from productrec.runtime import StopRequest
from productrec.training.ranks.group import Ranks
from productrec.training.run.validation import (
    can_retrieve,
    gather_images,
    recognise_images,
    slice_of_rank,
    validate_network,
)
from productrec.training.tricks.merging import merge_learned_centres


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


def add_pseudo_labels(rows: pd.DataFrame, table: ImageTable, recipe: Recipe) -> pd.DataFrame:
    """The training images, and below them those without a label whose predicted one is sure enough.

    Raises:
        ArtifactError: the probabilities are damaged, or of other images or classes than the table's.
        DataError: an image has a label, or none is sure enough.
    """
    folder = recipe.train.pseudo_labels
    if folder is None:
        return rows
    probabilities = load_probabilities(folder)
    probabilities = replace(probabilities, class_ids=find_class_ids(probabilities, table))
    images = table.images.set_index("image_id", drop=False)[["label", "status"]]
    foreign = [image_id for image_id in probabilities.ids if image_id not in images.index]
    if foreign:
        raise ArtifactError(f"{folder}: must be of images in {recipe.table}; {describe_offenders(foreign)} are not.")
    labels = images.loc[probabilities.ids, "label"]
    known = labels.index[labels.notna()].tolist()
    if known:
        raise DataError(
            f"{folder}: must be of images without a label; {describe_offenders(known)} have one. Take predictions of "
            "images without."
        )
    chosen = choose_pseudo_labels(
        probabilities, least=recipe.train.pseudo_confidence, known=rows["label"].astype(int).unique().tolist()
    )
    added = table.images[table.images["image_id"].isin(list(chosen)) & (table.images["status"] == "ok")]
    if not len(added):
        raise DataError(f"{folder}: must be of images that can be read; none of the {len(chosen)} sure ones can.")
    added = added.assign(
        label=added["image_id"].map(chosen).astype("Int64"),
        weight=added["weight"].fillna(1.0) * recipe.train.pseudo_weight,
    )
    say(f"pseudo-labels: {len(added):,} of {len(probabilities.ids):,} images of {folder} are sure enough")
    return pd.concat([rows, added])


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
        class_repeats=train.class_repeats,
        class_power=CLASS_POWERS.get(train.sampler, 1.0),
        hard_share=train.hard_classes,
        categories=_get_categories(table, class_ids),
        category_share=train.category_share,
        weights=rows["weight"].fillna(1.0).to_numpy(dtype=np.float64),
        rank=ranks.rank,
        world_size=ranks.size,
    )


def warn_of_uneven_classes(labels: np.ndarray, class_ids: list[int], sampler: EpochSampler, *, pk: bool) -> None:
    """Tell of one class alone, of images that are their own only positive, and of those PK batches have no room for."""
    if len(class_ids) == 1:
        warn("one class alone is trained on: every image will be given it, and accuracy says nothing.")
    if sampler.left_out >= 0.005:
        largest = class_ids[int(np.bincount(labels).argmax())]
        warn(
            f"an epoch leaves {sampler.left_out:.0%} of the images out: class {largest} is so large that the others "
            "cannot stand beside it in every batch. Raise train.class_repeats, or give train.sampler=square_root."
        )
    counts = np.bincount(labels, minlength=len(class_ids))
    single = [class_ids[position] for position in np.flatnonzero(counts == 1)]
    if single and pk:
        warn(f"{describe_offenders(single)} classes have a single training image; only its copies are its positives.")


def build_augmentations(recipe: Recipe) -> list[Augmentation]:
    """One augmentation an epoch, where squares grow; else one for all."""
    train = recipe.train
    sides = grow_sides(train.first_side_px or train.side_px, train.side_px, train.epochs)
    built = {side_px: build_augmentation(train.augmentation, side_px) for side_px in dict.fromkeys(sides)}
    return [built[side_px] for side_px in sides]


def build_validation(
    table: ImageTable, recipe: Recipe, class_ids: list[int], place: Place
) -> Callable[[nn.Module, StopRequest | None], dict[str, float]] | None:
    """What validates a network, unless a stop is wanted; None without labelled images that it is not trained on.

    Raises:
        DataError: a retrieval figure decides, and no image has another to find.
    """
    rows = table.select(["val"])
    rows = rows[rows["label"].notna()]
    if not len(rows):
        warn("no validation images; the last checkpoint counts as the best. data.validation_fraction holds some out.")
        return None
    unseen = sorted(set(rows["label"].astype(int)) - set(class_ids))
    figure = choose_figure(table, recipe, class_ids)
    if len(unseen) == rows["label"].nunique():
        warn(f"no validation image is of a class to train on; {figure} decides which checkpoint is the best one.")
    elif unseen:
        warn(f"{describe_offenders(unseen)} labels stand in val alone; they cannot be predicted and count as errors.")
    labels = rows["label"].to_numpy(dtype=np.int64)
    asks = (rows["role"] == "query").fillna(False).to_numpy(dtype=bool)
    is_query = asks if asks.any() and not asks.all() else None  # of benchmarks that tell them from a gallery
    if figure in ("recall@1", "map@r") and not can_retrieve(labels, is_query):
        wanted, advice = "a class must have two validation images", "Hold out more (data.validation_fraction)"
        if is_query is not None:
            wanted, advice = "a query of val must have its class in the gallery", "Mend the source's roles"
        other = ", or keep the best by top_1_accuracy (train.keep_best_by)" if len(unseen) < len(set(labels)) else ""
        raise DataError(f"{recipe.table}: {wanted} for {figure} to decide; none has. {advice}{other}.")
    loader = _build_loader(table, recipe, rows, place, persistent=True)

    def measure(network: nn.Module, stop: StopRequest | None = None) -> dict[str, float]:
        return validate_network(
            network,
            loader,
            labels,
            np.array(class_ids),
            device=place.device,
            dtype=place.dtype,
            is_query=is_query,
            ranks=place.ranks,
            stop=stop,
        )

    return measure


def choose_figure(table: ImageTable, recipe: Recipe, class_ids: list[int]) -> str:
    """The validation figure that decides: ``train.keep_best_by``, or Recall@1 where the head knows no class of val."""
    labels = table.select(["val"])["label"].dropna().astype(int)
    figure = recipe.train.keep_best_by
    foreign = len(labels) > 0 and set(class_ids).isdisjoint(labels)
    return "recall@1" if foreign and figure in ("top_1_accuracy", "top_3_error") else figure


def build_mining(
    table: ImageTable, recipe: Recipe, rows: pd.DataFrame, labels: np.ndarray, place: Place
) -> Callable[[nn.Module], np.ndarray] | None:
    """What finds the classes that a network puts near each other, by its embeddings of the training images."""
    if not recipe.train.hard_classes:
        return None
    loader = _build_loader(table, recipe, rows, place, persistent=False)

    def mine(network: nn.Module) -> np.ndarray:
        own = recognise_images(network, loader, device=place.device, dtype=place.dtype)
        seen = gather_images(own, len(rows), place.ranks)
        return find_near_classes(seen.embeddings, labels[seen.rows], int(labels.max()) + 1, recipe.train.batch_size)

    return mine


def build_merging(
    table: ImageTable, recipe: Recipe, class_ids: list[int], metric: nn.Module | None, place: Place
) -> Callable[[nn.Module], dict[str, float]] | None:
    """What merges the centres of the metric loss, judged on validation images; None where the recipe wants none.

    Raises:
        DataError: no validation images to judge it by.
    """
    wanted = recipe.loss.metric
    if not isinstance(metric, SoftTripleModule) or not isinstance(wanted, SoftTriple) or not wanted.merge_every_epochs:
        return None
    rows = table.select(["val"])
    rows = rows[rows["label"].isin(class_ids)]
    if not len(rows):
        raise DataError(
            f"{recipe.table}: must have validation images for loss.metric.merge_every_epochs; got none. "
            "Hold some out (data.validation_fraction), or merge after training (productrec centres)."
        )
    loader = _build_loader(table, recipe, rows, place, persistent=False)
    labels = np.searchsorted(class_ids, rows["label"].to_numpy(dtype=np.int64))

    def merge(network: nn.Module) -> dict[str, float]:
        own = recognise_images(network, loader, device=place.device, dtype=place.dtype)
        seen = gather_images(own, len(rows), place.ranks)
        return merge_learned_centres(
            metric,
            seen.embeddings,
            labels[seen.rows],
            distance=wanted.merge_distance,
            tolerance=wanted.merge_tolerance,
            ranks=place.ranks,
        )

    return merge


def _build_loader(
    table: ImageTable, recipe: Recipe, rows: pd.DataFrame, place: Place, *, persistent: bool
) -> DataLoader[tuple[int, list[np.ndarray], str | None]]:
    """Plain views of this rank's slice of some images."""
    own = open_images(table, rows.iloc[slice_of_rank(len(rows), place.ranks)])
    return build_view_loader(
        ViewedImages(own, get_views("plain"), recipe.train.side_px),
        batch_size=recipe.predict.batch_size,
        workers=place.workers,
        pin_memory=place.device.type == "cuda",
        persistent=persistent,
    )


def _get_categories(table: ImageTable, class_ids: list[int]) -> np.ndarray:
    """Code (C,) of each class's category, -1 where the source tells none."""
    paths = dict(zip(table.classes["id"].tolist(), table.classes["path"].tolist(), strict=True))
    codes, _ = pd.factorize(np.array([paths.get(class_id) for class_id in class_ids], dtype=object))
    return np.asarray(codes, dtype=np.int64)
