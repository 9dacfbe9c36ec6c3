"""Ranks of each query's positives among a gallery: exact, tile by tile, so that the whole matrix never exists.

A positive is another row of the query's class, every other row a negative. A positive's rank is its position among the
positives plus the number of negatives before it, so nothing is sorted but positives: a tile of similarities is
searched for its largest, and only rows with a negative before a positive that still counts are looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from productrec.metrics.rank_counts import RankCounts
from productrec.runtime import count_cores

# A tile is 4 MB. Narrow ones make it cheap to look at a row of one again. Flags of a row are summed eight at
# a time in bytes, so a tile may be 2,040 wide at most.
TILE_QUERIES, TILE_ROWS = 2048, 512
# Products are made of whole tiles, filled up with zeros to a multiple of this: at their edges BLAS libraries sum in
# another order, and equal rows would get similarities that differ in the last bit.
_WHOLE = 64
_MOST_PAIRS = 1 << 20  # pairs of query and positive held by a block
_PAIR_QUERIES = 256  # compared with their positives at a time: neighbours in a block share them


class RankedQueries(NamedTuple):
    """What is found for B queries that have P positives in all.

    ``queries``: (B,) rows of the queries; ``starts``: (B + 1,) where each one's positives begin and end; ``ranks``:
    (P,) from 1, ascending for a query; ``nearest``: (B,) gallery row that ranks first, -1 where there is none;
    ``similarities``: (B,) float32, its similarity.
    """

    queries: NDArray[np.int64]
    starts: NDArray[np.int64]
    ranks: NDArray[np.int64]
    nearest: NDArray[np.int64]
    similarities: NDArray[np.float32]


def rank_positives(
    queries: NDArray[np.float32],
    query_labels: NDArray[np.integer],
    gallery: NDArray[np.float32],
    gallery_labels: NDArray[np.integer],
    *,
    own_rows: NDArray[np.int64] | None = None,
    depth: int = 0,
    tile: tuple[int, int] = (TILE_QUERIES, TILE_ROWS),
    threads: int | None = None,
) -> Iterator[RankedQueries]:
    """Rank the positives of every query by similarity, descending; equal similarities rank by gallery row, lower first.

    A rank is exact where it is at most R, the number of the query's positives, or at most ``depth``, and that of a
    query's first positive always is. Of other positives it is only known to be beyond both.

    Time grows with Q x M, memory with the tile, the positives of a block of queries, and Q + M integers.

    Args:
        queries: (Q, D), finite.
        query_labels: (Q,).
        gallery: (M, D), finite; may be a memory map.
        gallery_labels: (M,).
        own_rows: (Q,) gallery row that is the query itself and is left out, -1 for none; None where none is.
        depth: ranks up to it are exact.
        tile: queries and gallery rows compared at a time, rounded up to multiples of 64, the second at most 1,984.
            Decides memory and time alone.
        threads: that work side by side; None for one a core.

    Yields:
        All queries, in blocks and in an order of their own.
    """
    work = _Work(queries, query_labels, gallery, gallery_labels, own_rows, depth, tile)
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(threads or count_cores()) as pool:
        yield from pool.map(partial(_rank_block, work), work.cut_blocks())


def count_positives(
    query_labels: NDArray[np.integer], gallery_labels: NDArray[np.integer], own_rows: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Positives (Q,) of each query; arguments as :func:`rank_positives`, a query's own row being of its label."""
    classes, counts = np.unique(gallery_labels, return_counts=True)
    positions = np.searchsorted(classes, query_labels).clip(max=len(classes) - 1)
    positives = np.where(classes[positions] == query_labels, counts[positions], 0).astype(np.int64)
    return positives if own_rows is None else positives - (own_rows >= 0)


class _Work:
    """What all blocks share: the arrays, and the gallery rows of each class."""

    def __init__(
        self,
        queries: NDArray[np.float32],
        query_labels: NDArray[np.integer],
        gallery: NDArray[np.float32],
        gallery_labels: NDArray[np.integer],
        own_rows: NDArray[np.int64] | None,
        depth: int,
        tile: tuple[int, int],
    ) -> None:
        self.queries, self.gallery = np.asarray(queries), np.asarray(gallery)
        self.own_rows, self.depth = own_rows, depth
        self.tile_queries, self.tile_rows = _fill_up(tile[0]), min(_fill_up(tile[1]), 1984)
        self.members = np.argsort(gallery_labels, kind="stable")
        ordered = gallery_labels[self.members]
        self.first_member = np.searchsorted(ordered, query_labels, side="left")
        self.member_count = np.searchsorted(ordered, query_labels, side="right") - self.first_member

    def cut_blocks(self) -> Iterator[NDArray[np.int64]]:
        """Queries of similar R and, among those, of one class lie together, so that their positives are few."""
        order = np.lexsort((self.first_member, self.member_count))
        ends = np.cumsum(self.member_count[order])
        start = 0
        while start < len(order):
            before = int(ends[start - 1]) if start else 0
            fitting = int(np.searchsorted(ends, before + _MOST_PAIRS, side="right"))
            stop = max(start + 1, min(start + self.tile_queries, fitting))
            yield order[start:stop]
            start = stop

    def list_pairs(self, block: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places in the block and gallery rows of all pairs of a query and a positive."""
        counts = self.member_count[block]
        owners = np.repeat(np.arange(len(block)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = self.members[np.repeat(self.first_member[block], counts) + within]
        if self.own_rows is not None:
            others = rows != self.own_rows[block][owners]
            owners, rows = owners[others], rows[others]
        return owners, rows


def _rank_block(work: _Work, block: NDArray[np.int64]) -> RankedQueries:
    count = len(block)
    asked = _pad(work.queries[block])
    owners, rows = work.list_pairs(block)
    own_rows = np.full(count, -1) if work.own_rows is None else work.own_rows[block]
    hidden = _Hidden(owners, rows, own_rows, np.arange(0, len(work.gallery) + work.tile_rows, work.tile_rows))
    block_ranks = RankCounts(count, owners, rows, _compare_pairs(work, asked, owners, rows), work.depth, work.tile_rows)
    every = np.arange(count)
    nearest, similarities = np.full(count, -1), np.full(count, -np.inf, np.float32)
    product = np.empty((len(asked), work.tile_rows), np.float32)
    next_review = 1
    for number, start in enumerate(range(0, len(work.gallery), work.tile_rows)):
        part = work.gallery[start : start + work.tile_rows]
        whole = _pad(part)
        if len(whole) != product.shape[1]:
            product = np.empty((len(asked), len(whole)), np.float32)
        np.matmul(asked, whole.T, out=product)
        negatives = product[:count]
        if len(part) < len(whole):
            negatives[:, len(part) :] = -np.inf
        negatives[hidden.find(number, start)] = -np.inf
        best = negatives.argmax(axis=1)
        highest = negatives[every, best]
        closer = highest > similarities  # not >=: of equal ones the earlier tile's ranks first
        np.copyto(similarities, highest, where=closer)
        np.copyto(nearest, best + start, where=closer)
        crowded = block_ranks.count(negatives, best, highest, start)
        if crowded or number + 1 == next_review:  # what is left to find halves with every doubling
            next_review = 2 * (number + 1)
            block_ranks.review()
    block_ranks.compare_first(nearest, similarities)
    return RankedQueries(block, block_ranks.starts, block_ranks.compute(), nearest, similarities)


def _compare_pairs(
    work: _Work, asked: NDArray[np.float32], owners: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Similarities (P,) of the pairs, bit for bit those of the tiles."""
    similarities = np.empty(len(rows), np.float32)
    for first in range(0, len(asked), _PAIR_QUERIES):
        span = slice(*np.searchsorted(owners, (first, first + _PAIR_QUERIES)))
        needed, columns = np.unique(rows[span], return_inverse=True)
        for start in range(0, len(needed), work.tile_rows):
            part = _pad(work.gallery[needed[start : start + work.tile_rows]])
            product = asked[first : first + _PAIR_QUERIES] @ part.T
            chosen = ((columns >= start) & (columns < start + work.tile_rows)).nonzero()[0]
            similarities[span][chosen] = product[owners[span][chosen] - first, columns[chosen] - start]
    return similarities + np.float32(0.0)  # turns -0.0 into 0.0, its equal


def _fill_up(count: int) -> int:
    return -(-count // _WHOLE) * _WHOLE


def _pad(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """``rows`` and below them zeros, up to a whole tile; no copy where it is whole already."""
    wanted = _fill_up(len(rows))
    if wanted == len(rows) and rows.flags.c_contiguous:
        return rows
    padded = np.zeros((wanted, rows.shape[1]), np.float32)
    padded[: len(rows)] = rows
    return padded


class _Hidden:
    """Entries of the block's similarities that are no negatives: positives and the queries themselves."""

    def __init__(
        self,
        owners: NDArray[np.int64],
        rows: NDArray[np.int64],
        own_rows: NDArray[np.int64],
        tile_starts: NDArray[np.int64],
    ) -> None:
        with_own = np.flatnonzero(own_rows >= 0)
        all_rows = np.concatenate([rows, own_rows[with_own]])
        order = np.argsort(all_rows, kind="stable")
        self._rows = all_rows[order]
        self._owners = np.concatenate([owners, with_own])[order]
        self._edges = np.searchsorted(self._rows, tile_starts).tolist()

    def find(self, tile: int, start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places and columns of those in a tile, whose first column is gallery row ``start``."""
        first, last = self._edges[tile], self._edges[tile + 1]
        return self._owners[first:last], self._rows[first:last] - start
