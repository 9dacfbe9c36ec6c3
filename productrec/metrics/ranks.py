"""Ranks of each query's positives among a gallery: exact, tile by tile, so that the whole matrix never exists.

A positive is another row of the query's class, every other row a negative. A positive's rank is its place among the
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

from productrec.runtime import count_cores

# A tile is 4 MB. Narrow ones make it cheap to look at a row of one again. Flags of a row are summed eight at
# a time in bytes, so a tile may be 2,040 wide at most.
TILE_QUERIES, TILE_ROWS = 2048, 512
# Products are made of whole tiles, filled up with zeros to a multiple of this: at their edges BLAS libraries sum in
# another order, and equal rows would get similarities that differ in the last bit.
_WHOLE = 64
_MOST_PAIRS = 1 << 20  # pairs of query and positive held by a block
_PAIR_QUERIES = 256  # compared with their positives at a time: neighbours in a block share them
_ROUNDS = 3  # negatives of a row that are looked for one by one before all are looked at,
_FEW = 16  # where no more ranks than this are wanted of a query


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
    places = np.searchsorted(classes, query_labels).clip(max=len(classes) - 1)
    positives = np.where(classes[places] == query_labels, counts[places], 0).astype(np.int64)
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
        places = np.repeat(np.arange(len(block)), counts)
        within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = self.members[np.repeat(self.first_member[block], counts) + within]
        if self.own_rows is not None:
            others = rows != self.own_rows[block][places]
            places, rows = places[others], rows[others]
        return places, rows


def _rank_block(work: _Work, block: NDArray[np.int64]) -> RankedQueries:
    count = len(block)
    asked = _pad(work.queries[block])
    places, rows = work.list_pairs(block)
    own_rows = np.full(count, -1) if work.own_rows is None else work.own_rows[block]
    hidden = _Hidden(places, rows, own_rows, np.arange(0, len(work.gallery) + work.tile_rows, work.tile_rows))
    block_ranks = _Ranks(count, places, rows, _compare_pairs(work, asked, places, rows), work.depth, work.tile_rows)
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
    work: _Work, asked: NDArray[np.float32], places: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Similarities (P,) of the pairs, bit for bit those of the tiles."""
    similarities = np.empty(len(rows), np.float32)
    for first in range(0, len(asked), _PAIR_QUERIES):
        span = slice(*np.searchsorted(places, (first, first + _PAIR_QUERIES)))
        needed, columns = np.unique(rows[span], return_inverse=True)
        for start in range(0, len(needed), work.tile_rows):
            part = _pad(work.gallery[needed[start : start + work.tile_rows]])
            product = asked[first : first + _PAIR_QUERIES] @ part.T
            chosen = ((columns >= start) & (columns < start + work.tile_rows)).nonzero()[0]
            similarities[span][chosen] = product[places[span][chosen] - first, columns[chosen] - start]
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
        places: NDArray[np.int64],
        rows: NDArray[np.int64],
        own_rows: NDArray[np.int64],
        tile_starts: NDArray[np.int64],
    ) -> None:
        with_own = np.flatnonzero(own_rows >= 0)
        all_rows = np.concatenate([rows, own_rows[with_own]])
        order = np.argsort(all_rows, kind="stable")
        self._rows = all_rows[order]
        self._places = np.concatenate([places, with_own])[order]
        self._edges = np.searchsorted(self._rows, tile_starts).tolist()

    def find(self, tile: int, start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places and columns of those in a tile, whose first column is gallery row ``start``."""
        first, last = self._edges[tile], self._edges[tile + 1]
        return self._places[first:last], self._rows[first:last] - start


class _Ranks:
    """Counts, for each positive of a block, the negatives that rank before it, as tile after tile is shown.

    A query's positives stand in order of rank. ``live`` of them can still have a rank that is wanted; the lowest live
    one's similarity is the query's floor: what is below cannot move any of them.
    """

    def __init__(
        self,
        count: int,
        places: NDArray[np.int64],
        rows: NDArray[np.int64],
        similarities: NDArray[np.float32],
        depth: int,
        tile_rows: int,
    ) -> None:
        self._buffer, self._flags = np.empty(count * tile_rows, np.float32), np.empty(count * tile_rows, bool)
        keys = _make_keys(places, similarities)
        order = np.argsort(keys, kind="stable")  # of equals the lower row stays first, as the pairs are listed
        self.places, self.rows, self.similarities = places[order], rows[order], similarities[order]
        sizes = np.bincount(self.places, minlength=count)
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self._sizes, self._wanted = sizes, np.maximum(sizes, depth)
        self._asked = np.flatnonzero(sizes)
        # Bin p + q of query q counts the negatives between its positives p - 1 and p; it has one more than positives.
        self._between = np.zeros(len(self.rows) + count, np.int64)
        self._first_bin = self.starts[:-1] + np.arange(count)
        self._keys = keys[order]
        tie = np.concatenate([[False], self._keys[1:] == self._keys[:-1]]) if len(rows) else np.zeros(0, bool)
        self._groups = np.cumsum(~tie)
        self._stride = int(np.iinfo(np.int64).max // (len(self.rows) + 2))  # above any row of a gallery
        self._tie_keys = self._groups * self._stride + self.rows
        self._low = _Floor(count)
        self._first = _Floor(count)
        self._first.set(self._asked, self, self.starts[self._asked])
        self._live = sizes.copy()
        self._set_floors()

    def _set_floors(self) -> None:
        self._low.set(self._asked, self, (self.starts[:-1] + self._live - 1)[self._asked])

    def count(
        self, negatives: NDArray[np.float32], best: NDArray[np.int64], highest: NDArray[np.float32], start: int
    ) -> bool:
        """Look at a tile of negatives (B, T), which is used up.

        Args:
            negatives: similarities; the first column is gallery row ``start``.
            best: (B,) column of each row's largest.
            highest: (B,) what is there.
            start: see above.

        Returns:
            Whether floors were far too low, so that a review is worth its time.
        """
        floor = self._low.get(start)
        hit = (highest >= floor).nonzero()[0]
        if not len(hit):
            return False
        alone = self._live[hit] == 1  # then it is enough to count
        counted = hit[alone]
        if len(counted):
            bounds = floor[counted]
            if 3 * len(counted) > 2 * len(negatives):  # then looking at all is cheaper than taking out most
                counted = np.arange(len(negatives))
                bounds = np.where(self._live == 1, floor, np.float32(np.inf))
            few = self._take(negatives, counted)
            flags = self._flag(few, bounds)
            self._low.unflag_later(flags, few, counted, start)
            self._between[self._first_bin[counted]] += _count_flags(flags)
            hit = hit[~alone]
        # Few rows have more than one or two: their largest is taken out, and the next one looked for.
        for _ in range(_ROUNDS if self._wanted[hit].max(initial=0) <= _FEW else 0):
            if not len(hit):
                return False
            columns = best[hit]
            self._place(hit, columns, highest[hit], start)
            negatives[hit, columns] = -np.inf
            few = self._take(negatives, hit)
            best[hit] = few.argmax(axis=1)
            highest[hit] = few[np.arange(len(hit)), best[hit]]
            hit = hit[highest[hit] >= floor[hit]]
        return len(hit) > 0 and self._count_many(self._take(negatives, hit), hit, floor[hit], start)

    def _count_many(
        self, few: NDArray[np.float32], hit: NDArray[np.int64], floor: NDArray[np.float32], start: int
    ) -> bool:
        """The same for rows (H, T) of many negatives above their floors (H,)."""
        flags = self._flag(few, floor)
        most = int(self._wanted[hit].max())
        crowded = np.flatnonzero(_count_flags(flags) > most)
        if len(crowded):
            # More than it can use: the last useful negative of this tile is a better floor.
            useful = np.partition(few[crowded], few.shape[1] - most, axis=1)[:, few.shape[1] - most]
            hopeless = crowded[useful > self._first.similarities[hit[crowded]]]
            flags[crowded] &= few[crowded] >= useful[:, None]
            # Only the first positive's rank is wanted of these.
            lost = few[hopeless] >= self._first.get(start)[hit[hopeless], None]
            self._first.unflag_later(lost, few[hopeless], hit[hopeless], start)
            self._live[hit[hopeless]] = 1
            self._between[self._first_bin[hit[hopeless]]] += _count_flags(lost)
            flags[hopeless] = False
        words = flags.view(np.uint64).ravel().nonzero()[0]  # most are empty: eight flags are looked at as one
        inner = flags.reshape(-1, 8)[words].ravel().nonzero()[0]
        lines, columns = np.divmod(words[inner >> 3] * 8 + (inner & 7), few.shape[1])
        self._place(hit[lines], columns, few[lines, columns], start)
        return len(crowded) > 0

    def _take(self, negatives: NDArray[np.float32], queries: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows of a tile, all of them as they are, others in a buffer: new memory would cost more than the copy."""
        if len(queries) == len(negatives):
            return negatives
        buffer = self._buffer[: len(queries) * negatives.shape[1]].reshape(len(queries), -1)
        return np.take(negatives, queries, axis=0, out=buffer, mode="clip")

    def _flag(self, few: NDArray[np.float32], floor: NDArray[np.float32]) -> NDArray[np.bool_]:
        flags = self._flags[: few.size].reshape(few.shape)
        return np.greater_equal(few, floor[:, None], out=flags)

    def _place(
        self, places: NDArray[np.int64], columns: NDArray[np.int64], similarities: NDArray[np.float32], start: int
    ) -> None:
        """Count negatives, each between the two positives of its query that it stands between."""
        keys = _make_keys(places, similarities + np.float32(0.0))
        before = np.searchsorted(self._keys, keys, side="left")
        tied = (self._keys[np.minimum(before, len(self._keys) - 1)] == keys).nonzero()[0]
        if len(tied):
            group = self._groups[before[tied]]
            before[tied] = np.searchsorted(self._tie_keys, group * self._stride + columns[tied] + start)
        np.add.at(self._between, before + places, 1)

    def review(self) -> None:
        """Give up positives whose rank is beyond what is wanted, which raises floors."""
        alive = self.compute() <= self._wanted[self.places]
        self._live = np.minimum(np.maximum(np.bincount(self.places[alive], minlength=len(self._live)), 1), self._live)
        self._set_floors()

    def compute(self) -> NDArray[np.int64]:
        """Ranks (P,) as far as tiles were shown."""
        counted = np.cumsum(self._between)
        own = counted[np.arange(len(self.rows)) + self.places]
        earlier = (counted - self._between)[self._first_bin[self.places]]
        ranks: NDArray[np.int64] = own - earlier + np.arange(1, len(self.rows) + 1) - self.starts[self.places]
        return ranks

    def compare_first(self, nearest: NDArray[np.int64], similarities: NDArray[np.float32]) -> None:
        """Turn the nearest negatives (B,) and their similarities into the nearest rows, where that is a positive."""
        own, rows = self._first.similarities, self._first.rows
        closer = np.zeros(len(nearest), bool)
        asked = self._asked
        closer[asked] = (own[asked] > similarities[asked]) | (
            (own[asked] == similarities[asked]) & (rows[asked] < nearest[asked])
        )
        np.copyto(nearest, rows, where=closer)
        np.copyto(similarities, own, where=closer)


class _Floor:
    """A positive of each query: negatives that rank before it are looked for. Infinite for queries without any."""

    def __init__(self, count: int) -> None:
        self.similarities = np.full(count, np.inf, np.float32)
        self.rows = np.full(count, -1)
        self._above = self.similarities.copy()

    def set(self, queries: NDArray[np.int64], ranks: _Ranks, pairs: NDArray[np.int64]) -> None:
        self.similarities[queries], self.rows[queries] = ranks.similarities[pairs], ranks.rows[pairs]
        self._above[queries] = np.nextafter(self.similarities[queries], np.float32(np.inf))

    def get(self, start: int) -> NDArray[np.float32]:
        """What a negative in gallery rows from ``start`` on must reach: an equal one counts in a lower row alone."""
        return np.where(self.rows > start, self.similarities, self._above)

    def unflag_later(
        self, flags: NDArray[np.bool_], few: NDArray[np.float32], queries: NDArray[np.int64], start: int
    ) -> None:
        """Where the positive stands in this tile, take the flags off equal negatives (H, T) in later columns."""
        columns = self.rows[queries] - start
        across = ((columns > 0) & (columns < few.shape[1])).nonzero()[0]
        if len(across):
            equal = few[across] == self.similarities[queries[across], None]
            equal &= np.arange(few.shape[1]) > columns[across, None]
            flags[across] &= ~equal


def _count_flags(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Flags set in each row (H, T), T a multiple of 8 and at most 2,040: a byte of a sum of words never overflows."""
    sums = flags.view(np.uint64).sum(axis=1, keepdims=True).view(np.uint8)
    counts: NDArray[np.int64] = sums.sum(axis=1, dtype=np.int64)
    return counts


def _make_keys(places: NDArray[np.int64], similarities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Integers in the order of place, then similarity descending; the similarities must hold no -0.0."""
    bits = similarities.view(np.int32)
    ordered = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
    return (places << 32) - ordered
