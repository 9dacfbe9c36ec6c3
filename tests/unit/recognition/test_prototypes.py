"""Class prototypes: means, shrunk towards those of their category, and what a category says for its classes."""

import numpy as np
import pytest

from productrec.recognition.prototypes import back_off, build_prototypes, compare_prototypes


def unit(*rows):
    values = np.array(rows, dtype=np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


ROWS = unit([1, 0, 0], [1, 0.2, 0], [0, 1, 0], [0, 0, 1])
CLASSES = np.array([0, 0, 1, 3])


def test_without_shrinkage_they_are_unit_means_and_nothing_for_a_class_without_images():
    found = build_prototypes(ROWS, CLASSES, 4, shrinkage=0.0)
    np.testing.assert_allclose(found[0], unit(ROWS[:2].mean(axis=0))[0], atol=1e-6)
    np.testing.assert_allclose(found[[1, 3]], ROWS[[2, 3]], atol=1e-6)
    assert not found[2].any()


def test_rows_of_no_class_are_left_out():
    more = np.concatenate([ROWS, unit([5, 5, 5])])
    np.testing.assert_array_equal(
        build_prototypes(more, np.append(CLASSES, -1), 4, shrinkage=1.0),
        build_prototypes(ROWS, CLASSES, 4, shrinkage=1.0),
    )


def test_a_class_of_few_images_is_drawn_to_its_category_alone():
    found = build_prototypes(ROWS, CLASSES, 4, shrinkage=2.0, categories=[7, 7, 7, 9])
    parent = (ROWS[:2].mean(axis=0) + ROWS[2]) / 2  # of the two classes of the category that have images
    np.testing.assert_allclose(found[0], unit((2 * ROWS[:2].mean(axis=0) + 2 * parent) / 4)[0], atol=1e-6)
    np.testing.assert_allclose(found[1], unit((ROWS[2] + 2 * parent) / 3)[0], atol=1e-6)
    np.testing.assert_allclose(found[3], ROWS[3], atol=1e-6)  # alone in its category
    assert not found[2].any()


def test_a_class_without_images_is_as_far_as_can_be():
    similarities = compare_prototypes(ROWS.astype(np.float32), build_prototypes(ROWS, CLASSES, 4, shrinkage=0.0))
    np.testing.assert_allclose(similarities[2], [ROWS[2] @ unit(ROWS[:2].mean(axis=0))[0], 1.0, -1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_category_speaks_for_its_classes(share):
    probabilities = np.array([[0.5, 0.1, 0.4], [0.2, 0.2, 0.6]])
    found = back_off(probabilities, [4, 4, 2], share)
    category = np.array([[0.3, 0.3, 0.4], [0.2, 0.2, 0.6]])
    np.testing.assert_allclose(found, (1 - share) * probabilities + share * category, atol=1e-6)
