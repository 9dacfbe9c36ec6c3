"""Offline mining: the same as sorting the whole matrix."""

import numpy as np
import pytest

from productrec.retrieval import engine
from productrec.retrieval.engine import search_close_pairs, search_rows
from productrec.retrieval.hard_mining import find_hard_negatives, find_near_classes


def draw(count, dim=8, seed=0):
    values = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 5, 60])
def test_hard_negatives_are_the_most_similar_rows_of_other_classes(count):
    embeddings = draw(60)
    labels = np.array([0] * 30 + [1] * 8 + list(range(2, 24)))
    rows, similarities = find_hard_negatives(embeddings, labels, count)
    matrix = embeddings @ embeddings.T
    for row, label in enumerate(labels):
        others = np.flatnonzero(labels != label)
        expected = others[np.argsort(-matrix[row, others], kind="stable")][:count]
        found = rows[row][rows[row] >= 0]
        assert found.tolist() == expected.tolist()
        np.testing.assert_allclose(similarities[row][: len(found)], matrix[row, expected], atol=1e-5)
        assert (similarities[row][len(found) :] == -np.inf).all()


def test_one_class_has_no_negatives():
    rows, similarities = find_hard_negatives(draw(5), np.zeros(5, dtype=np.int64), 2)
    assert (rows == -1).all()
    assert (similarities == -np.inf).all()


def test_near_classes_are_those_of_similar_means():
    centres = np.array([[1, 0.1, 0], [1, -0.1, 0], [0, 1, 0.1], [0, 1, -0.1], [0, 0, 1]], dtype=np.float32)
    labels = np.repeat(np.arange(5), 6)
    embeddings = centres[labels] + 0.05 * draw(30, 3)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    near = find_near_classes(embeddings, labels, 5, 2)
    assert near[:4, 0].tolist() == [1, 0, 3, 2]
    assert near.shape == (5, 2)
    assert find_near_classes(embeddings, labels, 6, 9).shape == (6, 5)


def test_other_rows_leave_out_a_rows_own_number_and_no_copy_of_it():
    embeddings = draw(40)
    embeddings[7] = embeddings[3]
    rows, similarities = search_rows(embeddings, embeddings, 5, own_rows=np.arange(40))
    matrix = embeddings @ embeddings.T
    np.fill_diagonal(matrix, -2)
    np.testing.assert_allclose(similarities, -np.sort(-matrix, axis=1)[:, :5], atol=1e-5)
    assert not (rows == np.arange(40)[:, None]).any()
    assert (rows[3, 0], rows[7, 0]) == (7, 3)


def test_a_row_among_many_equal_ones_and_a_small_gallery():
    embeddings = np.repeat(draw(2), 30, axis=0)
    rows, _ = search_rows(embeddings, embeddings, 5, own_rows=np.arange(60))
    assert rows.shape == (60, 5)
    assert not (rows == np.arange(60)[:, None]).any()
    few, _ = search_rows(embeddings[:3], embeddings[:3], 5, own_rows=np.arange(3))
    assert few.shape == (3, 2)
    free, _ = search_rows(embeddings[:3], embeddings, 5)
    assert free.shape == (3, 5)


@pytest.mark.parametrize("most", [1000, 7])
def test_close_pairs_are_those_of_the_matrix(most, monkeypatch):
    monkeypatch.setattr(engine, "_QUERIES_AT_A_TIME", 13)
    embeddings = draw(60, dim=4)
    embeddings[9] = embeddings[30]
    matrix = embeddings @ embeddings.T
    expected = sorted(
        ((float(matrix[i, j]), (i, j)) for i in range(60) for j in range(i + 1, 60) if matrix[i, j] > 0.9), reverse=True
    )
    found = search_close_pairs(embeddings, 0.9, most=most)
    assert len(found) == min(most, len(expected))
    assert found[0].tolist() == [9, 30]
    assert {tuple(pair) for pair in found.tolist()} == {pair for _, pair in expected[: len(found)]}
    assert search_close_pairs(embeddings[:1], 0.9, most=5).shape == (0, 2)
