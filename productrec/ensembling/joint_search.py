"""Joint search: the nearest gallery rows by several models' similarities together, their mean or their product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from productrec.ensembling.concatenation import normalise_embeddings
from productrec.retrieval.engine import Found, build_engine, compare_rows, get_rows
from productrec.retrieval.searcher import Searcher

JointRule = Literal["concat", "product"]
_NUMBERS_AT_A_TIME = 1 << 24  # similarities that are held
_GALLERY_BLOCK = 16_384
DEPTH = 4  # candidates of each model for each neighbour that is asked for


def join_similarities(
    similarities: Sequence[np.ndarray] | np.ndarray, shares: np.ndarray, rule: JointRule
) -> np.ndarray:
    """Several models' similarities as one.

    ``concat``: their weighted mean, sum_m w_m s_m, the inner product of concatenated embeddings. ``product``: their
    weighted geometric mean, prod_m max(s_m, 0)^w_m = exp(sum_m w_m log max(s_m, 0)), which ranks as the product does
    and stays within 0 and 1; 0 where any model of a weight above 0 says 0 or less.

    Args:
        similarities: V arrays of one shape.
        shares: (V,) that sum to 1; a model of weight 0 is as if it were not there.
        rule: how.

    Returns:
        float32, of their shape.
    """
    used = [(part, np.float32(share)) for part, share in zip(similarities, shares, strict=True) if share]
    if rule == "concat":
        total = sum(share * part for part, share in used)
    else:
        total = np.ones((), np.float32)
        for part, share in used:
            total = total * np.maximum(part, np.float32(0)) ** share
    return np.asarray(total, dtype=np.float32)


class Candidates(NamedTuple):
    """Gallery rows that may be near to Q queries, and all models' similarities to them.

    ``rows``: (Q, N) int64, ascending, -1 at the end of those who have fewer; ``similarities``: (V, Q, N) float32, -inf
    at -1; ``bounds``: (V, Q) what each model's similarity to any other row is at most, -inf where there is none.
    """

    rows: np.ndarray
    similarities: np.ndarray
    bounds: np.ndarray

    def rank(self, shares: np.ndarray, rule: JointRule, k: int) -> Found:
        """The ``k`` nearest of the candidates by all models together; row -1 and -inf where there are fewer."""
        joint = join_similarities(list(self.similarities), shares, rule)
        joint[self.rows < 0] = -np.inf
        return _take_best(joint, self.rows, k)


class JointGallery:
    """M gallery images as V models embed them, searched by all of them together."""

    def __init__(self, embeddings: Sequence[np.ndarray]) -> None:
        """``embeddings``: V arrays (M, D_m) of unit norm, whose sizes may differ, of the same images in one order."""
        self._searchers = [Searcher(build_engine(rows)) for rows in embeddings]

    @property
    def rows(self) -> int:
        """M."""
        return self._searchers[0].rows

    def find_candidates(self, queries: Sequence[np.ndarray], depth: int) -> Candidates:
        """The union of each model's ``depth`` nearest rows, with the similarities of all models to all of these.

        Args:
            queries: V arrays (Q, D_m) of unit norm. Memory is that of Q x V x V x depth similarities.
            depth: of each model; all rows, where those are fewer.
        """
        asked = [np.ascontiguousarray(rows, dtype=np.float32) for rows in queries]
        depth = min(depth, self.rows)
        found = [searcher.search(rows, depth) for searcher, rows in zip(self._searchers, asked, strict=True)]
        rows = _unite([one.rows for one in found])
        near = [compare_rows(one.flat, own, rows) for one, own in zip(self._searchers, asked, strict=True)]
        is_all = depth >= self.rows
        bounds = [np.full(len(rows), -np.inf, np.float32) if is_all else one.similarities[:, -1] for one in found]
        return Candidates(rows, np.stack(near), np.stack(bounds))

    def search(
        self,
        queries: Sequence[np.ndarray],
        shares: np.ndarray,
        rule: JointRule,
        k: int,
        *,
        depth: int | None = None,
        is_exact: bool = True,
    ) -> Found:
        """The ``k`` most similar rows of each query by all models together.

        Candidates are each model's nearest. A row that is none of them is, by the mean or product of what each model's
        farthest candidate has, no nearer than a bound (Fagin, Lotem, Naor, *Optimal aggregation algorithms for
        middleware*, 2003); queries whose k-th candidate is below theirs are compared with the whole gallery.

        Args:
            queries: V arrays (Q, D_m) of unit norm.
            shares: (V,) that sum to 1.
            rule: of `join_similarities`.
            k: how many; all rows, where those are fewer.
            depth: candidates of each model, at least k; `DEPTH` times k where None.
            is_exact: False leaves queries with the best of their candidates.

        Returns:
            Similarities (Q, k) float32, descending, and rows (Q, k) int64, ascending where these are equal.
        """
        k = min(k, self.rows)
        depth = min(max(DEPTH * k if depth is None else depth, k), self.rows)
        count = len(queries[0])
        similarities, rows = np.empty((count, k), np.float32), np.empty((count, k), np.int64)
        step = max(1, _NUMBERS_AT_A_TIME // (len(queries) ** 2 * depth))
        for start in range(0, count, step):
            block = [np.asarray(own[start : start + step], dtype=np.float32) for own in queries]
            candidates = self.find_candidates(block, depth)
            found = candidates.rank(shares, rule, k)
            similarities[start : start + step], rows[start : start + step] = found
            if not is_exact or depth >= self.rows:
                continue
            bounds = join_similarities(list(candidates.bounds), shares, rule)
            unsure = np.flatnonzero(found.similarities[:, -1] < bounds)
            if len(unsure):
                whole = self._scan([own[unsure] for own in block], shares, rule, k)
                similarities[start + unsure], rows[start + unsure] = whole
        return Found(similarities, rows)

    def _scan(self, queries: Sequence[np.ndarray], shares: np.ndarray, rule: JointRule, k: int) -> Found:
        """The nearest rows by a look at all of them, block by block."""
        galleries = [get_rows(searcher.flat) for searcher in self._searchers]
        count, step = len(queries[0]), max(1, _NUMBERS_AT_A_TIME // min(_GALLERY_BLOCK, self.rows))
        best = Found(np.empty((count, k), np.float32), np.empty((count, k), np.int64))
        for start in range(0, count, step):
            own = [rows[start : start + step] for rows in queries]
            held = Found(np.empty((len(own[0]), 0), np.float32), np.empty((len(own[0]), 0), np.int64))
            for first in range(0, self.rows, _GALLERY_BLOCK):
                near = [
                    rows @ part[first : first + _GALLERY_BLOCK].T for rows, part in zip(own, galleries, strict=True)
                ]
                joint = np.concatenate([held.similarities, join_similarities(near, shares, rule)], axis=1)
                numbers = np.broadcast_to(first + np.arange(near[0].shape[1]), near[0].shape)
                held = _take_best(joint, np.concatenate([held.rows, numbers], axis=1), k)
            best.similarities[start : start + step], best.rows[start : start + step] = held
        return best


def search_jointly(
    queries: Sequence[np.ndarray],
    galleries: Sequence[np.ndarray],
    shares: np.ndarray,
    rule: JointRule,
    k: int,
    *,
    depth: int | None = None,
    is_exact: bool = True,
) -> Found:
    """`JointGallery.search` of embeddings of any norm but 0; arguments as there, ``galleries`` being V (M, D_m)."""
    gallery = JointGallery([normalise_embeddings(rows) for rows in galleries])
    return gallery.search(
        [normalise_embeddings(rows) for rows in queries], shares, rule, k, depth=depth, is_exact=is_exact
    )


def _unite(found: Sequence[np.ndarray]) -> np.ndarray:
    """Rows (Q, N) int64 that any of some searches (Q, K) found, once each, ascending; -1 behind them."""
    rows = np.sort(np.concatenate(found, axis=1), axis=1)
    is_again = np.zeros(rows.shape, bool)
    is_again[:, 1:] = rows[:, 1:] == rows[:, :-1]
    rows[is_again | (rows < 0)] = np.iinfo(np.int64).max
    rows.sort(axis=1)
    rows[rows == np.iinfo(np.int64).max] = -1
    widest = int((rows >= 0).sum(axis=1).max(initial=0))
    return np.ascontiguousarray(rows[:, :widest], dtype=np.int64)


def _take_best(similarities: np.ndarray, rows: np.ndarray, k: int) -> Found:
    """The ``k`` most similar of some rows (Q, N), ascending rows first where they are equal."""
    if k < similarities.shape[1]:
        kth = np.partition(similarities, -k, axis=1)[:, -k, None]
        # Only those can be among the best; the others go behind, so that equal ones stay in the order of their rows.
        order = np.argsort(np.where(similarities >= kth, -similarities, np.inf), axis=1, kind="stable")[:, :k]
    else:
        order = np.argsort(-similarities, axis=1, kind="stable")
    found = Found(np.take_along_axis(similarities, order, 1), np.take_along_axis(rows, order, 1))
    if k <= similarities.shape[1]:
        return found
    missing = ((0, 0), (0, k - similarities.shape[1]))
    return Found(
        np.pad(found.similarities, missing, constant_values=-np.inf), np.pad(found.rows, missing, constant_values=-1)
    )
