"""Blending: weighted means of three kinds, refused where members speak of different things."""

import numpy as np
import pytest
from scipy.stats import rankdata

from productrec.ensembling.blend import (
    Blend,
    blend_block,
    blend_probabilities,
    build_blend,
    check_same_order,
    resolve_weights,
    score_ranks,
    weigh,
)
from productrec.errors import ArtifactError


def test_the_blend_is_the_weighted_mean_whatever_the_block():
    generator = np.random.default_rng(0)
    members = [generator.dirichlet(np.ones(4), 10).astype(np.float16) for _ in range(3)]
    blend = weigh(["a", "b", "c"], [2, 1, 1])
    expected = 0.5 * members[0].astype(np.float32) + 0.25 * members[1] + 0.25 * members[2]
    for block_rows in (1, 3, 100):
        out = np.empty((10, 4), np.float16)
        blend_probabilities(members, blend, out, block_rows=block_rows)
        np.testing.assert_allclose(out, expected, atol=1e-3)


def test_equal_weights_are_the_default():
    np.testing.assert_allclose(resolve_weights(["a", "b"], None), [0.5, 0.5])
    np.testing.assert_allclose(resolve_weights(["a", "b"], [1e308, 1e308]), [0.5, 0.5])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ArtifactError, match="weights"):
        resolve_weights(["a", "b"], weights)


def test_another_class_order_is_refused_and_named():
    check_same_order(["a", "b"], [[1, 2], [1, 2]], "class order")
    with pytest.raises(ArtifactError, match="b differs from a: the same ones stand in another order"):
        check_same_order(["a", "b"], [[1, 2], [2, 1]], "class order")
    with pytest.raises(ArtifactError, match=r"1 \(3\) stand in only one of them"):
        check_same_order(["a", "b"], [[1, 2], [1, 2, 3]], "class order")


def test_the_geometric_mean_is_the_normalised_product_of_powers():
    generator = np.random.default_rng(1)
    members = [generator.dirichlet(np.ones(5), 7).astype(np.float32) for _ in range(2)]
    expected = members[0] ** 0.7 * members[1] ** 0.6
    blended = blend_block(members, Blend((0.7, 0.6), "geometric"))
    np.testing.assert_allclose(blended, expected / expected.sum(axis=1, keepdims=True), rtol=1e-4)


def test_the_mean_of_ranks_is_bordas_count_and_equal_probabilities_share_a_rank():
    members = [np.array([[0.5, 0.3, 0.2]], np.float32), np.array([[0.1, 0.8, 0.1]], np.float32)]
    blended = blend_block(members, Blend((1.0, 1.0), "rank"))
    scores = np.array([[2 + 0.5, 1 + 2, 0 + 0.5]])
    np.testing.assert_allclose(blended, scores / scores.sum(), rtol=1e-5)


@pytest.mark.parametrize("rule", ["mean", "geometric", "rank"])
def test_one_without_weight_is_not_looked_at(rule):
    members = [np.full((4, 3), 1 / 3, np.float32), np.full((4, 3), np.nan, np.float32)]
    out = np.empty((4, 3), np.float32)
    blend_probabilities(members, Blend((1.0, 0.0), rule), out, block_rows=3)
    np.testing.assert_allclose(out, 1 / 3, rtol=1e-5)


def test_what_was_described_is_built_again_in_another_order_and_for_no_other_models():
    blend = Blend((0.2, 0.9), "geometric")
    assert build_blend(blend.describe(["a", "b"]), ["b", "a"]) == Blend((0.9, 0.2), "geometric")
    with pytest.raises(ArtifactError, match="must be of a, c; got one of a, b"):
        build_blend(blend.describe(["a", "b"]), ["a", "c"])


@pytest.mark.parametrize("levels", [3, 1_000_000])
def test_ranks_are_those_of_scipy_with_and_without_equal_ones(levels):
    values = np.random.default_rng(2).integers(0, levels, (50, 23)).astype(np.float32)
    np.testing.assert_array_equal(score_ranks(values), 23 - rankdata(-values, axis=1))
