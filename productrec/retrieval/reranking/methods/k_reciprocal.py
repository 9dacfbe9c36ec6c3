"""k-reciprocal re-ranking: rows are close whose neighbours are the same, and neighbours of each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from productrec.errors import ArtifactError
from productrec.retrieval.reranking.declared import Reranking
from productrec.retrieval.reranking.engine.jaccard import share_out_queries, sum_minima
from productrec.retrieval.reranking.engine.jaccard_mix import rank_mixed
from productrec.retrieval.reranking.engine.reciprocal import encode_neighbourhoods
from productrec.retrieval.reranking.first_search import FirstSearch, NeighbourLists
from productrec.runtime import count_cores
from productrec.settings.fields import Fraction, Positive, setting


class KReciprocal(Reranking):
    r"""k-reciprocal encoding (Zhong, Zheng, Cao and Li, CVPR 2017), in sparse form.

    Queries and gallery are one set of N rows, d(i, j) = 2 - 2 s(i, j). With N(i, k) row i and its k nearest others,

    .. math::
        R(i, k) &= \{j \in N(i, k) : i \in N(j, k)\} \\
        R^*(i, k_1) &= R(i, k_1) \cup \bigcup_{q \in R(i, k_1)} R(q, k_1 / 2), \text{ where }
            |R(i, k_1) \cap R(q, k_1 / 2)| \ge 2/3 \, |R(q, k_1 / 2)| \\
        V_i[j] &= \exp(-d(i, j)) \text{ for } j \in R^*(i, k_1), \text{ else } 0; \quad
            V_i \leftarrow mean_{j \in N(i, k_2 - 1)} V_j \\
        d^*(q, g) &= (1 - \lambda) \Big(1 - \frac{\sum_j \min(V_q[j], V_g[j])}{\sum_j \max(V_q[j], V_g[j])}\Big)
            + \lambda \, d(q, g)

    The similarity is 1 - d*, which is below 0 for a row that is far in both. k1 / 2 is rounded, half to even. This is
    the paper; the authors' program also divides d by its largest value in each row and V by its sum, and asks for more
    than 2/3, so that its lambda is not quite this one.

    Memory grows with N times the neighbours of neighbours; distances to all gallery rows are held for a few queries.
    Time beyond the search grows with N and with Q times M. Lists are the exact beginning of the ranking of all gallery
    rows where the first search was exact too.
    """

    formula = "d* = (1 - w) (1 - sum min(V_q, V_g) / sum max(V_q, V_g)) + w d(q, g), V: Gaussian over reciprocal sets"
    source = "Zhong, Zheng, Cao, Li, CVPR 2017, Re-ranking person re-identification with k-reciprocal encoding"
    depends_on_queries = True

    k1: Positive = setting(20, "neighbours that make a reciprocal set; about the images of a class")
    k2: Positive = setting(6, "rows, the row itself among them, over which vectors are averaged; 1 for none")
    original_weight: Fraction = setting(0.3, "share of the distance of embeddings in the new distance (lambda)")

    def compute(self, first: FirstSearch, prepared: None) -> NeighbourLists:
        """See `Reranking.compute`."""
        return rerank_k_reciprocal(first, k1=self.k1, k2=self.k2, original_weight=self.original_weight)


def search_jointly(first: FirstSearch, *, k1: int, k2: int) -> np.ndarray:
    """The nearest other rows (N, K) int64 of each of the N = Q + M rows, queries first, for `rerank_k_reciprocal`."""
    from productrec.retrieval.engine import search_rows

    rows = np.concatenate([first.queries, first.gallery])
    return search_rows(rows, rows, max(k1, k2 - 1), own_rows=np.arange(len(rows)))[0]


def rerank_k_reciprocal(
    first: FirstSearch,
    *,
    k1: int,
    k2: int,
    original_weight: float,
    joint: np.ndarray | None = None,
    threads: int | None = None,
) -> NeighbourLists:
    """Lists by the distance d* of `KReciprocal`, as deep as the first search's.

    Args:
        first: with at least one query.
        k1: neighbours that make a reciprocal set.
        k2: rows of the local query expansion, the row itself counted.
        original_weight: lambda, 0 to 1.
        joint: nearest other rows of queries and gallery together (N, at least max(k1, k2 - 1)), see `search_jointly`,
            where they are known; N - 1 columns do where there are fewer rows.
        threads: that work side by side; None for one a core.

    Raises:
        ArtifactError: ``joint`` is not of these rows, or not deep enough.
    """
    queries, count = len(first.queries), len(first.queries) + len(first.gallery)
    joint = search_jointly(first, k1=k1, k2=k2) if joint is None else joint
    least = min(max(k1, k2 - 1), count - 1)
    if len(joint) != count or joint.shape[1] < least:
        raise ArtifactError(
            f"k_reciprocal: joint must list neighbours of {count} rows, at least {least} deep; got {joint.shape}. "
            "Search queries and gallery together."
        )
    with ThreadPoolExecutor(threads or count_cores()) as pool:
        embeddings = np.concatenate([first.queries, first.gallery])
        vectors = encode_neighbourhoods(embeddings, joint, k1=k1, k2=k2, pool=pool)
        own, gallery = vectors[:queries], vectors[queries:].tocsc()
        del vectors, embeddings
        sums = [np.asarray(vectors.sum(axis=1), dtype=np.float32).ravel() for vectors in (own, gallery)]

        def rerank(part: slice) -> NeighbourLists:
            lists = NeighbourLists(*(column[part] for column in first.lists))
            return rank_mixed(
                sum_minima(own[part], gallery),
                (sums[0][part], sums[1]),
                first.queries[part],
                first.gallery,
                lists,
                weight=original_weight,
            )

        parts = list(pool.map(rerank, share_out_queries(own, gallery)))
    return NeighbourLists(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
