"""The neighbour graph and its equation, beyond what the dense oracle of diffusion sees."""

import numpy as np
import pytest

from productrec.retrieval.engine import search_rows
from productrec.retrieval.reranking.engine.graph import build_mutual_graph, solve_diffusion
from tests.unit.retrieval.reranking.drawn import draw_clustered


def build_drawn(rows=60, k=6):
    values = draw_clustered(rows, 6, 1.5)[0]
    return build_mutual_graph(*search_rows(values, values, k, own_rows=np.arange(rows)), 3.0)


def test_the_graph_is_symmetric_sparse_and_its_eigenvalues_lie_within_one():
    graph = build_drawn()
    dense = graph.toarray()
    np.testing.assert_allclose(dense, dense.T, atol=1e-15)
    assert (np.diag(dense) == 0).all() and np.diff(graph.indptr).max() <= 6
    assert np.abs(np.linalg.eigvalsh(dense)).max() <= 1 + 1e-9


@pytest.mark.parametrize("alpha", [0.5, 0.99])
def test_conjugate_gradients_need_no_more_steps_than_rows(alpha):
    graph = build_drawn(rows=24)
    sources = np.eye(24)[:, :3]
    found = solve_diffusion(graph, sources, alpha=alpha, iterations=24, tolerance=0.0)
    exact = np.linalg.solve(np.eye(24) - alpha * graph.toarray(), sources)
    np.testing.assert_allclose(found, exact, atol=1e-8)


def test_columns_are_solved_each_for_itself_and_zeros_stay():
    graph = build_drawn()
    sources = np.random.default_rng(0).random((60, 4))
    sources[:, 2] = 0
    together = solve_diffusion(graph, sources, alpha=0.9, iterations=50, tolerance=1e-9)
    for column in range(4):
        alone = solve_diffusion(graph, sources[:, column : column + 1], alpha=0.9, iterations=50, tolerance=1e-9)
        np.testing.assert_allclose(together[:, column], alone[:, 0], atol=1e-9)
    assert (together[:, 2] == 0).all()
