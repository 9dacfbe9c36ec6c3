import math
import tracemalloc

import numpy as np
import pytest

from productrec.errors import DataError
from productrec.metrics.retrieval import compute_map_at_r, compute_recall_at_k, compute_self_retrieval

NEIGHBOURS = np.array([[1, 0, 1], [0, 1, 0], [5, 5, 2]])
QUERIES = np.array([1, 1, 2])


def draw_set(rows: int, classes: int, columns: int = 16) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, rows)
    embeddings = generator.standard_normal((rows, columns)) + generator.standard_normal((classes, columns))[labels]
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize(("k", "expected"), [(1, 1 / 3), (2, 2 / 3), (3, 1.0)])
def test_recall_at_k(k: int, expected: float) -> None:
    recall = compute_recall_at_k(NEIGHBOURS, QUERIES, k)
    assert recall == pytest.approx(expected)
    assert type(recall) is float


def test_map_at_r_by_hand() -> None:
    # R = 3: (1 + 2/3) / 3. R = 2: (1/2) / 2, the third place is beyond R. R = 1: the third place again.
    value = compute_map_at_r(NEIGHBOURS, QUERIES, np.array([3, 2, 1]))
    assert value == pytest.approx((5 / 9 + 1 / 4 + 0) / 3)
    assert type(value) is float


def test_map_at_r_leaves_out_queries_without_an_answer() -> None:
    assert compute_map_at_r(NEIGHBOURS, QUERIES, np.array([3, 2, 0])) == pytest.approx((5 / 9 + 1 / 4) / 2)
    with pytest.raises(DataError, match="at least one query must have a positive; got none in 3"):
        compute_map_at_r(NEIGHBOURS, QUERIES, np.zeros(3, dtype=int))


def test_map_at_r_is_refused_where_too_few_neighbours_were_found() -> None:
    # Cut off at K, a perfect search of a class of 4 would score 3/4 and look like a model's fault.
    with pytest.raises(DataError, match=r"from 0 to 3, the neighbours found; got 1 to 4\. Search for at least 4"):
        compute_map_at_r(NEIGHBOURS, QUERIES, np.array([4, 2, 1]))


def test_separated_classes_are_found() -> None:
    embeddings = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    assert compute_self_retrieval(embeddings, np.repeat(np.arange(4), 3)) == {"recall@1": 1.0, "map@r": 1.0}


def test_a_row_is_left_out_by_index_and_its_duplicate_is_not() -> None:
    embeddings = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
    assert compute_self_retrieval(embeddings, np.array([0, 0, 1, 1]))["recall@1"] == 1.0
    assert compute_self_retrieval(embeddings, np.array([0, 1, 0, 1]))["recall@1"] == 0.0  # itself would be a hit


def test_identical_embeddings_rank_by_row() -> None:
    embeddings = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (4, 1))
    result = compute_self_retrieval(embeddings, np.array([0, 0, 1, 1]))
    # Rows 0 and 1 find each other first; rows 2 and 3 find row 0.
    assert result == {"recall@1": 0.5, "map@r": 0.5}
    # Broken on purpose: the order that a reversed sort gives would have it the other way round.
    assert np.argsort([1.0, 1.0, 1.0], kind="stable")[::-1].tolist() == [2, 1, 0]


def test_rows_alone_in_their_class_are_left_out_but_still_found() -> None:
    embeddings = np.array([[1, 0], [0.8, 0.6], [0.96, 0.28]], dtype=np.float32)
    # Rows 0 and 1 both have the lonely row 2 as their nearest; it would be a third miss if it asked too.
    assert compute_self_retrieval(embeddings, np.array([0, 0, 1]))["recall@1"] == 0.0
    embeddings[2] = (0, -1)
    assert compute_self_retrieval(embeddings, np.array([0, 0, 1])) == {"recall@1": 1.0, "map@r": 1.0}
    with pytest.raises(
        DataError, match="at least one query must have another row of its class; got 3 rows of 3 classes"
    ):
        compute_self_retrieval(embeddings, np.array([0, 1, 2]))


@pytest.mark.parametrize("classes", [1, 7, 120])
def test_blocks_and_row_order_change_nothing(classes: int) -> None:
    embeddings, labels = draw_set(300, classes)
    expected = compute_self_retrieval(embeddings, labels)
    for tile in ((1, 1), (64, 128), (128, 64), (1000, 1984)):
        assert compute_self_retrieval(embeddings, labels, tile=tile) == expected
    order = np.random.default_rng(1).permutation(300)
    assert compute_self_retrieval(embeddings[order], labels[order]) == pytest.approx(expected, abs=1e-12)


def test_memory_is_that_of_a_block() -> None:
    embeddings, labels = draw_set(3000, 100)
    dense = 3000 * 3000 * 4

    def measure_peak(queries: int, rows: int) -> int:
        tracemalloc.start()
        compute_self_retrieval(embeddings, labels, tile=(queries, rows))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert measure_peak(128, 256) < dense / 3
    assert measure_peak(3000, 1984) > dense / 2  # most of the matrix at once, so that this test can fail


def test_other_float_types_are_accepted() -> None:
    embeddings, labels = draw_set(60, 6)
    expected = compute_self_retrieval(embeddings, labels)
    assert compute_self_retrieval(embeddings.astype(np.float64), labels) == expected
    assert compute_self_retrieval(embeddings.astype(np.float16), labels) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("neighbours", "queries", "said"),
    [
        (np.zeros((0, 3), dtype=int), np.zeros(0, dtype=int), "at least one query"),
        (np.zeros((3, 0), dtype=int), QUERIES, "one neighbour"),
        (NEIGHBOURS[0], QUERIES, r"must be \(Q, K\)"),
        (NEIGHBOURS, QUERIES[:2], r"shape \(3,\); got \(2,\)"),
        (NEIGHBOURS * 0.5, QUERIES, "neighbour_labels must be integers"),
        (NEIGHBOURS, QUERIES * 1.0, "query_labels must be integers"),
    ],
)
def test_unsound_neighbours_are_refused(neighbours: np.ndarray, queries: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=f"recall@k: .*{said}"):
        compute_recall_at_k(neighbours, queries, 1)
    with pytest.raises(DataError, match=f"MAP@R: .*{said}"):
        compute_map_at_r(neighbours, queries, np.ones(3, dtype=int))


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(DataError, match=f"k must be from 1 to 3, the neighbours found; got {k}"):
        compute_recall_at_k(NEIGHBOURS, QUERIES, k)


@pytest.mark.parametrize("positives", [np.ones(2, dtype=int), np.ones(3), np.array([1, 1, -1])])
def test_unsound_positives_are_refused(positives: np.ndarray) -> None:
    with pytest.raises(DataError, match="MAP@R: positives must be"):
        compute_map_at_r(NEIGHBOURS, QUERIES, positives)


def test_unsound_embeddings_are_refused() -> None:
    embeddings, labels = draw_set(8, 2)
    for wrong in (embeddings[:, 0], embeddings[:0], embeddings.astype(np.int64)):
        with pytest.raises(DataError, match="retrieval: embeddings must be"):
            compute_self_retrieval(wrong, labels)
    for wrong_labels in (labels[:-1], labels * 1.0):
        with pytest.raises(DataError, match="labels must be 8 integers"):
            compute_self_retrieval(embeddings, wrong_labels)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, 3.0])
def test_rows_not_of_length_one_are_refused(bad: float) -> None:
    embeddings, labels = draw_set(8, 2)
    embeddings[[2, 5]] *= bad
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match=r"length 1; got others in rows 2 \(2, 5\)"):
        compute_self_retrieval(embeddings, labels)


@pytest.mark.parametrize("is_query", [np.zeros(4, bool), np.ones(4, bool), np.array([True]), np.array([0, 1, 0, 1])])
def test_roles_that_are_none_are_refused(is_query):
    with pytest.raises(DataError, match="is_query must be 4 booleans"):
        compute_self_retrieval(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]), is_query=is_query)
