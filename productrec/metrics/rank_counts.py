"""Counts of the negatives that rank before each positive, as the tiles of `metrics.ranks` are shown one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 3  # negatives of a row that are looked for one by one before all are looked at,
_FEW = 16  # where no more ranks than this are wanted of a query


class RankCounts:
    """Counts, for each positive of a block, the negatives that rank before it, as tile after tile is shown.

    ``owners`` and ``rows`` (P,): of each positive, its query's position in the block, and its own gallery row.

    A query's positives stand in order of rank. ``live`` of them can still have a rank that is wanted; the lowest live
    one's similarity is the query's floor: what is below cannot move any of them.
    """

    def __init__(
        self,
        count: int,
        owners: NDArray[np.int64],
        rows: NDArray[np.int64],
        similarities: NDArray[np.float32],
        depth: int,
        tile_rows: int,
    ) -> None:
        self._buffer, self._flags = np.empty(count * tile_rows, np.float32), np.empty(count * tile_rows, bool)
        keys = _make_keys(owners, similarities)
        order = np.argsort(keys, kind="stable")  # of equals the lower row stays first, as the pairs are listed
        self.owners, self.rows, self.similarities = owners[order], rows[order], similarities[order]
        sizes = np.bincount(self.owners, minlength=count)
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
        self, owners: NDArray[np.int64], columns: NDArray[np.int64], similarities: NDArray[np.float32], start: int
    ) -> None:
        """Count negatives, each between the two positives of its query that it stands between."""
        keys = _make_keys(owners, similarities + np.float32(0.0))
        before = np.searchsorted(self._keys, keys, side="left")
        tied = (self._keys[np.minimum(before, len(self._keys) - 1)] == keys).nonzero()[0]
        if len(tied):
            group = self._groups[before[tied]]
            before[tied] = np.searchsorted(self._tie_keys, group * self._stride + columns[tied] + start)
        np.add.at(self._between, before + owners, 1)

    def review(self) -> None:
        """Give up positives whose rank is beyond what is wanted, which raises floors."""
        alive = self.compute() <= self._wanted[self.owners]
        self._live = np.minimum(np.maximum(np.bincount(self.owners[alive], minlength=len(self._live)), 1), self._live)
        self._set_floors()

    def compute(self) -> NDArray[np.int64]:
        """Ranks (P,) as far as tiles were shown."""
        counted = np.cumsum(self._between)
        own = counted[np.arange(len(self.rows)) + self.owners]
        earlier = (counted - self._between)[self._first_bin[self.owners]]
        ranks: NDArray[np.int64] = own - earlier + np.arange(1, len(self.rows) + 1) - self.starts[self.owners]
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

    def set(self, queries: NDArray[np.int64], counts: RankCounts, pairs: NDArray[np.int64]) -> None:
        self.similarities[queries], self.rows[queries] = counts.similarities[pairs], counts.rows[pairs]
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


def _make_keys(owners: NDArray[np.int64], similarities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Integers in the order of owner, then similarity descending; the similarities must hold no -0.0."""
    bits = similarities.view(np.int32)
    ordered = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
    return (owners << 32) - ordered
