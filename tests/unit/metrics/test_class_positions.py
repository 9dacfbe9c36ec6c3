"""Positions of class ids: as a dictionary gives them, whatever the order of the classes and the shape of the labels."""

import numpy as np
import pytest

from productrec.metrics.class_positions import find_positions

UNLABELLED = np.iinfo(np.int64).min


@pytest.mark.parametrize("class_ids", [[3], [2, 5, 9, 40], [40, 2, 9, 5]])
@pytest.mark.parametrize("shape", [(24,), (6, 4), (0,)])
def test_positions_are_those_of_a_dictionary(class_ids, shape):
    labels = np.random.default_rng(0).choice([2, 3, 5, 9, 40, 41, -1, UNLABELLED], size=shape)
    by_id = {class_id: position for position, class_id in enumerate(class_ids)}
    wanted = [by_id.get(int(label), -1) for label in labels.ravel()]
    positions = find_positions(labels, class_ids)
    assert positions.dtype == np.int64 and positions.shape == shape
    assert positions.ravel().tolist() == wanted
