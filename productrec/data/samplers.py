"""Samplers: which rows make up each batch of an epoch, from (seed, epoch) alone: a resume finds the same order."""

from collections.abc import Iterator, Sequence

import numpy as np

from productrec.errors import DataError, RecipeError

Batch = list[tuple[int, int]]


class EpochSampler:
    """Yields the batches of one epoch as lists of (epoch, row), from a given batch on.

    The epoch travels with the row because loader processes outlive an epoch and augmentation depends on it.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        batch_size: int,
        images_per_class: int | None,
        seed: int,
        hard_share: float = 0.0,
        weights: np.ndarray | None = None,
    ) -> None:
        """``labels``: (N,) class positions; ``images_per_class``: K for PK batches, None for shuffled ones.

        ``hard_share``: of a PK batch's classes, those drawn near its first, once ``near_classes`` (C, count) is set.
        ``weights``: (N,) from 0 to 1, the share of the epochs that each row takes part in; None for all of them. Any
        loss obeys such a weight, also one over pairs, and it keeps a doubtful image out of the others' pairs as well.

        Raises:
            RecipeError: K does not divide the batch.
            DataError: there is not one row, or the weights leave none.
        """
        check_batch(batch_size, images_per_class)
        if not len(labels):
            raise DataError("sampler: labels must hold at least one row; got none.")
        if weights is not None and not (len(weights) == len(labels) and (weights >= 0).all() and (weights <= 1).all()):
            raise DataError("sampler: weights must be one number from 0 to 1 a row.")
        if weights is not None and weights.sum() < 1:
            raise DataError("sampler: weights must leave at least one row an epoch; they sum to less than 1.")
        self._labels = labels
        self._weights = None if weights is None or (weights == 1).all() else weights.astype(np.float64)
        self.batch_size = batch_size
        self._images_per_class = images_per_class
        self._seed = seed
        self._hard_share = hard_share
        self.near_classes: np.ndarray | None = None
        self.epoch = 0
        self.first_batch = 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        count = len(self._labels) if self._weights is None else int(self._weights.sum() + 1e-9)
        return max(1, count // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        generator = np.random.default_rng([self._seed, self.epoch])
        present = None if self._weights is None else draw_present(self._weights, generator)
        labels = self._labels if present is None else self._labels[present]
        if self._images_per_class is None:
            batches: Sequence[np.ndarray] = draw_shuffled_batches(len(labels), self.batch_size, generator)
        else:
            batches = draw_pk_batches(
                labels,
                self.batch_size,
                self._images_per_class,
                generator,
                near_classes=self.near_classes,
                hard_share=self._hard_share,
            )
        for batch in batches[self.first_batch : len(self)]:
            yield [(self.epoch, int(row)) for row in (batch if present is None else present[batch])]


def check_batch(batch_size: int, images_per_class: int | None) -> None:
    """Refuse a batch that cannot be made of whole classes."""
    if images_per_class is not None and batch_size % images_per_class:
        raise RecipeError(
            f"PK sampler: images_per_class must divide batch_size; got {images_per_class} and {batch_size}. "
            f"Use a batch_size of {batch_size - batch_size % images_per_class or images_per_class}."
        )


def draw_present(weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows of one epoch, each there with the probability of its weight: a systematic sample of shuffled rows.

    Their count is the sum of the weights, rounded down or up.

    Args:
        weights: (N,) float64, from 0 to 1.
        generator: where randomness comes from.

    Returns:
        Row numbers, ascending, int64.
    """
    sure = np.flatnonzero(weights == 1)
    order = generator.permutation(np.flatnonzero((weights > 0) & (weights < 1)))
    # Marks stand at every whole number of the running sum, shifted by one draw: a row is there if it reaches one.
    reached = np.floor(np.cumsum(weights[order]) + generator.random())
    taken = np.diff(reached, prepend=0.0) > 0
    return np.sort(np.concatenate([sure, order[taken]]))


def draw_shuffled_batches(count: int, batch_size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Every row at most once, in random order, in full batches; fewer rows than a batch make one smaller batch."""
    order = generator.permutation(count)
    batches = max(1, count // batch_size)
    return [order[start * batch_size : (start + 1) * batch_size] for start in range(batches)]


def draw_pk_batches(
    labels: np.ndarray,
    batch_size: int,
    images_per_class: int,
    generator: np.random.Generator,
    *,
    near_classes: np.ndarray | None = None,
    hard_share: float = 0.0,
) -> list[np.ndarray]:
    """Batches of P distinct classes times K images (Hermans et al. 2017, arXiv 1703.07737), as many as fill an epoch.

    Each class's images are shuffled and dealt in groups of K (a class with fewer than K repeats some of its own); each
    batch draws P classes with probability proportional to the groups they have left, so that an epoch sees nearly every
    image once and no class twice in a batch. With fewer than P classes some stand in a batch twice.

    Args:
        labels: (N,) class positions.
        batch_size: P times K.
        images_per_class: K.
        generator: where randomness comes from.
        near_classes: (C, count) the class positions nearest to each, nearest first.
        hard_share: of a batch's classes, how many are the nearest to its first that have images left.

    Returns:
        N // batch_size arrays of batch_size rows, at least one.
    """
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    rows_of = np.split(order, starts[1:])
    groups: list[list[np.ndarray]] = [[] for _ in classes]
    wanted = batch_size // images_per_class
    left = np.array([-(-len(rows) // images_per_class) for rows in rows_of], dtype=np.float64)
    batches = []
    for _ in range(max(1, len(labels) // batch_size)):
        chosen: list[int] = []
        while len(chosen) < wanted:
            # Gumbel's trick: the largest keys are a draw without replacement, proportional to what is left.
            weights = left if (left > 0).sum() >= min(wanted, len(classes)) else left + 1e-6
            with np.errstate(divide="ignore"):
                keys = np.log(weights) + generator.gumbel(size=len(classes))
            drawn = np.argsort(-keys, kind="stable")
            if near_classes is not None and not chosen:
                near = near_classes[classes[drawn[0]]]
                near = np.searchsorted(classes, near[np.isin(near, classes)])
                near = near[left[near] > 0][: round(hard_share * (wanted - 1))]
                drawn = np.concatenate([drawn[:1], near, drawn[1:][~np.isin(drawn[1:], near)]])
            chosen += drawn[: wanted - len(chosen)].tolist()
        batch = []
        for number in chosen:
            if not groups[number]:
                groups[number] = _deal(rows_of[number], images_per_class, generator)
            batch.append(groups[number].pop())
            left[number] = max(left[number] - 1, 0.0)
        batches.append(np.concatenate(batch))
    return batches


def _deal(rows: np.ndarray, size: int, generator: np.random.Generator) -> list[np.ndarray]:
    shuffled = generator.permutation(rows)
    short = -len(rows) % size
    if short:
        # The last group is filled from the others, so that an image never stands beside itself where that can be.
        others = shuffled[: len(rows) // size * size] if len(rows) > size else rows
        shuffled = np.concatenate([shuffled, generator.choice(others, short, replace=len(others) < short)])
    return list(shuffled.reshape(-1, size))
