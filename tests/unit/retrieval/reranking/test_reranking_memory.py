"""Memory of k-reciprocal re-ranking grows with N times k, told by the arrays and not by a clock."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from productrec.retrieval.engine import search_rows
from productrec.retrieval.reranking.engine.jaccard import share_out_queries, sum_minima
from productrec.retrieval.reranking.engine.reciprocal import (
    build_reciprocal_sets,
    encode_neighbourhoods,
    expand_sets,
)
from productrec.retrieval.reranking.first_search import search_first
from productrec.retrieval.reranking.methods.k_reciprocal import rerank_k_reciprocal, search_jointly
from tests.unit.retrieval.reranking.drawn import draw, draw_clustered

K1, K2 = 20, 6


@pytest.mark.parametrize("noise", [0.5, 5.0])
def test_vectors_have_at_most_so_many_entries_a_row(noise):
    values = draw_clustered(3000, 150, noise)[0]
    joint = search_rows(values, values, K1, own_rows=np.arange(len(values)))[0]
    sets, halves = build_reciprocal_sets(joint, K1), build_reciprocal_sets(joint, K1 // 2)
    assert np.diff(sets.indptr).max() <= K1 + 1 and np.diff(halves.indptr).max() <= K1 // 2 + 1
    expanded = expand_sets(sets, halves, slice(0, len(values)))
    largest = (K1 + 1) * (K1 // 2 + 1)
    assert np.diff(expanded.indptr).max() <= largest
    with ThreadPoolExecutor(1) as pool:
        vectors = encode_neighbourhoods(values, joint, k1=K1, k2=K2, pool=pool)
    assert np.diff(vectors.indptr).max() <= K2 * largest
    assert vectors.nnz < len(values) * K1 * K2  # in truth far below the bound


def test_the_highest_memory_is_far_below_a_matrix_of_all_rows():
    values = draw_clustered(12_000, 600, 0.8)[0]
    first = search_first(values[:40], values[40:], k=10)
    joint = search_jointly(first, k1=K1, k2=K2)
    tracemalloc.start()
    rerank_k_reciprocal(first, k1=K1, k2=K2, original_weight=0.3, joint=joint, threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000**2 * 4 / 8


def test_blocks_of_queries_cover_all_of_them_and_change_nothing(monkeypatch):
    from productrec.retrieval.reranking.engine import jaccard

    values = draw(200)
    joint = search_rows(values, values, K1, own_rows=np.arange(len(values)))[0]
    with ThreadPoolExecutor(1) as pool:
        vectors = encode_neighbourhoods(values, joint, k1=K1, k2=K2, pool=pool)
    gallery = vectors[20:].tocsc()
    whole = sum_minima(vectors[:20], gallery)
    assert share_out_queries(vectors[:20], gallery) == [slice(0, 20)]
    monkeypatch.setattr(jaccard, "_CELLS_AT_A_TIME", 1)
    blocks = share_out_queries(vectors[:20], gallery)
    assert [(block.start, block.stop) for block in blocks] == [(row, row + 1) for row in range(20)]
    np.testing.assert_array_equal(np.concatenate([sum_minima(vectors[block], gallery) for block in blocks]), whole)
