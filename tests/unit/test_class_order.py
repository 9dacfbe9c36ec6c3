"""Class order: positions of ids and keys, in any order and any shape, and what is in none."""

import numpy as np
import pytest

from productrec.class_order import ClassOrder


@pytest.mark.parametrize("seed", range(10))
def test_positions_are_where_the_classes_stand(seed):
    generator = np.random.default_rng(seed)
    ids = generator.permutation(50)[: generator.integers(1, 20)] - 5
    labels = generator.integers(-10, 60, (7, 3))
    positions = {int(class_id): position for position, class_id in enumerate(ids)}
    expected = [[positions.get(int(label), -1) for label in row] for row in labels]
    seen = ClassOrder(ids).positions_of(labels)
    assert seen.dtype == np.int64
    assert seen.tolist() == expected


def test_keys_are_found_as_ids_are():
    order = ClassOrder(["tea", "cola", "a very long name"])
    assert order.positions_of(["cola", "tea", "a very long", "z", ""]).tolist() == [1, 0, -1, -1, -1]
    assert len(order) == 3


def test_no_classes_and_no_labels():
    assert ClassOrder([]).positions_of([3, 4]).tolist() == [-1, -1]
    assert ClassOrder([3]).positions_of(np.empty((0, 5), np.int64)).shape == (0, 5)


def test_labels_make_an_ascending_order():
    order = ClassOrder.of_labels([7, 3, 7, 5])
    assert order.list_ids() == [3, 5, 7]
    assert [type(class_id) for class_id in order.list_ids()] == [int] * 3
