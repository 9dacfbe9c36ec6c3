"""Categories: what a category has in sum lifts its classes."""

import numpy as np

from productrec.recognition.structure.categories import lift_categories


def test_a_likely_category_wins_over_a_single_class():
    values = np.array([[0.4, 0.3, 0.3, 0.0]], np.float32)
    categories = [7, 2, 2, 7]
    lifted = lift_categories(values, categories, 1.0)
    expected = values * np.array([0.4, 0.6, 0.6, 0.4])
    np.testing.assert_allclose(lifted, expected / expected.sum(), atol=1e-6)
    assert values.argmax() == 0 and lifted.argmax() == 1 and lifted.dtype == np.float32


def test_ratios_within_a_category_stay_and_strength_0_changes_nothing():
    values = np.random.default_rng(0).dirichlet(np.ones(6), 20).astype(np.float32)
    lifted = lift_categories(values, [0, 1, 0, 2, 1, 0], 0.7)
    np.testing.assert_allclose(lifted[:, 0] / lifted[:, 5], values[:, 0] / values[:, 5], rtol=1e-4)
    np.testing.assert_allclose(lifted.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(lift_categories(values, [0, 1, 0, 2, 1, 0], 0.0), values)
