"""Diffusion: similarity spreads from a query over the neighbour graph of the gallery."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from productrec.retrieval.reranking.declared import Reranking
from productrec.retrieval.reranking.engine.candidates import take_best
from productrec.retrieval.reranking.engine.graph import build_mutual_graph, solve_diffusion
from productrec.retrieval.reranking.engine.mixing import weigh_by_similarity
from productrec.retrieval.reranking.first_search import FirstSearch, NeighbourLists
from productrec.settings.fields import Count, NonNegative, Positive, PositiveFloat, ShareBelowOne, setting

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_CELLS_AT_A_TIME = 1 << 22


class Diffusion(Reranking):
    r"""Diffusion on the mutual neighbour graph (Iscen, Tolias, Avrithis, Furon and Chum, CVPR 2017).

    .. math::
        A_{ij} &= \max(s_{ij}, 0)^\gamma \text{ where i and j are among each other's k nearest, else } 0 \\
        S &= D^{-1/2} A D^{-1/2}, \quad D_{ii} = \sum_j A_{ij} \\
        y_i &= \max(s(q, g_i), 0)^\gamma \text{ for the } k_q \text{ nearest gallery rows of the query, else } 0 \\
        (I - \alpha S) f &= y

    by conjugate gradients; rows are ordered by f, and where that is equal, as where the query does not reach, by their
    similarity. The new similarity is f over the query's largest f, 0 where the query does not reach: it is comparable
    within a list alone. In a gallery of more than ``truncate`` rows each query diffuses among its ``truncate`` nearest,
    with the rows and columns of the whole gallery's S (section 4.3 of the paper).
    """

    formula = "(I - alpha S) f = y, S: symmetrically normalised mutual kNN graph of s^gamma, y: the query's neighbours"
    source = "Iscen, Tolias, Avrithis, Furon, Chum, CVPR 2017, Efficient diffusion on region manifolds"

    k: Positive = setting(50, "neighbours in the graph; edges are mutual")
    query_k: Positive = setting(10, "nearest gallery rows that a query starts from")
    gamma: PositiveFloat = setting(3.0, "power of similarities")
    alpha: ShareBelowOne = setting(0.99, "share of what reaches a row that is passed on; 0 keeps the first neighbours")
    iterations: Positive = setting(20, "conjugate gradient steps at most")
    tolerance: NonNegative = setting(1e-6, "of the residual against y, where the steps end")
    truncate: Count = setting(2000, "nearest gallery rows that a query diffuses among; 0 for all")

    def prepare(self, gallery: np.ndarray, labels: np.ndarray | None) -> csr_matrix:
        """See `Reranking.prepare`: the graph."""
        from productrec.retrieval.engine import search_rows

        rows, similarities = search_rows(gallery, gallery, self.k, own_rows=np.arange(len(gallery)))
        return build_mutual_graph(rows, similarities, self.gamma)

    def compute(self, first: FirstSearch, prepared: csr_matrix) -> NeighbourLists:
        """See `Reranking.compute`."""
        return rerank_diffusion(
            first,
            prepared,
            query_k=self.query_k,
            gamma=self.gamma,
            alpha=self.alpha,
            iterations=self.iterations,
            tolerance=self.tolerance,
            truncate=self.truncate,
        )


def rerank_diffusion(
    first: FirstSearch,
    graph: csr_matrix,
    *,
    query_k: int,
    gamma: float,
    alpha: float,
    iterations: int,
    tolerance: float,
    truncate: int,
) -> NeighbourLists:
    """Lists by the f of `Diffusion` on a gallery's graph S, as deep as the first search's; else its settings."""
    count = len(first.gallery)
    within = count if not truncate else min(count, max(truncate, first.depth, query_k))
    at_a_time = max(1, _CELLS_AT_A_TIME // count)
    parts = []
    for start in range(0, len(first.queries), at_a_time):
        queries = first.queries[start : start + at_a_time]
        rows, near = take_best(queries @ first.gallery.T, within)  # more than FAISS gives on a GPU
        sources = np.zeros((len(queries), within))
        sources[:, :query_k] = weigh_by_similarity(near[:, :query_k], gamma)
        if within == count:
            spread = np.zeros((count, len(queries)))
            np.put_along_axis(spread, rows.T, sources.T, axis=0)
            spread = solve_diffusion(graph, spread, alpha=alpha, iterations=iterations, tolerance=tolerance)
            reached = np.take_along_axis(spread, rows.T, axis=0).T
        else:
            solved = [
                solve_diffusion(
                    _cut(graph, of_query), source[:, None], alpha=alpha, iterations=iterations, tolerance=tolerance
                )
                for of_query, source in zip(rows, sources, strict=True)
            ]
            reached = np.concatenate(solved, axis=1).T
        parts.append(_take_best_reached(reached, rows, first.depth))
    return NeighbourLists(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _cut(graph: csr_matrix, rows: np.ndarray) -> csr_matrix:
    """The graph's rows and columns of some nodes, in their order."""
    return graph[rows][:, rows]


def _take_best_reached(reached: np.ndarray, rows: np.ndarray, k: int) -> NeighbourLists:
    """The largest f of each query; columns are in the order of similarity, which decides where f is equal."""
    largest = np.maximum(reached.max(axis=1, keepdims=True), 1e-300)
    columns, best = take_best((np.clip(reached, 0.0, None) / largest).astype(np.float32), k)
    return NeighbourLists(np.take_along_axis(rows, columns, axis=1), best)
