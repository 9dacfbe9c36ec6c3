"""Blending: a weighted mean, refused where members speak of different things."""

import numpy as np
import pytest

from productrec.ensembling.blend import blend_probabilities, check_same_order, resolve_weights
from productrec.errors import ArtifactError


def test_the_blend_is_the_weighted_mean_whatever_the_block():
    generator = np.random.default_rng(0)
    members = [generator.dirichlet(np.ones(4), 10).astype(np.float16) for _ in range(3)]
    shares = resolve_weights(["a", "b", "c"], [2, 1, 1])
    expected = 0.5 * members[0].astype(np.float32) + 0.25 * members[1] + 0.25 * members[2]
    for block_rows in (1, 3, 100):
        out = np.empty((10, 4), np.float16)
        blend_probabilities(members, shares, out, block_rows=block_rows)
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
