"""Whitening: equal to numpy's own SVD, and defined for galleries that hardly vary."""

import numpy as np
import pytest

from productrec.retrieval.reranking.first_search import search_first
from productrec.retrieval.reranking.methods import whitening as module
from productrec.retrieval.reranking.methods.whitening import Whitening
from tests.unit.retrieval.reranking.drawn import draw, draw_clustered


def whiten_by_svd(gallery, queries, dimensions, ridge):
    """The formula, by the singular values s of the gallery without its mean: lambda = s^2 / M."""
    mean = gallery.astype(np.float64).mean(axis=0)
    _, values, vectors = np.linalg.svd(gallery - mean, full_matrices=False)
    kept = min(int((values > 1e-6 * np.sqrt(len(gallery))).sum()), dimensions or len(values))
    scales = np.sqrt(values[:kept] ** 2 / len(gallery) + ridge)
    seen = [(rows - mean) @ vectors[:kept].T / scales for rows in (queries, gallery)]
    return [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in seen]


@pytest.mark.parametrize(("rows", "dim"), [(200, 16), (9, 16), (2, 16)])
@pytest.mark.parametrize("dimensions", [None, 1, 5, 99])
@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_it_is_the_formula_by_a_singular_value_decomposition(rows, dim, dimensions, ridge, monkeypatch):
    monkeypatch.setattr(module, "_ROWS_AT_A_TIME", 64)
    gallery, queries = draw(rows, dim), draw(7, dim, seed=1)
    found = Whitening(dimensions=dimensions, ridge=ridge).expand(search_first(queries, gallery, k=3))
    for own, oracle in zip(found, whiten_by_svd(gallery, queries, dimensions, ridge), strict=True):
        assert own.dtype == np.float32 and own.shape == oracle.shape
        np.testing.assert_allclose(
            own @ found[1].T, oracle @ whiten_by_svd(gallery, queries, dimensions, ridge)[1].T, atol=1e-4
        )


def test_without_a_ridge_the_gallery_has_no_direction_that_counts_more():
    gallery = (draw(4000, 6) * np.array([5, 3, 1, 1, 0.5, 0.1], np.float32) + 2).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    whitener = module.fit_whitener(gallery, dimensions=None, ridge=0.0)
    seen = (gallery - whitener.mean) @ whitener.components.T * whitener.scales
    np.testing.assert_allclose(seen.T @ seen / len(seen), np.eye(seen.shape[1]), atol=1e-3)


@pytest.mark.parametrize("copies", [1, 4])
def test_a_gallery_that_does_not_vary_is_left_as_it_is(copies):
    gallery, queries = np.repeat(draw(1), copies, axis=0), draw(3, seed=1)
    asked, kept = Whitening().expand(search_first(queries, gallery, k=2))
    assert asked.tolist() == queries.tolist() and kept.tolist() == gallery.tolist()


def test_copies_are_whitened_alike_and_fewer_rows_than_dimensions_are_no_error():
    gallery = np.repeat(draw(5, 32), 3, axis=0)
    first = search_first(draw(5, 32), gallery, k=3)
    asked, kept = Whitening(ridge=0.0).expand(first)
    assert kept.shape == (15, 4) and np.isfinite(kept).all()
    np.testing.assert_allclose(kept[::3], kept[2::3], atol=1e-5)
    np.testing.assert_allclose(asked, kept[::3], atol=1e-5)
    assert (np.sort(Whitening(ridge=0.0).rerank(first).rows, axis=1) == np.arange(15).reshape(5, 3)).all()


def test_what_lies_where_the_gallery_does_not_vary_is_similar_to_nothing():
    first = search_first(np.eye(3, dtype=np.float32)[2:], np.eye(3, dtype=np.float32)[:2], k=2)
    asked, kept = Whitening().expand(first)
    assert not asked.any() and kept.any(axis=1).all()
    assert Whitening().rerank(first).similarities.tolist() == [[0, 0]]


def test_it_forgets_what_all_products_have_alike():
    # A shared direction that varies wildly hides the products' own.
    values, labels = draw_clustered(400, 20, 0.5, dim=24)
    shared = np.random.default_rng(0).standard_normal((400, 1)) * np.eye(24)[0] * 3
    values = (values + shared).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    first = search_first(values[:100], values[100:], k=5, labels=labels[100:])

    def measure(lists):
        return (labels[100:][lists.rows] == labels[:100, None]).mean()

    assert measure(Whitening().rerank(first)) > measure(first.lists) + 0.05
