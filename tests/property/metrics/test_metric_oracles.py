"""Each metric against loops written from its definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from productrec.metrics.classification import compute_log_loss, compute_top_1_accuracy, compute_top_k_error
from productrec.metrics.retrieval import (
    compute_map_at_r,
    compute_recall_at_k,
    compute_self_retrieval,
)

SEEDS = st.integers(0, 2**32 - 1)
# Unit vectors whose products are multiples of 1/4, exact in any order of summation: ties are ties.
EXACT_ROWS = np.concatenate([np.eye(4), -np.eye(4), np.array(np.meshgrid(*[[0.5, -0.5]] * 4)).reshape(4, 16).T]).astype(
    np.float32
)


def average_precision_by_loops(neighbours: list[int], label: int, r: int) -> float:
    total = 0.0
    for i in range(1, r + 1):
        if neighbours[i - 1] == label:
            total += sum(found == label for found in neighbours[:i]) / i
    return total / r


def self_retrieval_by_loops(embeddings: np.ndarray, labels: np.ndarray, wrong_way: bool = False) -> dict[str, float]:
    similarities = embeddings.astype(np.float64) @ embeddings.astype(np.float64).T
    firsts, precisions = [], []
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i]
        others.sort(key=lambda j: (-similarities[i, j], -j if wrong_way else j))
        r = sum(labels[j] == label for j in others)
        if r == 0:
            continue
        found = [labels[j] for j in others]
        firsts.append(found[0] == label)
        precisions.append(average_precision_by_loops(found, label, r))
    return {"recall@1": float(np.mean(firsts)), "map@r": float(np.mean(precisions))}


@settings(deadline=None, max_examples=100)
@given(
    seed=SEEDS,
    rows=st.integers(1, 8),
    classes=st.integers(1, 6),
    levels=st.integers(1, 9),
    k=st.integers(1, 8),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_classification(seed: int, rows: int, classes: int, levels: int, k: int, dtype: type) -> None:
    generator = np.random.default_rng(seed)
    # Few levels, so that equal probabilities are common.
    counts = generator.integers(0, levels + 1, (rows, classes))
    probabilities: np.ndarray = (counts / (2.0 * levels)).astype(dtype)
    class_ids = generator.permutation(20)[:classes]
    labels = generator.choice(np.append(class_ids, 77), rows)
    wrong, wrong_first, cost = 0, 0, 0.0
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        order = sorted(range(classes), key=lambda c: (-row[c], c))
        named = [int(class_ids[c]) for c in order]
        wrong += label not in named[:k]
        wrong_first += label != named[0]
        given_to_label = row[class_ids.tolist().index(label)] if label in class_ids else 0.0
        cost -= math.log(max(given_to_label, 2.0**-25))
    assert compute_top_k_error(probabilities, class_ids, labels, k) == pytest.approx(wrong / rows)
    assert compute_top_1_accuracy(probabilities, class_ids, labels) == pytest.approx(1 - wrong_first / rows)
    assert compute_log_loss(probabilities, class_ids, labels) == pytest.approx(cost / rows)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_classification_of_more_rows_than_a_block(k: int) -> None:
    generator = np.random.default_rng(4)
    probabilities = generator.dirichlet(np.ones(10), 5000)
    labels = generator.integers(0, 10, 5000)
    named = np.argsort(-probabilities, axis=1)[:, :k]
    expected = 1 - (named == labels[:, None]).any(axis=1).mean()
    assert compute_top_k_error(probabilities, np.arange(10), labels, k) == pytest.approx(expected)


@settings(deadline=None, max_examples=100)
@given(seed=SEEDS, queries=st.integers(1, 8), found=st.integers(1, 7), classes=st.integers(1, 4), data=st.data())
def test_retrieval(seed: int, queries: int, found: int, classes: int, data: st.DataObject) -> None:
    generator = np.random.default_rng(seed)
    neighbours = generator.integers(0, classes, (queries, found))
    labels = generator.integers(0, classes, queries)
    k = data.draw(st.integers(1, found))
    hits = [any(n == label for n in row[:k]) for row, label in zip(neighbours, labels, strict=True)]
    assert compute_recall_at_k(neighbours, labels, k) == pytest.approx(sum(hits) / queries)
    positives = generator.integers(0, found + 1, queries)
    positives[0] = found
    expected = [
        average_precision_by_loops(row.tolist(), label, r)
        for row, label, r in zip(neighbours, labels, positives, strict=True)
        if r > 0
    ]
    assert compute_map_at_r(neighbours, labels, positives) == pytest.approx(sum(expected) / len(expected))


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, rows=st.integers(2, 40), classes=st.integers(1, 6), block_rows=st.sampled_from([1, 65, 1024]))
def test_self_retrieval_with_many_ties(seed: int, rows: int, classes: int, block_rows: int) -> None:
    generator = np.random.default_rng(seed)
    embeddings = EXACT_ROWS[generator.integers(0, len(EXACT_ROWS), rows)]
    labels = generator.integers(-3, classes - 3, rows)
    labels[1] = labels[0]
    result = compute_self_retrieval(embeddings, labels, tile=(block_rows, block_rows))
    assert result == pytest.approx(self_retrieval_by_loops(embeddings, labels))


def test_the_loops_notice_ties_broken_the_wrong_way() -> None:
    generator = np.random.default_rng(0)
    embeddings, labels = EXACT_ROWS[generator.integers(0, 24, 40)], generator.integers(0, 4, 40)
    expected = self_retrieval_by_loops(embeddings, labels)
    assert compute_self_retrieval(embeddings, labels) == pytest.approx(expected)
    assert self_retrieval_by_loops(embeddings, labels, wrong_way=True) != pytest.approx(expected)


def test_self_retrieval_of_more_rows_than_a_block() -> None:
    generator = np.random.default_rng(1)
    embeddings = generator.standard_normal((250, 12)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = (generator.random(250) ** 3 * 40).astype(np.int64)  # classes from 1 row to 70
    result = compute_self_retrieval(embeddings, labels, tile=(64, 64))
    assert result == pytest.approx(self_retrieval_by_loops(embeddings, labels), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, rows=st.integers(3, 24), classes=st.integers(1, 4), block_rows=st.sampled_from([1, 65, 1024]))
def test_queries_among_a_gallery(seed: int, rows: int, classes: int, block_rows: int) -> None:
    generator = np.random.default_rng(seed)
    embeddings = EXACT_ROWS[generator.integers(0, len(EXACT_ROWS), rows)]
    labels = generator.integers(0, classes, rows)
    is_query = np.arange(rows) < max(1, rows // 3)
    generator.shuffle(is_query)
    firsts, precisions = [], []
    for i in np.flatnonzero(is_query):
        gallery = sorted(np.flatnonzero(~is_query), key=lambda j: (-float(embeddings[i] @ embeddings[j]), j))
        found = [int(labels[j]) for j in gallery]
        r = found.count(int(labels[i]))
        if r:
            firsts.append(found[0] == labels[i])
            precisions.append(average_precision_by_loops(found, int(labels[i]), r))
    if not firsts:
        return
    seen = compute_self_retrieval(embeddings, labels, is_query=is_query, tile=(block_rows, block_rows))
    assert seen == pytest.approx({"recall@1": float(np.mean(firsts)), "map@r": float(np.mean(precisions))}, abs=1e-9)
