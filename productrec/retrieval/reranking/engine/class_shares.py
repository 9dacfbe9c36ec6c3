"""What each query says of classes: by its neighbours' classes, as a sparse matrix of queries by classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from productrec.retrieval.reranking.engine.candidates import compute_pair_similarities, list_owners
from productrec.retrieval.reranking.first_search import FirstSearch

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Judge = Literal["nearest", "vote"]
_QUERIES_AT_A_TIME = 1024


class Classes(NamedTuple):
    """The classes of a gallery: ``positions`` (M,) of each row's class, -1 where unknown; ``size`` is C."""

    positions: np.ndarray
    size: int


def number_classes(labels: np.ndarray) -> Classes:
    """Number the classes that have gallery rows, in the order of their labels; negative labels are none."""
    known = labels >= 0
    positions = np.full(len(labels), -1, dtype=np.int64)
    values, positions[known] = np.unique(labels[known], return_inverse=True)
    return Classes(positions, len(values))


def judge_classes(
    rows: np.ndarray, similarities: np.ndarray, classes: Classes, *, by: Judge, power: float = 1.0
) -> csr_matrix:
    """How much each query belongs to each class, by its nearest rows.

    Args:
        rows: (Q, K) gallery rows; one of unknown class says nothing.
        similarities: (Q, K); only those above 0 speak.
        classes: of the gallery.
        by: ``nearest`` takes a class's largest similarity; ``vote`` the class's share of the sum of all similarities.
        power: of similarities, before they are summed.

    Returns:
        (Q, C) float32 in [0, 1], each class once a query.
    """
    from scipy.sparse import csr_matrix

    found = classes.positions[rows]
    kept = (found >= 0) & (similarities > 0)
    owners, names = np.nonzero(kept)[0], found[kept]
    values = similarities[kept].astype(np.float64) ** power
    keys, places = np.unique(owners * max(classes.size, 1) + names, return_inverse=True)
    owners, names = keys // max(classes.size, 1), keys % max(classes.size, 1)
    if by == "nearest":
        told = np.zeros(len(keys))
        np.maximum.at(told, places, values)
    else:
        sums = np.bincount(places, values, minlength=len(keys))
        told = sums / np.bincount(owners, sums, minlength=len(rows))[owners]
    limits = np.searchsorted(owners, np.arange(len(rows) + 1))
    return csr_matrix((told.astype(np.float32), names, limits), shape=(len(rows), classes.size))


def keep_best_classes(judged: csr_matrix, count: int) -> csr_matrix:
    """The ``count`` largest entries of each query; equal ones in the order of classes."""
    from scipy.sparse import csr_matrix

    owners = list_owners(judged)
    order = np.lexsort((judged.indices, -judged.data, owners))
    ranks = np.arange(judged.nnz) - judged.indptr[:-1].astype(np.int64)[owners]
    kept = np.sort(order[ranks < count])
    limits = np.searchsorted(owners[kept], np.arange(judged.shape[0] + 1))
    return csr_matrix((judged.data[kept], judged.indices[kept], limits), shape=judged.shape)


class JudgedGallery(NamedTuple):
    """The classes of a gallery, and how much each row belongs to each of them, (M, C) float32 in [0, 1]."""

    classes: Classes
    shares: csr_matrix


def judge_gallery(gallery: np.ndarray, labels: np.ndarray, *, k: int, by: Judge, power: float = 1.0) -> JudgedGallery:
    """How much each gallery row belongs to each class: wholly to its own; one of unknown class by its nearest rows.

    Args:
        gallery: (M, D) float32, unit rows.
        labels: (M,) classes, negative where unknown.
        k: nearest rows that judge one of unknown class.
        by: see `judge_classes`.
        power: see `judge_classes`.
    """
    from scipy.sparse import csr_matrix

    from productrec.retrieval.engine import search_rows

    classes = number_classes(labels)
    unknown = np.flatnonzero(classes.positions < 0)
    known = np.flatnonzero(classes.positions >= 0)
    shape = (len(gallery), classes.size)
    own = csr_matrix((np.ones(len(known), np.float32), (known, classes.positions[known])), shape=shape)
    if not len(unknown) or not len(known):
        return JudgedGallery(classes, own)
    # Rows of unknown class say nothing of one another, so only the others are searched.
    rows, similarities = search_rows(gallery[unknown], gallery[known], k)
    judged = judge_classes(known[rows], similarities, classes, by=by, power=power).tocoo()
    guessed = csr_matrix((judged.data, (unknown[judged.row], judged.col)), shape=shape)
    judged_all = (own + guessed).tocsr()
    judged_all.sort_indices()
    return JudgedGallery(classes, judged_all)


def gather_candidates(first: FirstSearch, queries: slice, wanted: csr_matrix, gallery: csr_matrix) -> csr_matrix:
    """The first list of each query and the gallery rows that share a class with it; the values are similarities.

    Args:
        first: the search.
        queries: which of them, B.
        wanted: (B, C) classes of these queries.
        gallery: (M, C) classes of gallery rows.

    Returns:
        (B, M) float32, indices sorted.
    """
    from scipy.sparse import csr_matrix

    rows = first.lists.rows[queries]
    limits = np.arange(0, rows.size + 1, rows.shape[1])
    shape = (len(rows), len(first.gallery))
    candidates = csr_matrix((np.ones(rows.size, np.float32), rows.ravel(), limits), shape=shape)
    candidates = (candidates + wanted.sign() @ gallery.sign().T).tocsr()
    candidates.sort_indices()
    candidates.data = compute_pair_similarities(
        first.queries[queries], first.gallery, list_owners(candidates), candidates.indices
    )
    return candidates


def walk_shared_classes(
    wanted: csr_matrix, gallery: csr_matrix, candidates: csr_matrix
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each place in a query's classes: how much the query, and how much each candidate row, belongs to it.

    Args:
        wanted: (B, C) in [0, 1] or above, of queries.
        gallery: (M, C) in [0, 1], of gallery rows; indices sorted.
        candidates: (B, M), P entries.

    Yields:
        (P,) and (P,) float32, in the order of the candidates' entries; zeros where a query has no more classes.
    """
    owners = list_owners(candidates)
    counts = np.diff(wanted.indptr)
    for place in range(int(counts.max(initial=0))):
        is_there = counts > place
        entries = wanted.indptr[:-1][is_there] + place
        values, names = np.zeros(len(counts), np.float32), np.zeros(len(counts), np.int64)
        values[is_there], names[is_there] = wanted.data[entries], wanted.indices[entries]
        told = np.asarray(gallery[candidates.indices, names[owners]], dtype=np.float32).ravel()
        yield values[owners], np.where(is_there[owners], told, np.float32(0.0))


def split_queries(count: int) -> list[slice]:
    """Blocks of queries whose candidates are held together."""
    return [slice(start, min(start + _QUERIES_AT_A_TIME, count)) for start in range(0, count, _QUERIES_AT_A_TIME)]
