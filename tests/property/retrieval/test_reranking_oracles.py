"""Re-rankings against dense oracles that are written from the papers' formulas, and what holds for each of them."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from productrec.retrieval.reranking.catalogue import list_rerankings
from productrec.retrieval.reranking.engine import jaccard_mix
from productrec.retrieval.reranking.first_search import search_first
from productrec.retrieval.reranking.methods.alpha_query_expansion import AlphaQueryExpansion
from productrec.retrieval.reranking.methods.class_bridged import ClassBridged
from productrec.retrieval.reranking.methods.database_augmentation import DatabaseAugmentation
from productrec.retrieval.reranking.methods.diffusion import Diffusion
from productrec.retrieval.reranking.methods.k_reciprocal import KReciprocal
from productrec.retrieval.reranking.methods.label_aware import LabelAware
from productrec.retrieval.reranking.methods.neighbourhood_blending import NeighbourhoodBlending

SEEDS = st.integers(0, 2**32 - 1)


def draw_clustered(seed, queries, rows, dim=8, classes=6, noise=0.8):
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((classes, dim))
    labels = generator.integers(0, classes, queries + rows)
    values = centres[labels] + noise * generator.standard_normal((queries + rows, dim))
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return values[:queries], values[queries:], labels[queries:]


def check_same_order(found, expected, tolerance=1e-4):
    """Each list is the beginning of the order by ``expected`` (Q, M), rows that are equal within rounding aside."""
    rows, similarities = found
    told = np.take_along_axis(expected, rows, axis=1)
    best = -np.sort(-expected, axis=1)[:, : rows.shape[1]]
    np.testing.assert_allclose(told, best, atol=tolerance)
    assert all(len(set(row)) == len(row) for row in rows.tolist())
    return told, similarities


def rerank_densely(queries, gallery, k1, k2, weight):
    """Zhong et al. 2017, equations 2 to 12, with sets and loops; 1 - d*."""
    values = np.concatenate([queries, gallery]).astype(np.float64)
    count = len(values)
    distances = np.maximum(2 - 2 * values @ values.T, 0)
    order = []
    for i in range(count):
        others = [j for j in np.argsort(distances[i], kind="stable") if j != i]
        order.append([i, *others])

    def find_mutual(i, k):
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    vectors = np.zeros((count, count))
    for i in range(count):
        mutual = find_mutual(i, k1)
        expanded = set(mutual)
        for q in mutual:
            smaller = find_mutual(q, round(k1 / 2))
            if 3 * len(mutual & smaller) >= 2 * len(smaller):
                expanded |= smaller
        for j in expanded:
            vectors[i, j] = np.exp(-distances[i, j])
    vectors = np.stack([vectors[order[i][:k2]].mean(axis=0) for i in range(count)])
    similarities = np.zeros((len(queries), len(gallery)))
    for q in range(len(queries)):
        for g in range(len(gallery)):
            mine, other = vectors[q], vectors[len(queries) + g]
            jaccard = 1 - np.minimum(mine, other).sum() / np.maximum(mine, other).sum()
            similarities[q, g] = 1 - (1 - weight) * jaccard - weight * distances[q, len(queries) + g]
    return similarities


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    seed=SEEDS,
    queries=st.integers(1, 12),
    rows=st.integers(1, 40),
    k=st.sampled_from([1, 5, 100]),
    k1=st.integers(1, 12),
    k2=st.integers(1, 7),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
    noise=st.sampled_from([0.3, 0.8, 3.0]),
    dense_share=st.sampled_from([-1.0, 2.0]),
)
def test_sparse_k_reciprocal_ranks_as_the_dense_algorithm_of_the_paper(
    seed, queries, rows, k, k1, k2, weight, noise, dense_share
):
    asked, gallery, _ = draw_clustered(seed, queries, rows, noise=noise)
    with mock.patch.object(jaccard_mix, "DENSE_SHARE", dense_share):
        found = KReciprocal(k1=k1, k2=k2, original_weight=weight).rerank(search_first(asked, gallery, k=k))
    told, similarities = check_same_order(found, rerank_densely(asked, gallery, k1, k2, weight))
    np.testing.assert_allclose(similarities, told, atol=1e-4)


def diffuse_densely(queries, gallery, k, query_k, gamma, alpha, kept=None):
    """Iscen et al. 2017: f = (I - alpha S)^-1 y with the whole matrix; over its largest value."""
    values = gallery.astype(np.float64)
    similarities = values @ values.T
    np.fill_diagonal(similarities, -np.inf)
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, : min(k, len(values) - 1)]
    is_near = np.zeros(similarities.shape, bool)
    np.put_along_axis(is_near, nearest, True, axis=1)
    graph = np.where(is_near & is_near.T & (similarities > 0), np.maximum(similarities, 0) ** gamma, 0)
    degrees = graph.sum(axis=1)
    scale = np.where(degrees > 0, 1 / np.sqrt(np.where(degrees > 0, degrees, 1)), 0)
    graph = scale[:, None] * graph * scale
    answers = np.zeros((len(queries), len(gallery)))
    for q, near in enumerate(queries.astype(np.float64) @ values.T):
        ranked = np.argsort(-near, kind="stable")
        sources = np.zeros(len(gallery))
        sources[ranked[:query_k]] = np.maximum(near[ranked[:query_k]], 0) ** gamma
        part = ranked[: kept or len(ranked)]
        inner = np.eye(len(part)) - alpha * graph[np.ix_(part, part)]
        answers[q, part] = np.linalg.solve(inner, sources[part])
    return answers / np.maximum(answers.max(axis=1, keepdims=True), 1e-300)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    seed=SEEDS,
    queries=st.integers(1, 6),
    rows=st.integers(1, 60),
    k=st.integers(1, 10),
    query_k=st.integers(1, 12),
    alpha=st.sampled_from([0.0, 0.5, 0.9]),
    truncate=st.sampled_from([0, 20]),
)
def test_diffusion_is_the_dense_solution(seed, queries, rows, k, query_k, alpha, truncate):
    asked, gallery, _ = draw_clustered(seed, queries, rows)
    method = Diffusion(k=k, query_k=query_k, alpha=alpha, gamma=3.0, iterations=500, tolerance=1e-10, truncate=truncate)
    found = method.rerank(search_first(asked, gallery, k=15))
    expected = diffuse_densely(asked, gallery, k, query_k, 3.0, alpha, kept=truncate)
    told, similarities = check_same_order(found, expected)
    np.testing.assert_allclose(similarities, told, atol=1e-4)


def bridge_densely(queries, gallery, labels, k, classes, bonus, weight, power):
    similarities = queries.astype(np.float64) @ gallery.T
    answers = np.zeros(similarities.shape)

    def judge(near, rows):
        told = {}
        for row in rows[np.argsort(-near[rows], kind="stable")][:k]:
            if labels[row] >= 0 and near[row] > 0:
                told[labels[row]] = max(told.get(labels[row], 0), near[row])
        return told

    known = np.flatnonzero(labels >= 0)
    for q, near in enumerate(similarities):
        told = judge(near, np.arange(len(gallery)))
        best = sorted(told, key=lambda name: -told[name])[:classes]
        mine = {name: told[name] + (bonus if name == best[0] else 0) for name in best}
        for g in range(len(gallery)):
            theirs = {labels[g]: 1.0} if labels[g] >= 0 else judge(gallery[g].astype(np.float64) @ gallery.T, known)
            bridge = max([min(mine[name], theirs[name]) for name in mine if name in theirs], default=0)
            mean = ((max(near[g], 0) ** power + weight * bridge**power) / (1 + weight)) ** (1 / power)
            answers[q, g] = mean if bridge > 0 else near[g] * (1 + weight) ** (-1 / power)
    return answers


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    seed=SEEDS,
    rows=st.integers(1, 40),
    k=st.integers(1, 12),
    classes=st.integers(1, 4),
    bonus=st.sampled_from([0.0, 0.5]),
    unknown=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_class_bridged_is_its_formula(seed, rows, k, classes, bonus, unknown):
    asked, gallery, labels = draw_clustered(seed, 4, rows)
    labels = np.where(np.random.default_rng(seed).random(rows) < unknown, -1, labels * 7)
    first = search_first(asked, gallery, k=15, labels=labels)
    found = ClassBridged(k=k, classes=classes, bonus=bonus, weight=0.7, power=2.0).rerank(first)
    if (labels < 0).all():
        assert found is first.lists
        return
    # The classes of a query are told by the list, so that the list must be as deep as k.
    expected = bridge_densely(asked, gallery, labels, min(k, 15), classes, bonus, 0.7, 2.0)
    told, similarities = check_same_order(found, expected)
    np.testing.assert_allclose(similarities, told, atol=1e-4)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(seed=SEEDS, rows=st.integers(1, 40), k=st.integers(1, 12), power=st.sampled_from([0.0, 1.0, 3.0]))
def test_label_aware_is_its_formula(seed, rows, k, power):
    asked, gallery, labels = draw_clustered(seed, 4, rows)
    found = LabelAware(k=k, power=power, classes=6, weight=0.5).rerank(
        search_first(asked, gallery, k=15, labels=labels)
    )
    expected = asked.astype(np.float64) @ gallery.T
    for near in expected:
        ranked = np.argsort(-near, kind="stable")[:k]
        votes = np.where(near[ranked] > 0, np.maximum(near[ranked], 0) ** power, 0)
        shares = np.bincount(labels[ranked], votes, minlength=6) / max(votes.sum(), 1e-300)
        near += 0.5 * shares[labels]
    told, similarities = check_same_order(found, expected)
    np.testing.assert_allclose(similarities, told, atol=1e-4)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(seed=SEEDS, rows=st.integers(1, 30), k=st.integers(0, 8), alpha=st.sampled_from([0.0, 1.0, 3.0]))
def test_expansions_are_their_formulas(seed, rows, k, alpha):
    asked, gallery, labels = draw_clustered(seed, 5, rows)
    first = search_first(asked, gallery, k=4, labels=labels)

    def mix(value, others, weights):
        total = value.astype(np.float64) + (weights[:, None] * others.astype(np.float64)).sum(axis=0)
        return total / np.linalg.norm(total)

    def find(value, without=None, label=None):
        near = gallery.astype(np.float64) @ value
        rows = [g for g in np.argsort(-near, kind="stable") if g != without and label in (None, labels[g])][:k]
        return rows, near[rows]

    def weigh(near):
        return np.where(near > 0, np.maximum(near, 0) ** alpha, 0)

    expanded, same = AlphaQueryExpansion(k=k, alpha=alpha).expand(first)
    assert same is first.gallery
    for value, new in zip(asked, expanded, strict=True):
        chosen, near = find(value)
        np.testing.assert_allclose(new, mix(value, gallery[chosen], weigh(near)), atol=1e-4)
    for same_class in (False, True):
        for kind in ("similarity", "rank"):
            method = DatabaseAugmentation(k=k, alpha=alpha, weights=kind, same_class=same_class)
            same, augmented = method.expand(first)
            assert same is first.queries
            for g, new in enumerate(augmented):
                chosen, near = find(gallery[g], without=g, label=labels[g] if same_class else None)
                ranks = np.arange(1, len(chosen) + 1)
                weights = weigh(near) if kind == "similarity" else (k - ranks) / max(k, 1)
                np.testing.assert_allclose(new, mix(gallery[g], gallery[chosen], weights), atol=1e-4)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    seed=SEEDS,
    rows=st.integers(1, 30),
    rounds=st.integers(0, 3),
    threshold=st.sampled_from([0.2, 0.6, 0.9]),
    least=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_neighbourhood_blending_is_its_formula(seed, rows, rounds, threshold, least):
    asked, gallery, _ = draw_clustered(seed, 3, rows)
    method = NeighbourhoodBlending(rounds=rounds, k=5, threshold=threshold, least_similarity=least)
    found = method.expand(search_first(asked, gallery, k=3))
    queries, gallery = asked.astype(np.float64), gallery.astype(np.float64)

    def blend(values, without):
        blended = []
        for place, value in enumerate(values):
            near = gallery @ value
            chosen = [g for g in np.argsort(-near, kind="stable") if not (without and g == place)][:5]
            close = [g for g in chosen if near[g] > threshold] or [g for g in chosen[:1] if near[g] > least]
            total = value + sum(near[g] * gallery[g] for g in close)
            blended.append(total / np.linalg.norm(total))
        return np.array(blended)

    for _ in range(rounds):
        queries, gallery = blend(queries, without=False), blend(gallery, without=True)
    # A similarity that equals a threshold within rounding may fall either way; such a draw is rare and would show.
    np.testing.assert_allclose(found[0], queries, atol=1e-3)
    np.testing.assert_allclose(found[1], gallery, atol=1e-3)


@pytest.mark.parametrize("name", list(list_rerankings()))
@settings(deadline=None, derandomize=True, max_examples=15)
@given(seed=SEEDS, rows=st.integers(1, 60), queries=st.integers(1, 8), k=st.sampled_from([1, 7, 100]))
def test_permuted_gallery_rows_give_permuted_answers(name, seed, rows, queries, k):
    asked, gallery, labels = draw_clustered(seed, queries, rows)
    order = np.random.default_rng(seed).permutation(rows)
    method = list_rerankings()[name]()
    found = method.rerank(search_first(asked, gallery, k=k, labels=labels))
    permuted = method.rerank(search_first(asked, gallery[order], k=k, labels=labels[order]))
    np.testing.assert_allclose(permuted.similarities, found.similarities, atol=1e-3)
    for mine, theirs, values in zip(found.rows, order[permuted.rows], found.similarities, strict=True):
        clear = np.abs(np.subtract.outer(values, values) + np.eye(len(values))).min(axis=1, initial=1.0) > 1e-3
        clear[-1] = False  # its equal may be the first that was left out
        assert mine[clear].tolist() == theirs[clear].tolist()


@pytest.mark.parametrize("name", list(list_rerankings()))
@settings(deadline=None, derandomize=True, max_examples=15)
@given(seed=SEEDS, rows=st.integers(1, 60), queries=st.integers(1, 8), k=st.sampled_from([1, 7, 100]))
def test_lists_are_whole_descending_and_name_a_row_once(name, seed, rows, queries, k):
    asked, gallery, labels = draw_clustered(seed, queries, rows)
    found = list_rerankings()[name]().rerank(search_first(asked, gallery, k=k, labels=labels))
    assert found.rows.shape == found.similarities.shape == (queries, min(k, rows))
    assert found.rows.dtype == np.int64 and found.similarities.dtype == np.float32
    assert (np.diff(found.similarities, axis=1) <= 0).all() and np.isfinite(found.similarities).all()
    assert all(len(set(row)) == len(row) and min(row) >= 0 and max(row) < rows for row in found.rows.tolist())
