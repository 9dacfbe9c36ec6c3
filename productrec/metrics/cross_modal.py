"""Cross-modal retrieval: whether an image's nearest titles are its own, and a title's nearest images."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from productrec.errors import DataError
from productrec.metrics.ranks import TILE_QUERIES, TILE_ROWS, rank_positives
from productrec.metrics.retrieval import check_embeddings

CUTOFFS = (1, 5, 10)
IMAGE_TO_TITLE, TITLE_TO_IMAGE = "image_to_title", "title_to_image"
_WHERE = "cross-modal retrieval"
_NO_TITLE, _NO_IMAGE = -2, -1  # labels of what has no positive: one of either side, so that they are none to each other
_MOST_QUERIES = 1 << 15  # copied at a time


@dataclass(frozen=True)
class CrossModal:
    """What retrieval gave each of N images and T titles; :meth:`measure` sums it up.

    ``image_ranks``: (N,) rank of the first of an image's own titles among all titles, from 1, 0 where it has none;
    ``title_ranks``: (T,) rank of the first of a title's own images among all images, 0 where it has none; ``owners``:
    (T,) row of each title's image, -1 for none.
    """

    image_ranks: NDArray[np.int64]
    title_ranks: NDArray[np.int64]
    owners: NDArray[np.int64]

    @property
    def count(self) -> int:
        """N, how many images there are to draw from for intervals."""
        return len(self.image_ranks)

    def measure(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """Sum up what was found, over the images and titles that have something to find.

        Of each direction, ``image_to_title_`` and ``title_to_image_``: ``recall@1``, ``recall@5`` and ``recall@10``,
        shares in [0, 1]; ``median_rank``, of an even number the mean of both middle ones rounded down, as VSE++ has it;
        ``mean_rank``. And ``recall_sum``, of all six recalls (0 to 6).

        Args:
            weights: (N,) how often each image counts, and each of its titles with it; None for once each. Whole
                numbers, as `compute_intervals` draws.

        Returns:
            All figures by name; NaN where nothing counts.
        """
        times = np.ones(self.count) if weights is None else weights
        figures = _measure(IMAGE_TO_TITLE, self._images, times) | _measure(
            TITLE_TO_IMAGE, self._titles, times[self.owners]
        )
        return figures | {"recall_sum": sum(value for name, value in figures.items() if "_recall@" in name)}

    @cached_property
    def _images(self) -> _Ranked:
        return _sort(self.image_ranks, self.image_ranks > 0)

    @cached_property
    def _titles(self) -> _Ranked:
        return _sort(self.title_ranks, (self.title_ranks > 0) & (self.owners >= 0))


@dataclass(frozen=True)
class CrossModalFolds:
    """Retrieval within each of several folds of images and their titles; ``left_out``: images that fill no fold."""

    parts: tuple[CrossModal, ...]
    left_out: int

    @property
    def count(self) -> int:
        """Images in all folds, to draw from for intervals."""
        return sum(part.count for part in self.parts)

    def measure(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """Means over folds of what `CrossModal.measure` gives; ``weights`` (N,) of the images in all folds."""
        times = np.ones(self.count) if weights is None else weights
        starts = np.cumsum([part.count for part in self.parts])[:-1]
        measured = [part.measure(own) for part, own in zip(self.parts, np.split(times, starts), strict=True)]
        return {name: float(np.mean([figures[name] for figures in measured])) for name in measured[0]}


def compute_cross_modal(
    images: NDArray[Any],
    titles: NDArray[Any],
    owners: NDArray[Any],
    *,
    title_groups: NDArray[Any] | None = None,
    tile: tuple[int, int] = (TILE_QUERIES, TILE_ROWS),
    threads: int | None = None,
) -> CrossModal:
    """Exact retrieval of titles by images and of images by titles: the full protocol.

    An image with several titles has found its own where the best of them stands (Faghri et al. 2018, VSE++, arXiv
    1707.05612). Equal similarities rank by row, lower first, whoever they are of: an embedding that tells nothing
    apart gets what chance would give, and nobody gains by ties. Time grows with N x T, memory is that of
    `rank_positives`.

    Args:
        images: (N, D) float32, unit rows (other floats are converted).
        titles: (T, D), as the images.
        owners: (T,) integers, row of the image that each title is of; -1 for a title without an image, which is found
            but does not ask.
        title_groups: (T,) integers, alike for titles that are equal (`group_equal_titles`): a title is then also a
            right answer for every image that has one equal to it, and such an image for it. None: each title is its
            own image's alone, as published figures have it.
        tile: decides memory and time alone.
        threads: None for one a core.

    Raises:
        DataError: shapes do not fit, a row is not finite or not of unit length, or an owner is no image's row.
    """
    rows, queries, owners, groups = _check(images, titles, owners, title_groups)
    relation = _relate(owners, groups, len(rows))
    options: dict[str, Any] = {"tile": tile, "threads": threads}
    image_ranks, title_ranks = np.zeros(len(rows), np.int64), np.zeros(len(queries), np.int64)
    _rank_first(image_ranks, rows, queries, relation.by_image(groups), options)
    _rank_first(title_ranks, queries, rows, relation.by_title(groups, owners), options)
    return CrossModal(image_ranks, title_ranks, owners)


def compute_cross_modal_folds(
    images: NDArray[Any],
    titles: NDArray[Any],
    owners: NDArray[Any],
    *,
    fold_images: int = 1000,
    title_groups: NDArray[Any] | None = None,
    tile: tuple[int, int] = (TILE_QUERIES, TILE_ROWS),
    threads: int | None = None,
) -> CrossModalFolds:
    """Retrieval within folds of ``fold_images`` images, in the order they come in, and the titles of these.

    Of MS-COCO's 5,000 test images this is the protocol "1K", a mean over 5 folds (VSE++, section 4). Images that fill
    no whole fold are left out. Arguments as `compute_cross_modal`.

    Raises:
        DataError: as `compute_cross_modal`, or there are fewer than ``fold_images``.
    """
    rows, queries, owners, groups = _check(images, titles, owners, title_groups)
    if not 1 <= fold_images <= len(rows):
        raise DataError(
            f"{_WHERE}: fold_images must be from 1 to {len(rows)}, the images at hand; got {fold_images}. "
            "Take the full protocol for a smaller set."
        )
    parts = []
    for start in range(0, len(rows) - fold_images + 1, fold_images):
        own = np.flatnonzero((owners >= start) & (owners < start + fold_images))
        if not len(own):
            raise DataError(
                f"{_WHERE}: every fold must have titles; got none of images {start} to {start + fold_images - 1}. "
                "Leave images without a title out."
            )
        parts.append(
            compute_cross_modal(
                rows[start : start + fold_images],
                queries[own],
                owners[own] - start,
                title_groups=groups[own],
                tile=tile,
                threads=threads,
            )
        )
    return CrossModalFolds(tuple(parts), len(rows) - fold_images * len(parts))


def group_equal_titles(titles: Sequence[str]) -> NDArray[np.int64]:
    """(T,) a number for each title, alike for equal ones: letter by letter, in Unicode's normal form NFC."""
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(unicodedata.normalize("NFC", title), len(numbers)) for title in titles], dtype=np.int64
    )


class _Ranked(NamedTuple):
    """Ranks of those that count, ascending, and the rows (N,) they are of."""

    ranks: NDArray[np.int64]
    rows: NDArray[np.int64]


def _sort(ranks: NDArray[np.int64], counted: NDArray[np.bool_]) -> _Ranked:
    rows = np.flatnonzero(counted)
    order = np.argsort(ranks[rows], kind="stable")
    return _Ranked(ranks[rows][order], rows[order])


def _measure(direction: str, ranked: _Ranked, times: NDArray[np.float64]) -> dict[str, float]:
    weights = times[ranked.rows]
    names = [*(f"recall@{k}" for k in CUTOFFS), "median_rank", "mean_rank"]
    sums = np.cumsum(weights)
    total = float(sums[-1]) if len(sums) else 0.0
    if total == 0:
        return {f"{direction}_{name}": float("nan") for name in names}
    recalls = [float(weights @ (ranked.ranks <= k)) / total for k in CUTOFFS]
    # The middle ones of the ranks, each repeated as often as it counts.
    middle = ranked.ranks[np.searchsorted(sums, [(total - 1) // 2, total // 2], side="right")]
    values = [*recalls, float(middle.sum() // 2), float(weights @ ranked.ranks) / total]
    return {f"{direction}_{name}": value for name, value in zip(names, values, strict=True)}


class _Queries(NamedTuple):
    """Queries of one direction: ``rows`` (Q,) of what asks, maybe several times; labels (Q,); those of the gallery."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    gallery_labels: NDArray[np.int64]


class _Relation:
    """Which images and groups of titles belong together: pairs (P,) of both, each once.

    Positives are then those of one label wherever every image of a block of connected images and groups has every
    group of it, as where no title is shared by several images. What is left asks once for each of its positives'
    labels: the best of those ranks is that of the first positive, since before that one there are negatives alone.
    """

    def __init__(self, images: NDArray[np.int64], groups: NDArray[np.int64], image_count: int, group_count: int):
        self.images, self.groups = images, groups
        size = image_count + group_count
        edges = coo_array((np.ones(len(images), np.int8), (images, image_count + groups)), shape=(size, size))
        _, blocks = connected_components(edges, directed=False)
        image_blocks, group_blocks = blocks[:image_count].astype(np.int64), blocks[image_count:].astype(np.int64)
        of_images, of_groups = (np.bincount(some, minlength=size) for some in (image_blocks, group_blocks))
        is_whole = of_images * of_groups == np.bincount(image_blocks[images], minlength=size)
        self.is_whole_image, self.is_whole_group = is_whole[image_blocks], is_whole[group_blocks]
        self.image_labels = np.where(of_groups[image_blocks] > 0, image_blocks, _NO_TITLE)
        self.group_labels = np.where(of_images[group_blocks] > 0, group_blocks, _NO_IMAGE)

    def by_image(self, groups: NDArray[np.int64]) -> Iterator[_Queries]:
        """Queries of images for titles of ``groups`` (T,)."""
        whole = np.flatnonzero(self.is_whole_image)
        yield _Queries(whole, self.image_labels[whole], self.group_labels[groups])
        rest = ~self.is_whole_image[self.images]
        yield _Queries(self.images[rest], self.groups[rest], groups)

    def by_title(self, groups: NDArray[np.int64], owners: NDArray[np.int64]) -> Iterator[_Queries]:
        """Queries of titles of ``groups`` (T,) for images; those without an image do not ask."""
        asking = np.flatnonzero(owners >= 0)
        is_whole = self.is_whole_group[groups[asking]]
        whole = asking[is_whole]
        yield _Queries(whole, self.group_labels[groups[whole]], self.image_labels)
        rest = asking[~is_whole]
        order = np.argsort(self.groups, kind="stable")
        first, last = (np.searchsorted(self.groups[order], groups[rest], side=side) for side in ("left", "right"))
        counts = last - first
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        answers = self.images[order[np.repeat(first, counts) + within]]
        yield _Queries(np.repeat(rest, counts), answers, np.arange(len(self.image_labels)))


def _relate(owners: NDArray[np.int64], groups: NDArray[np.int64], image_count: int) -> _Relation:
    owned = owners >= 0
    pairs = np.unique(np.stack([owners[owned], groups[owned]]), axis=1)
    return _Relation(pairs[0], pairs[1], image_count, int(groups.max()) + 1)


def _rank_first(
    ranks: NDArray[np.int64],
    asking: NDArray[np.float32],
    gallery: NDArray[np.float32],
    parts: Iterator[_Queries],
    options: dict[str, Any],
) -> None:
    """Fill in the rank of each asking row's first positive; rows that have none keep 0."""
    best = np.full(len(ranks), np.iinfo(np.int64).max)
    for queries in parts:
        for start in range(0, len(queries.rows), _MOST_QUERIES):
            rows, labels = (some[start : start + _MOST_QUERIES] for some in queries[:2])
            for part in rank_positives(asking[rows], labels, gallery, queries.gallery_labels, **options):
                found = np.diff(part.starts) > 0
                np.minimum.at(best, rows[part.queries[found]], part.ranks[part.starts[:-1][found]])
    np.copyto(ranks, best, where=best < np.iinfo(np.int64).max)


def _check(
    images: NDArray[Any], titles: NDArray[Any], owners: NDArray[Any], title_groups: NDArray[Any] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    rows = check_embeddings(f"{_WHERE}, images", images, np.arange(len(images)))
    queries = check_embeddings(f"{_WHERE}, titles", titles, owners)
    if rows.shape[1] != queries.shape[1]:
        raise DataError(
            f"{_WHERE}: images and titles must be of one width; got {rows.shape[1]} and {queries.shape[1]}. "
            "Embed both by one run."
        )
    if not (owners.min() >= -1 and owners.max() < len(rows)):
        raise DataError(
            f"{_WHERE}: owners must be rows of the {len(rows)} images, or -1; got {owners.min()} to {owners.max()}. "
            "Count images from 0."
        )
    groups = np.arange(len(queries)) if title_groups is None else title_groups
    if groups.shape != owners.shape or not np.issubdtype(groups.dtype, np.integer):
        raise DataError(
            f"{_WHERE}: title_groups must be {len(owners)} integers, one a title; got shape {groups.shape} of "
            f"{groups.dtype}. Take group_equal_titles."
        )
    numbers = np.unique(groups, return_inverse=True)[1]
    return rows, queries, owners.astype(np.int64), numbers.astype(np.int64)
