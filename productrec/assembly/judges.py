"""What judges a network while it trains, as a recipe says: validation, near classes, and the merging of centres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import nn
from torch.utils.data import DataLoader

from productrec.assembly.titles import list_titles
from productrec.assembly.training_data import TrainingData
from productrec.class_order import ClassOrder
from productrec.competitions.contract import load_contract
from productrec.console import warn
from productrec.data.dataset import ViewedImages, build_view_loader
from productrec.data.images import open_images
from productrec.data.table import ImageTable
from productrec.data.titles import number_groups
from productrec.data.view_presets import get_views
from productrec.errors import DataError, describe_offenders
from productrec.losses.centres.soft_triple import SoftTripleModule
from productrec.losses.proxy.soft_triple import SoftTriple
from productrec.metrics.figures import HEAD_FIGURES, RETRIEVAL_FIGURES, TITLE_FIGURES
from productrec.models.text.tokens import Tokeniser
from productrec.recipe import Recipe
from productrec.retrieval.hard_mining import find_near_classes
from productrec.training.ranks.resources import Resources
from productrec.training.run.centre_merging import CentreMerging
from productrec.training.run.title_validation import TitleValidation
from productrec.training.run.validation import (
    Validation,
    can_retrieve,
    gather_images,
    recognise_images,
    slice_of_rank,
)


def build_validation(
    table: ImageTable, recipe: Recipe, order: ClassOrder, resources: Resources, tokeniser: Tokeniser | None = None
) -> Validation | None:
    """What validates a network of these classes; None without images that it is not trained on.

    Args:
        table: with labelled validation images, or, for a network without classes, ones with titles.
        recipe: every setting.
        order: the classes.
        resources: what to compute with.
        tokeniser: of the text tower; None without one.

    Raises:
        DataError: a figure decides that cannot be had of these images.
    """
    rows = _select_validation(table, order)
    if not len(rows):
        warn("no validation images; the last checkpoint counts as the best. data.validation_fraction holds some out.")
        return None
    figure = choose_figure(table, recipe, order)
    titles = None if tokeniser is None else _build_title_validation(table, recipe, rows, tokeniser)
    if figure in TITLE_FIGURES and titles is None:
        raise DataError(
            f"{recipe.table}: validation images must have titles for {figure} to decide, and the recipe a text tower; "
            "they have not. Keep the best by another figure (train.keep_best_by)."
        )
    if not len(order):
        loader = _build_plain_loader(table, recipe, rows, resources, persistent=True)
        nothing = np.empty(0, dtype=np.int64)
        return Validation(loader, -1 - np.arange(len(rows)), nothing, None, resources, titles=titles)
    labels = rows["label"].to_numpy(dtype=np.int64)
    unseen = np.unique(labels[order.positions_of(labels) < 0]).tolist()
    if len(unseen) == rows["label"].nunique():
        warn(f"no validation image is of a class to train on; {figure} decides which checkpoint is the best one.")
    elif unseen:
        warn(f"{describe_offenders(unseen)} labels stand in val alone; they cannot be predicted and count as errors.")
    asks = (rows["role"] == "query").fillna(False).to_numpy(dtype=bool)
    is_query = asks if asks.any() and not asks.all() else None  # of benchmarks that tell them from a gallery
    if figure in RETRIEVAL_FIGURES and not can_retrieve(labels, is_query):
        wanted, advice = "a class must have two validation images", "Hold out more (data.validation_fraction)"
        if is_query is not None:
            wanted, advice = "a query of val must have its class in the gallery", "Mend the source's roles"
        other = ", or keep the best by top_1_accuracy (train.keep_best_by)" if len(unseen) < len(set(labels)) else ""
        raise DataError(f"{recipe.table}: {wanted} for {figure} to decide; none has. {advice}{other}.")
    loader = _build_plain_loader(table, recipe, rows, resources, persistent=True)
    metric = load_contract(recipe.competition).scored_by
    return Validation(loader, labels, np.array(order.list_ids()), is_query, resources, metric, titles)


def _select_validation(table: ImageTable, order: ClassOrder) -> pd.DataFrame:
    """Validation images that say something of a network: labelled, or with a title where there are no classes."""
    rows = table.select(["val"])
    return rows[rows["label" if len(order) else "title"].notna()]


def _build_title_validation(
    table: ImageTable, recipe: Recipe, rows: pd.DataFrame, tokeniser: Tokeniser
) -> TitleValidation | None:
    """Judges a network by the titles of validation images; None where fewer than two have one."""
    listed = list_titles(table, rows, recipe.model.text.reads)
    if sum(1 for own in listed if own) < 2:
        return None
    tokens = tokeniser.encode([title for own in listed for title in own], recipe.model.text.max_tokens)
    labels = rows["label"].fillna(-1).to_numpy(dtype=np.int64)
    by_class = recipe.loss.titles.positives == "class" and bool((labels >= 0).any())
    return TitleValidation(
        tokens.ids,
        tokens.lengths,
        np.repeat(np.arange(len(rows)), [len(own) for own in listed]),
        number_groups(listed, labels if by_class else None),
        recipe.predict.batch_size,
    )


def choose_figure(table: ImageTable, recipe: Recipe, order: ClassOrder) -> str:
    """The validation figure that decides: ``train.keep_best_by``, or one that can be had.

    That is Recall@1 where the head knows no class of val, and recall between images and titles where no term of the
    loss looks at classes.
    """
    labels = table.select(["val"])["label"].dropna().to_numpy(dtype=np.int64)
    figure = recipe.train.keep_best_by
    if not len(order) and figure not in TITLE_FIGURES:
        return "pair_recall"
    if not recipe.loss.needs_labels and figure in HEAD_FIGURES:
        return "pair_recall"
    is_foreign = len(labels) > 0 and not (order.positions_of(labels) >= 0).any()
    return "recall@1" if is_foreign and figure in HEAD_FIGURES else figure


@dataclass(frozen=True)
class NearClasses:
    """Finds classes that a network puts near each other, by its embeddings of the training images.

    ``loader``: plain views of this rank's slice of N images; ``positions``: (N,) of their classes; ``count``: of near
    classes to find for each.
    """

    loader: DataLoader[tuple[int, list[np.ndarray], str | None]]
    positions: np.ndarray
    count: int
    resources: Resources

    def find(self, network: nn.Module) -> np.ndarray:
        """(C, count) class positions, the nearest first; all ranks call it together."""
        own = recognise_images(network, self.loader, device=self.resources.device, dtype=self.resources.dtype)
        everyone = gather_images(own, len(self.positions), self.resources.ranks)
        class_count = int(self.positions.max()) + 1
        return find_near_classes(everyone.embeddings, self.positions[everyone.rows], class_count, self.count)


def build_near_classes(
    table: ImageTable, recipe: Recipe, data: TrainingData, resources: Resources
) -> NearClasses | None:
    """What searches for near classes between epochs; None where the recipe wants none in its batches."""
    if not recipe.train.hard_classes:
        return None
    loader = _build_plain_loader(table, recipe, data.rows, resources, persistent=False)
    return NearClasses(loader, data.positions, recipe.train.batch_size, resources)


def build_merging(
    table: ImageTable, recipe: Recipe, order: ClassOrder, metric: nn.Module | None, resources: Resources
) -> CentreMerging | None:
    """What merges the centres of the metric loss, judged on validation images; None where the recipe wants none.

    Raises:
        DataError: no validation images to judge it by.
    """
    wanted = recipe.loss.metric
    if not isinstance(metric, SoftTripleModule) or not isinstance(wanted, SoftTriple) or not wanted.merge_every_epochs:
        return None
    rows = table.select(["val"])
    rows = rows[rows["label"].isin(order.list_ids())]
    if not len(rows):
        raise DataError(
            f"{recipe.table}: must have validation images for loss.metric.merge_every_epochs; got none. "
            "Hold some out (data.validation_fraction), or merge after training (productrec centres)."
        )
    loader = _build_plain_loader(table, recipe, rows, resources, persistent=False)
    positions = order.positions_of(rows["label"].to_numpy(dtype=np.int64))
    return CentreMerging(metric, loader, positions, wanted.merge_distance, wanted.merge_tolerance, resources)


def _build_plain_loader(
    table: ImageTable, recipe: Recipe, rows: pd.DataFrame, resources: Resources, *, persistent: bool
) -> DataLoader[tuple[int, list[np.ndarray], str | None]]:
    """Plain views of this rank's slice of some images."""
    own = open_images(table, rows.iloc[slice_of_rank(len(rows), resources.ranks)])
    return build_view_loader(
        ViewedImages(own, get_views("plain"), recipe.train.side_px),
        batch_size=recipe.predict.batch_size,
        workers=resources.workers,
        pin_memory=resources.is_on_gpu,
        persistent=persistent,
    )
