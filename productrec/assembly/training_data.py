"""What a training learns from, as a recipe says: images, their classes, and the batches that they come in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from productrec.assembly.table_state import find_class_ids
from productrec.class_order import ClassOrder
from productrec.competitions.contract import check_pseudo_labels, check_training_splits, load_contract
from productrec.console import say, warn
from productrec.data.dataset import TrainingImages, build_training_loader
from productrec.data.images import open_images
from productrec.data.samplers import CLASS_POWERS, EpochSampler
from productrec.data.table import ImageTable, load_table
from productrec.data.transforms import Augmentation, build_augmentation, grow_sides
from productrec.errors import ArtifactError, DataError, describe_offenders
from productrec.recipe import Recipe
from productrec.recognition.probabilities import load_probabilities
from productrec.recognition.pseudo_labels import choose_pseudo_labels
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.resources import Resources
from productrec.training.run.batches import Batches


def load_allowed_table(recipe: Recipe) -> ImageTable:
    """The recipe's image table, where the competition's rules allow to train on its splits and labels.

    Raises:
        ArtifactError: there is none, or it is damaged.
        DataError: the rules forbid it.
    """
    table = load_table(recipe.table, root=recipe.data.images)
    contract = load_contract(recipe.competition)
    check_training_splits(contract, recipe.train.splits, forced=recipe.train.force_splits)
    if recipe.train.pseudo_labels is not None:
        check_pseudo_labels(contract, forced=recipe.train.force_splits)
    return table


@dataclass(frozen=True)
class TrainingData:
    """N images to train on: ``rows`` of the image table, their classes' ``order``, and ``positions`` (N,) in it.

    Where they have no classes the order is empty, and the positions are 0.
    """

    rows: pd.DataFrame
    order: ClassOrder
    positions: np.ndarray

    @property
    def class_sizes(self) -> list[int]:
        """(C,) images of each class."""
        sizes: list[int] = np.bincount(self.positions, minlength=len(self.order)).tolist()
        return sizes[: len(self.order)]


def select_training_data(recipe: Recipe, table: ImageTable) -> TrainingData:
    """The labelled images that a recipe trains on, and those it gives a predicted label.

    Where no term of its loss looks at classes, and a training image with a title has no label, all images with a title
    instead; then there are no classes.

    Raises:
        DataError: there are fewer than two, or see `leave_fold_out` and `add_pseudo_labels`.
        ArtifactError: see `add_pseudo_labels`.
    """
    rows = table.select(recipe.train.splits)
    unlabelled = int((rows["label"].isna() & rows["title"].notna()).sum())
    if not recipe.loss.needs_labels and unlabelled:
        rows = leave_fold_out(rows[rows["title"].notna()], recipe.train.fold, recipe.table)
        if len(rows) < 2:
            raise DataError(
                f"{recipe.table}: splits {recipe.train.splits} must hold at least 2 readable images with a title; "
                f"got {len(rows)}."
            )
        return TrainingData(rows, ClassOrder([]), np.zeros(len(rows), dtype=np.int64))
    rows = leave_fold_out(rows[rows["label"].notna()], recipe.train.fold, recipe.table)
    alone = "To learn from titles alone give model.text.tower, loss.metric=none and loss.classification_weight=0."
    if len(rows) < 2:
        raise DataError(
            f"{recipe.table}: splits {recipe.train.splits} must hold at least 2 readable images with a label; "
            f"got {len(rows)}." + (f" {alone}" if unlabelled else "")
        )
    if unlabelled:
        warn(f"{unlabelled:,} images have a title and no label; they are not trained on. {alone}")
    rows = add_pseudo_labels(rows, table, recipe)
    order = ClassOrder.of_labels(rows["label"])
    return TrainingData(rows, order, order.positions_of(rows["label"].to_numpy(dtype=np.int64)))


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


def build_batches(recipe: Recipe, table: ImageTable, data: TrainingData, resources: Resources) -> Batches:
    """The batches of training images, augmented, of this rank; tells of classes that they cannot treat alike."""
    sampler = build_sampler(recipe, table, data, resources.ranks)
    warn_of_uneven_classes(data, sampler, pk=recipe.uses_pk_sampler)
    images = open_images(table, data.rows)
    loader = build_training_loader(
        TrainingImages(images, data.positions, build_augmentations(recipe), recipe.seed),
        sampler,
        workers=resources.workers,
        pin_memory=resources.is_on_gpu,
        local_size=resources.ranks.local_size,
    )
    return Batches(loader, sampler)


def build_sampler(recipe: Recipe, table: ImageTable, data: TrainingData, ranks: Ranks) -> EpochSampler:
    """What makes up the batches of training images."""
    train = recipe.train
    return EpochSampler(
        data.positions,
        batch_size=train.batch_size,
        images_per_class=train.images_per_class if recipe.uses_pk_sampler else None,
        seed=recipe.seed,
        pk_share=train.pk_share if recipe.sampler == "mixed" else 1.0,
        class_repeats=train.class_repeats,
        class_power=CLASS_POWERS.get(recipe.sampler, 1.0),
        hard_share=train.hard_classes,
        categories=_get_categories(table, data.order),
        category_share=train.category_share,
        weights=data.rows["weight"].fillna(1.0).to_numpy(dtype=np.float64),
        rank=ranks.rank,
        world_size=ranks.size,
    )


def warn_of_uneven_classes(data: TrainingData, sampler: EpochSampler, *, pk: bool) -> None:
    """Tell of one class alone, of images that are their own only positive, and of those PK batches have no room for."""
    class_ids, counts = data.order.list_ids(), np.array(data.class_sizes, dtype=np.int64)
    if len(class_ids) == 1:
        warn("one class alone is trained on: every image will be given it, and accuracy says nothing.")
    if class_ids and sampler.left_out >= 0.005:
        largest = class_ids[int(counts.argmax())]
        warn(
            f"an epoch leaves {sampler.left_out:.0%} of the images out: class {largest} is so large that the others "
            "cannot stand beside it in every batch. Raise train.class_repeats, or give train.sampler=square_root."
        )
    single = [class_ids[position] for position in np.flatnonzero(counts == 1)]
    if single and pk:
        warn(f"{describe_offenders(single)} classes have a single training image; only its copies are its positives.")


def build_augmentations(recipe: Recipe) -> list[Augmentation]:
    """One augmentation an epoch."""
    train, sides = recipe.train, list_sides(recipe)
    built = {
        side_px: build_augmentation(train.augmentation, side_px, bands=train.bands, band_share=train.band_share)
        for side_px in dict.fromkeys(sides)
    }
    return [built[side_px] for side_px in sides]


def list_sides(recipe: Recipe) -> list[int]:
    """The side of each epoch's squares in pixels."""
    train = recipe.train
    return grow_sides(train.first_side_px or train.side_px, train.side_px, train.epochs)


def _get_categories(table: ImageTable, order: ClassOrder) -> np.ndarray:
    """Code (C,) of each class's category, -1 where the source tells none."""
    paths = dict(zip(table.classes["id"].tolist(), table.classes["path"].tolist(), strict=True))
    codes, _ = pd.factorize(np.array([paths.get(class_id) for class_id in order.list_ids()], dtype=object))
    return np.asarray(codes, dtype=np.int64)
