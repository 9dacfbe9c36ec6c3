"""Many rows among many: lists find nearly what exact search finds, never the row itself, and copies all the same."""

import numpy as np
import pytest

from productrec.retrieval.engine import search_close_pairs, search_rows
from productrec.retrieval.large_search import find_close_pairs, list_close_pairs, search_large

COUNT = 4000


@pytest.fixture(scope="module")
def rows():
    """Unit rows about 200 centres; every fortieth is nearly the row before it."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((200, 16))[np.arange(COUNT) % 200] + 0.6 * generator.standard_normal((COUNT, 16))
    values[39::40] = values[38::40] + 0.01 * generator.standard_normal((COUNT // 40, 16))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values.astype(np.float32)


def test_lists_find_nearly_what_exact_search_finds(rows):
    own = np.arange(COUNT)
    truth, similarities = search_rows(rows, rows, 12, own_rows=own)
    exact = search_large(rows, rows, 12, own_rows=own)
    assert exact.tuned is None and (exact.rows == truth).all() and (exact.similarities == similarities).all()
    found = search_large(rows, rows, 12, own_rows=own, exact_up_to=1000)
    assert found.tuned is not None and found.rows.shape == (COUNT, 12)
    assert (found.rows != own[:, None]).all() and (found.rows >= 0).all()
    recall = np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(truth[:, :10], found.rows[:, :10], strict=True)])
    assert recall > 0.98
    given = (rows[:, None] * rows[found.rows]).sum(axis=2)
    np.testing.assert_allclose(found.similarities, given, atol=1e-5)


def test_others_queries_and_few_of_them(rows):
    few = search_large(rows[:10], rows, 3, exact_up_to=1000)
    assert few.tuned is None and (few.rows[:, 0] == np.arange(10)).all()  # 10 x 4000 is soon done
    many = search_large(rows, rows, 3, exact_up_to=1000)
    assert many.tuned is not None and (many.rows[:, 0] == np.arange(COUNT)).mean() > 0.98


def test_copies_are_found_by_lists_too(rows):
    copies = {(row - 1, row) for row in range(39, COUNT, 40)}
    wanted = search_close_pairs(rows, 0.995, most=COUNT)
    assert copies <= set(map(tuple, wanted.tolist()))
    assert find_close_pairs(rows, 0.995, most=COUNT).tolist() == wanted.tolist()
    found = find_close_pairs(rows, 0.995, most=COUNT, exact_up_to=1000)
    assert copies <= set(map(tuple, found.tolist())) <= set(map(tuple, wanted.tolist()))
    assert find_close_pairs(rows, 0.995, most=7, exact_up_to=1000).tolist() == found[:7].tolist()


def test_a_pair_that_both_of_its_rows_find_is_one():
    rows, similarities = np.array([[1, 2], [0, 2], [0, 1]]), np.array([[0.9, 0.99], [0.9, 0.5], [0.99, 0.5]])
    assert list_close_pairs(rows, similarities, 0.8, most=5).tolist() == [[0, 2], [0, 1]]
    assert list_close_pairs(rows, similarities, 0.995, most=5).shape == (0, 2)
