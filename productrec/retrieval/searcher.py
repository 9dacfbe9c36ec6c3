"""The searcher: exact rows, and perhaps a structure that finds most of the nearest without looking at all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from productrec.retrieval.blocks import CheckedBlocks
from productrec.retrieval.engine import (
    Found,
    Kind,
    fits_gpu,
    get_rows,
    is_graph,
    list_candidates,
    move_to_gpu,
    refine,
    search_flat,
    search_graph,
)

_LEAST_CANDIDATES = 64
_QUERIES_AT_A_TIME = 4096
_NUMBER_BYTES = 4


class Effort(NamedTuple):
    """How hard a structure looks.

    ``lists``: that an inverted file looks into, or a graph's open candidates; ``candidates``: of an inverted file that
    are compared exactly, for each neighbour that is asked for.
    """

    lists: int
    candidates: int = 8

    def count_candidates(self, k: int) -> int:
        """Candidates for ``k`` neighbours."""
        return max(_LEAST_CANDIDATES, k * self.candidates)


class Searcher:
    """The most similar of M rows, by inner product; blocks of its file are checked before they are used."""

    def __init__(
        self,
        flat: Any,
        *,
        kind: Kind = "exact",
        structure: Any = None,
        effort: Effort = Effort(0),  # noqa: B008
        blocks: CheckedBlocks | None = None,
        header_bytes: int = 0,
        use_gpu: bool = True,
    ) -> None:
        """A searcher over an exact engine.

        Args:
            flat: of `productrec.retrieval.engine`, M rows of D numbers.
            kind: of the structure.
            structure: over the same rows; None for exact search.
            effort: of the structure.
            blocks: of the file that ``flat`` is mapped from; None where that is in memory, or was checked.
            header_bytes: before the first row in that file.
            use_gpu: search exactly on a GPU where there is one that passes a probe, whatever the kind.
        """
        self.kind: Kind = kind
        self.effort = effort
        self.flat, self._structure, self._blocks, self._header_bytes = flat, structure, blocks, header_bytes
        self._gpu = None
        if use_gpu and (moved := move_to_gpu(flat)) is not flat:
            self._check_all()
            self._gpu = moved

    @property
    def rows(self) -> int:
        """M."""
        return int(self.flat.ntotal)

    @property
    def dim(self) -> int:
        """D."""
        return int(self.flat.d)

    def get_embeddings(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Embeddings (M, D) float32, checked, as they lie in the map, to read only; or a copy of some rows (N, D)."""
        if rows is None:
            self._check_all()
            return get_rows(self.flat)
        self._check(rows)
        return np.array(get_rows(self.flat)[rows])

    def search(
        self, queries: np.ndarray, k: int, *, alive: np.ndarray | None = None, effort: Effort | None = None
    ) -> Found:
        """The ``k`` most similar rows of each query.

        A structure may miss some of them, but every place is filled: a query that it finds too few rows for is
        searched exactly.

        Args:
            queries: (Q, D) float32.
            k: at most the number of rows that may be found.
            alive: (M,) bool, the rows that may be found; None for all.
            effort: of the structure; None for its own.

        Raises:
            ArtifactError: a block of the file that the search touched is damaged.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if not k:
            return Found(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
        parts = [
            self._search(queries[start : start + _QUERIES_AT_A_TIME], k, alive, effort or self.effort)
            for start in range(0, len(queries), _QUERIES_AT_A_TIME)
        ]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return Found(np.empty((0, k), np.float32), np.empty((0, k), np.int64))
        return Found(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _search(self, queries: np.ndarray, k: int, alive: np.ndarray | None, effort: Effort) -> Found:
        if alive is None:
            found = self._search_quickly(queries, k, effort)
        else:
            dead = self.rows - int(alive.sum())
            found = _leave_out(self._search_quickly(queries, min(self.rows, k + min(dead, k)), effort), alive, k)
        short = np.flatnonzero(found.rows[:, k - 1] < 0)
        if len(short):
            self._check_all()
            similarities, rows = search_flat(self.flat, np.ascontiguousarray(queries[short]), k, alive=alive)
            found.similarities[short], found.rows[short] = similarities, rows
        return found

    def _search_quickly(self, queries: np.ndarray, k: int, effort: Effort) -> Found:
        if self._gpu is not None and fits_gpu(k):
            return search_flat(self._gpu, queries, k)
        count = effort.count_candidates(k)
        if self._structure is None or count >= self.rows:
            self._check_all()
            return search_flat(self.flat, queries, k)
        if is_graph(self._structure):
            self._check_all()
            return search_graph(self._structure, queries, k, effort.lists)
        candidates = list_candidates(self._structure, queries, count, effort.lists)
        self._check(candidates)
        return refine(self.flat, queries, candidates, k)

    def _check(self, rows: np.ndarray) -> None:
        if self._blocks is not None and not self._blocks.is_complete:
            row_bytes = self.dim * _NUMBER_BYTES
            self._blocks.check_spans(self._header_bytes + rows[rows >= 0] * row_bytes, row_bytes)

    def _check_all(self) -> None:
        if self._blocks is not None:
            self._blocks.check_all()


def _leave_out(found: Found, alive: np.ndarray, k: int) -> Found:
    """The first ``k`` found rows that are alive; -1 and -inf behind them where there are fewer."""
    is_gone = (found.rows < 0) | ~alive[np.maximum(found.rows, 0)]
    similarities = np.where(is_gone, -np.inf, found.similarities)
    rows = np.where(is_gone, -1, found.rows)
    order = np.argsort(is_gone, axis=1, kind="stable")[:, :k]
    return Found(np.take_along_axis(similarities, order, 1), np.take_along_axis(rows, order, 1))
