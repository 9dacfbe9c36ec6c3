"""Ranks of positives against a stable sort in float64: ties, duplicates, depth, tiles, roles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from productrec.metrics.ranks import rank_positives
from productrec.metrics.retrieval import compute_retrieval
from tests.property.metrics.test_metric_oracles import EXACT_ROWS, SEEDS


def rank_by_sorting(similarities, labels, gallery_labels, own):
    """Ranks of each query's positives, and its nearest row; ``own`` is left out of each query's gallery."""
    found = []
    for query, row in enumerate(similarities):
        order = [j for j in sorted(range(len(row)), key=lambda j: (-row[j], j)) if own is None or j != own[query]]
        ranks = [place for place, j in enumerate(order, start=1) if gallery_labels[j] == labels[query]]
        found.append((ranks, order[0] if order else -1))
    return found


def check(queries, labels, gallery, gallery_labels, own, depth, tile, similarities=None):
    exact = queries.astype(np.float64) @ gallery.astype(np.float64).T if similarities is None else similarities
    expected = rank_by_sorting(exact.tolist(), labels, gallery_labels, own)
    seen = set()
    for part in rank_positives(
        queries, labels, gallery, gallery_labels, own_rows=own, depth=depth, tile=tile, threads=1
    ):
        for place, query in enumerate(part.queries):
            wanted, nearest = expected[query]
            ranks = part.ranks[part.starts[place] : part.starts[place + 1]].tolist()
            told = max(depth, len(wanted))
            assert len(ranks) == len(wanted) and part.nearest[place] == nearest
            assert [min(rank, told + 1) for rank in ranks] == [min(rank, told + 1) for rank in wanted]
            assert ranks[:1] == wanted[:1]  # the first one's at any depth
            seen.add(int(query))
    assert seen == set(range(len(labels)))


@settings(deadline=None, max_examples=80)
@given(
    seed=SEEDS,
    rows=st.integers(2, 300),
    classes=st.integers(1, 30),
    depth=st.sampled_from([0, 1, 7, 1000]),
    tile=st.sampled_from([(64, 64), (512, 64), (64, 128), (2048, 512)]),
)
def test_every_row_asks_all_others(seed, rows, classes, depth, tile):
    generator = np.random.default_rng(seed)
    embeddings = EXACT_ROWS[generator.integers(0, len(EXACT_ROWS), rows)]
    labels = generator.integers(-3, classes - 3, rows)
    check(embeddings, labels, embeddings, labels, np.arange(rows), depth, tile)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, queries=st.integers(1, 90), rows=st.integers(1, 200), depth=st.sampled_from([0, 5, 1000]))
def test_queries_ask_a_gallery_that_lacks_some_classes(seed, queries, rows, depth):
    generator = np.random.default_rng(seed)
    draw = lambda count: EXACT_ROWS[generator.integers(0, len(EXACT_ROWS), count)]  # noqa: E731
    labels, gallery_labels = generator.integers(0, 9, queries), generator.integers(2, 7, rows)
    check(draw(queries), labels, draw(rows), gallery_labels, None, depth, (64, 64))


@pytest.mark.parametrize("noise", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("depth", [0, 40])
def test_rows_without_ties_in_many_tiles(noise, depth):
    generator = np.random.default_rng(5)
    labels = (generator.random(700) ** 3 * 60).astype(np.int64)  # classes from 1 row to 170
    rows = generator.standard_normal((60, 8))[labels] + noise * generator.standard_normal((700, 8))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    check(rows, labels, rows, labels, np.arange(700), depth, (128, 64))


def test_duplicates_rank_by_row_wherever_they_lie_in_a_tile():
    generator = np.random.default_rng(0)
    for count in (33, 65, 255):  # no multiples of what a product is made of
        half = generator.standard_normal((count, 100)).astype(np.float32)
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        queries = half[generator.permutation(count)] + 0.5 * generator.standard_normal((count, 100)) / 10
        queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
        gallery = np.concatenate([half, half])  # each row has its double of another class further down
        gallery_labels = np.concatenate([np.zeros(count, int), np.ones(count, int)])
        first = compute_retrieval(queries, np.zeros(count, int), gallery, gallery_labels, precision_cutoffs=(5000,))
        second = compute_retrieval(queries, np.ones(count, int), gallery, gallery_labels, precision_cutoffs=(5000,))
        # Of each pair of equals the lower row comes first: ranks 1, 3, 5 ... and 2, 4, 6 ...
        odd = np.arange(1, count + 1) / np.arange(1, 2 * count, 2)
        assert first.average_precisions_at_k[5000] == pytest.approx(np.full(count, odd.mean()), abs=1e-12)
        assert second.average_precisions_at_k[5000] == pytest.approx(np.full(count, 0.5), abs=1e-12)
        assert (second.first_ranks == 2).all()


def test_tiles_threads_and_a_memory_map_change_no_bit(tmp_path):
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((900, 24)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[100:200] = rows[:100]
    labels = generator.integers(0, 90, 900)
    np.save(tmp_path / "rows.npy", rows)
    expected = compute_retrieval(rows, labels, precision_cutoffs=(10,), threads=1)
    for tile, threads in (((64, 64), 2), ((1024, 1984), 1), ((128, 320), 3)):
        mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
        found = compute_retrieval(mapped, labels, precision_cutoffs=(10,), tile=tile, threads=threads)
        for name in ("first_ranks", "average_precisions_at_r", "nearest", "similarities"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
