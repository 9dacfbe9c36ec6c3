"""Samplers: which rows make up each batch of an epoch, from (seed, epoch) alone: a resume finds the same order."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from productrec.data.batches import draw_balanced_batches, draw_present, draw_shuffled_batches
from productrec.data.pk_batches import PKPlan
from productrec.errors import DataError, RecipeError


class Draw(NamedTuple):
    """One image of a batch: the epoch, its row, and how often the epoch's batches held that row before.

    Augmentation derives from all three, so that no image stands twice in an epoch as the same pixels. They travel
    together because loader processes outlive an epoch.
    """

    epoch: int
    row: int
    occurrence: int


Batch = list[Draw]

ORDER = 2
"""Which order the same seed gives; a run that was stopped under another one cannot go on."""

CLASS_POWERS = {"balanced": 0.0, "square_root": 0.5}
"""``class_power`` of the orders that have a name; that of any other is 1."""


class EpochSampler:
    """Yields the batches of one epoch as lists of `Draw`, from a given batch on.

    An epoch of shuffled batches has every image once, but for a last batch that would not be full. One of PK batches
    has every class, and every image once on average; see `PKPlan`. One of balanced batches, or of mixed ones, has as
    many batches as one of shuffled ones.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        batch_size: int,
        images_per_class: int | None,
        seed: int,
        pk_share: float = 1.0,
        class_repeats: float = 10.0,
        class_power: float = 1.0,
        hard_share: float = 0.0,
        categories: np.ndarray | None = None,
        category_share: float = 0.0,
        weights: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Every rank draws the same plan and yields its own slice of each batch, in rank order.

        Args:
            labels: (N,) class positions.
            batch_size: rows of a batch, of all ranks together.
            images_per_class: K for PK batches, None for shuffled ones.
            seed: with the epoch, it decides everything.
            pk_share: the share of the batches that are PK ones, where K is given; the others are shuffled ones.
            class_repeats: how often at most PK batches repeat a class beside one that has more images; see `PKPlan`.
            class_power: of shuffled batches; 1 has each row once, less draws rows by class, see
                `draw_balanced_batches`.
            hard_share: of a PK batch's classes, those drawn near its first, once ``near_classes`` (C, count) is set.
            categories: (C,) code of each class's category, -1 for none.
            category_share: of a PK batch's classes, those drawn from the category of its first.
            weights: (N,) from 0 to 1, how often each row is drawn beside those of weight 1 (of its class, for PK
                batches): in shuffled batches the share of the epochs that it takes part in; None for ones. Any loss
                obeys such a weight, also one over pairs, and it keeps a doubtful image out of the others' pairs.
            rank: which slice of each batch is this process's, from 0.
            world_size: how many processes share a batch.

        Raises:
            RecipeError: K or the ranks do not divide the batch.
            DataError: there is not one row, the weights leave none, there is less than a batch for several ranks, or no
                two classes share a category that they are to be drawn from.
        """
        check_batch(batch_size, images_per_class, world_size)
        if not 0 <= rank < world_size:
            raise RecipeError(
                f"sampler: rank must be from 0 to {world_size - 1}; got {rank}. Give each process its own."
            )
        if not len(labels):
            raise DataError("sampler: labels must hold at least one row; got none.")
        if weights is not None and not (len(weights) == len(labels) and (weights >= 0).all() and (weights <= 1).all()):
            raise DataError("sampler: weights must be one number from 0 to 1 a row.")
        if weights is not None and weights.sum() < 1:
            raise DataError("sampler: weights must leave at least one row an epoch; they sum to less than 1.")
        if category_share:
            _check_categories(categories, int(labels.max()) + 1)
        self._labels = labels
        self._weights = None if weights is None or (weights == 1).all() else weights.astype(np.float64)
        self._count = len(labels) if self._weights is None else int(self._weights.sum() + 1e-9)
        if world_size > 1 and self._count < batch_size:
            raise DataError(
                f"sampler: several ranks must share at least one full batch; got {self._count} images an epoch and a "
                f"batch_size of {batch_size}. Lower train.batch_size, or train in one process."
            )
        self.batch_size = batch_size
        self._pk = None
        if images_per_class is not None:
            self._pk = PKPlan(labels, batch_size, images_per_class, class_repeats=class_repeats, weights=self._weights)
        self._seed = seed
        self._pk_share, self._class_power = pk_share, class_power
        self._hard_share, self._category_share = hard_share, category_share
        self._categories = categories if category_share else None
        self._rank, self._world_size = rank, world_size
        self.near_classes: np.ndarray | None = None
        self.epoch = 0
        self.first_batch = 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        if self._pk is not None and self._pk_share == 1:
            return self._pk.batch_count
        return max(1, self._count // self.batch_size)

    @property
    def left_out(self) -> float:
        """Share of the images that an epoch of PK batches has no room for; `PKPlan` says when."""
        return 0.0 if self._pk is None or self._pk_share < 1 else self._pk.left_out

    @property
    def own_batch_size(self) -> int:
        """Rows of a batch that are this rank's."""
        return self.batch_size // self._world_size

    def __iter__(self) -> Iterator[Batch]:
        batches = self._draw(np.random.default_rng([self._seed, self.epoch]))
        occurrences = _count_earlier(np.concatenate(batches))
        start = sum(len(batch) for batch in batches[: self.first_batch])
        for batch in batches[self.first_batch :]:
            size = len(batch) // self._world_size
            own = slice(self._rank * size, (self._rank + 1) * size)
            earlier = occurrences[start : start + len(batch)][own]
            start += len(batch)
            yield [Draw(self.epoch, *pair) for pair in zip(batch[own].tolist(), earlier.tolist(), strict=True)]

    def _draw(self, generator: np.random.Generator) -> list[np.ndarray]:
        if self._pk is None:
            return self._draw_shuffled(len(self), generator)
        if self._pk_share == 1:
            return self._draw_pk(self._pk, generator)
        # Rounded down or up by chance, so that the share holds over the epochs however few batches they have.
        pk_count = math.floor(round(self._pk_share * len(self), 9) + generator.random())
        pk = self._draw_pk(self._pk, generator)[:pk_count]
        is_pk = generator.permutation(len(self)) < len(pk)
        ones, others = iter(pk), iter(self._draw_shuffled(len(self) - len(pk), generator))
        return [next(ones) if here else next(others) for here in is_pk]

    def _draw_shuffled(self, count: int, generator: np.random.Generator) -> list[np.ndarray]:
        present = None if self._weights is None else draw_present(self._weights, generator)
        labels = self._labels if present is None else self._labels[present]
        if self._class_power == 1:
            batches = draw_shuffled_batches(len(labels), self.batch_size, generator)
        else:
            batches = draw_balanced_batches(labels, self.batch_size, generator, class_power=self._class_power)
        return [batch if present is None else present[batch] for batch in batches[:count]]

    def _draw_pk(self, plan: PKPlan, generator: np.random.Generator) -> list[np.ndarray]:
        batches = plan.draw(
            generator,
            near_classes=self.near_classes,
            hard_share=self._hard_share,
            categories=self._categories,
            category_share=self._category_share,
        )
        return list(batches)


def _count_earlier(rows: np.ndarray) -> np.ndarray:
    """How often each of some row numbers (M,) stands before its position."""
    order = np.argsort(rows, kind="stable")
    positions = np.arange(len(rows))
    is_new = np.diff(rows[order], prepend=-1) != 0
    earlier = np.empty_like(positions)
    earlier[order] = positions - np.maximum.accumulate(np.where(is_new, positions, 0))
    return earlier


def check_batch(batch_size: int, images_per_class: int | None, world_size: int = 1) -> None:
    """Refuse a batch that cannot be made of whole classes, or that ranks cannot share evenly."""
    unit = math.lcm(images_per_class or 1, world_size)
    mend = f"Use a batch_size of {batch_size - batch_size % unit or unit}."
    if images_per_class is not None and batch_size % images_per_class:
        raise RecipeError(
            f"PK sampler: images_per_class must divide batch_size; got {images_per_class} and {batch_size}. {mend}"
        )
    if batch_size % world_size:
        raise RecipeError(f"sampler: world_size must divide batch_size; got {world_size} and {batch_size}. {mend}")


def _check_categories(categories: np.ndarray | None, class_count: int) -> None:
    if categories is not None and len(categories) < class_count:
        raise DataError(
            f"sampler: categories must be one code a class; got {len(categories)} for {class_count} classes."
        )
    codes = np.empty(0) if categories is None else categories[categories >= 0]
    if len(np.unique(codes)) == len(codes):
        raise DataError(
            "sampler: category_share needs classes that share a category; no two do. "
            "Ingest a source with a category tree, or set train.category_share=0."
        )
