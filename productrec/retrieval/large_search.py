"""Search of many rows among many: exact where that is soon done, else by lists tuned to find nearly the same."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from productrec.retrieval.choice import EXACT_UP_TO, LEAST_ROWS, Tuned, choose_kinds, tune_effort
from productrec.retrieval.engine import (
    build_engine,
    build_structure,
    count_gpus,
    leave_out_own,
    search_close_pairs,
    search_rows,
)
from productrec.retrieval.searcher import Searcher
from productrec.runtime import measure_free_memory

RECALL = 0.99  # share of the ten nearest rows that lists must find
_CLOSE_NEIGHBOURS = 20  # of a row, that are looked at for close pairs where there are many rows


class LargeSearch(NamedTuple):
    """What was found: ``rows`` (Q, K) int64, ``similarities`` (Q, K) float32, descending, exact of the rows found.

    ``tuned``: how an approximate search looked, and its recall; None for exact search.
    """

    rows: np.ndarray
    similarities: np.ndarray
    tuned: Tuned | None


def search_large(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    *,
    own_rows: np.ndarray | None = None,
    recall: float = RECALL,
    exact_up_to: int = EXACT_UP_TO,
) -> LargeSearch:
    """The ``k`` most similar gallery rows of each query, its own row left out by number, not by similarity.

    Args:
        queries: (Q, D) float32, unit rows.
        gallery: (M, D) float32, unit rows.
        k: how many; all there are, where those are fewer.
        own_rows: (Q,) each query's row in the gallery; None where no query is in it.
        recall: share of the ten nearest that an approximate search must find, see `productrec.retrieval.choice`.
        exact_up_to: the root of Q times M up to which search is exact; it is on a GPU, too.
    """
    if len(gallery) < LEAST_ROWS or len(queries) * len(gallery) <= exact_up_to**2 or count_gpus():
        return LargeSearch(*search_rows(queries, gallery, k, own_rows=own_rows), None)
    searcher, tuned = _build(gallery, recall)
    wanted = min(k if own_rows is None else k + 1, len(gallery))
    found = searcher.search(queries, wanted)
    rows, similarities = found.rows, found.similarities
    if own_rows is not None:
        rows, similarities = leave_out_own(rows, similarities, own_rows)
    return LargeSearch(rows, similarities, tuned)


def find_close_pairs(
    embeddings: np.ndarray, least_similarity: float, *, most: int, exact_up_to: int = EXACT_UP_TO
) -> np.ndarray:
    """Pairs of rows at least as similar as ``least_similarity``, the most similar first.

    Above ``exact_up_to`` rows the 20 nearest of each row are looked at, as `search_large` finds them: of more than 21
    that are all close to each other some pairs are left out, and the others still join them.

    Args:
        embeddings: (N, D) float32, unit rows.
        least_similarity: below 1.
        most: pairs at most.
        exact_up_to: rows.

    Returns:
        (P, 2) int64, the lower row first.
    """
    if len(embeddings) <= exact_up_to:
        return search_close_pairs(embeddings, least_similarity, most=most)
    own = np.arange(len(embeddings))
    found = search_large(embeddings, embeddings, _CLOSE_NEIGHBOURS, own_rows=own, exact_up_to=exact_up_to)
    return list_close_pairs(found.rows, found.similarities, least_similarity, most=most)


def list_close_pairs(rows: np.ndarray, similarities: np.ndarray, least_similarity: float, *, most: int) -> np.ndarray:
    """The close ones among the pairs of each row with its neighbours (N, K), as `find_close_pairs` returns them."""
    owners, places = np.nonzero(similarities >= least_similarity)
    others = rows[owners, places]
    pairs = np.stack([np.minimum(owners, others), np.maximum(owners, others)], axis=1)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    near = similarities[owners, places][first]
    return pairs[np.argsort(-near, kind="stable")[:most]].astype(np.int64)


def _build(gallery: np.ndarray, recall: float) -> tuple[Searcher, Tuned | None]:
    flat = build_engine(gallery)
    kinds = choose_kinds("auto", rows=len(gallery), dim=gallery.shape[1], memory_bytes=measure_free_memory())
    for kind in kinds if len(gallery) > EXACT_UP_TO else ("ivf",):
        if kind == "exact":
            break
        searcher = Searcher(flat, kind=kind, structure=build_structure(kind, flat), use_gpu=False)
        tuned = tune_effort(searcher, recall)
        if tuned is not None:
            searcher.effort = tuned.effort
            return searcher, tuned
    return Searcher(flat, use_gpu=False), None
