"""Several models' similarities together, against a dense oracle, and what holds whatever is drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from productrec.ensembling import joint_search
from productrec.ensembling.concatenation import concatenate_embeddings, normalise_embeddings
from productrec.ensembling.joint_search import JointGallery, join_similarities, search_jointly

SEEDS = st.integers(0, 2**32 - 1)
RULES = ["concat", "product"]


def draw(seed, queries=9, rows=40, dims=(5, 8, 3), classes=6):
    """V pairs of queries and galleries: what each model makes of the same clustered images."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, queries + rows)
    made = []
    for dim in dims:
        values = generator.standard_normal((classes, dim))[labels] + generator.standard_normal((queries + rows, dim))
        values = normalise_embeddings(values)
        made.append((values[:queries], values[queries:]))
    return [one[0] for one in made], [one[1] for one in made]


def compute_densely(queries, galleries, shares, rule):
    """(Q, M) in float64, by the formula; the product as a sum of logarithms."""
    near = [own.astype(np.float64) @ rows.T.astype(np.float64) for own, rows in zip(queries, galleries, strict=True)]
    if rule == "concat":
        return sum(share * one for share, one in zip(shares, near, strict=True))
    with np.errstate(divide="ignore"):
        logs = [share * np.log(np.maximum(one, 0)) for share, one in zip(shares, near, strict=True) if share]
    return np.exp(sum(logs))


@pytest.mark.parametrize("rule", RULES)
@given(seed=SEEDS, k=st.integers(1, 45), depth=st.integers(1, 45))
@settings(max_examples=40, deadline=None)
def test_a_joint_search_is_the_dense_one_whatever_its_depth(rule, seed, k, depth):
    queries, galleries = draw(seed)
    shares = np.random.default_rng(seed).dirichlet(np.ones(3))
    dense = compute_densely(queries, galleries, shares, rule)
    found = search_jointly(queries, galleries, shares, rule, k, depth=depth)
    assert found.rows.shape == (9, min(k, 40))
    np.testing.assert_allclose(np.take_along_axis(dense, found.rows, 1), found.similarities, atol=1e-5)
    np.testing.assert_allclose(found.similarities, -np.sort(-dense, axis=1)[:, :k], atol=1e-5)
    assert all(len(set(row)) == len(row) for row in found.rows.tolist())


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_concatenated_embeddings_find_what_the_mean_of_similarities_finds(seed):
    queries, galleries = draw(seed)
    weights = np.random.default_rng(seed).dirichlet(np.ones(3))
    names, ids = ["a", "b", "c"], [[str(row) for row in range(40)]] * 3
    gallery = concatenate_embeddings(names, ids, galleries, weights=weights)
    asked = concatenate_embeddings(names, [one[:9] for one in ids], queries, weights=weights)
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, atol=1e-5)
    found = search_jointly(queries, galleries, weights, "concat", 7)
    np.testing.assert_allclose(-np.sort(-(asked @ gallery.T), axis=1)[:, :7], found.similarities, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_the_order_of_members_changes_nothing_and_weight_0_removes_one(rule, seed):
    queries, galleries = draw(seed)
    shares = np.array([0.5, 0.0, 0.5])
    whole = search_jointly(queries, galleries, shares, rule, 6)
    turned = search_jointly(queries[::-1], galleries[::-1], shares[::-1], rule, 6)
    without = search_jointly(queries[::2], galleries[::2], shares[::2], rule, 6)
    for other in (turned, without):
        np.testing.assert_allclose(other.similarities, whole.similarities, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_blocks_and_a_look_at_the_whole_gallery_change_nothing(rule, monkeypatch):
    queries, galleries = draw(3, queries=30, rows=100)
    shares = np.array([0.2, 0.5, 0.3])
    expected = search_jointly(queries, galleries, shares, rule, 10, depth=100)
    monkeypatch.setattr(joint_search, "_NUMBERS_AT_A_TIME", 200)
    monkeypatch.setattr(joint_search, "_GALLERY_BLOCK", 7)
    found = search_jointly(queries, galleries, shares, rule, 10, depth=10)
    np.testing.assert_allclose(found.similarities, expected.similarities, atol=1e-5)
    np.testing.assert_array_equal(found.rows, expected.rows)


def test_candidates_alone_may_miss_what_the_bound_then_finds():
    """The row that is second for both models is the best together, and no model's nearest."""
    gallery = JointGallery([normalise_embeddings(np.array(rows)) for rows in TWO_FAVOURITES])
    queries = [np.array([[1.0, 0.0]], np.float32)] * 2
    equal = np.array([0.5, 0.5])
    missed = gallery.search(queries, equal, "product", 1, depth=1, is_exact=False)
    found = gallery.search(queries, equal, "product", 1, depth=1)
    assert missed.rows[0, 0] != 2
    assert found.rows[0, 0] == 2


TWO_FAVOURITES = ([[1, 0], [0, 1], [1, 0.1]], [[0, 1], [1, 0], [1, 0.1]])


def test_a_product_with_a_model_that_says_0_is_0():
    near = [np.array([[0.9, -0.2]], np.float32), np.array([[0.0, 0.9]], np.float32)]
    np.testing.assert_array_equal(join_similarities(near, np.array([0.5, 0.5]), "product"), [[0, 0]])
    np.testing.assert_allclose(join_similarities(near, np.array([1.0, 0.0]), "product"), [[0.9, 0]], atol=1e-6)


def test_copies_come_in_the_order_of_their_rows():
    rows = np.tile(np.array([[1.0, 0.0]], np.float32), (12, 1))
    found = search_jointly([rows[:1]] * 2, [rows] * 2, np.array([0.5, 0.5]), "product", 5)
    np.testing.assert_array_equal(found.rows, [[0, 1, 2, 3, 4]])


@pytest.mark.parametrize("rule", RULES)
def test_no_query_finds_nothing(rule):
    _, galleries = draw(0)
    queries = [rows[:0] for rows in galleries]
    assert search_jointly(queries, galleries, np.array([0.5, 0.2, 0.3]), rule, 4).rows.shape == (0, 4)
