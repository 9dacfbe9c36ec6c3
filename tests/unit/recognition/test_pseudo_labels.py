"""Pseudo-labels: which images are sure enough, by their top probability."""

import numpy as np
import pytest

from productrec.errors import DataError
from productrec.recognition.probabilities import ClassProbabilities
from productrec.recognition.pseudo_labels import choose_pseudo_labels


def build(tmp_path, values, fallback=(), class_ids=(7, 3, 9)):
    ids = [f"{row}.jpg" for row in range(len(values))]
    array = np.array(values, dtype=np.float16)
    return ClassProbabilities(tmp_path, ids, list(class_ids), list("abc"), array, list(fallback), {}, "print")


VALUES = [[0.9, 0.05, 0.05], [0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.05, 0.05, 0.9], [0.5, 0.5, 0.0]]


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (0.0, {"0.jpg": 7, "1.jpg": 9, "2.jpg": 3, "3.jpg": 9, "4.jpg": 7}),
        (0.5, {"0.jpg": 7, "1.jpg": 9, "2.jpg": 3, "3.jpg": 9, "4.jpg": 7}),
        (0.6, {"0.jpg": 7, "2.jpg": 3, "3.jpg": 9}),
        (1.0, {"2.jpg": 3}),
    ],
)
def test_the_surest_get_their_best_class(tmp_path, least, expected):
    assert choose_pseudo_labels(build(tmp_path, VALUES), least=least, known=[3, 7, 9]) == expected


def test_unreadable_images_and_unknown_classes_get_none(tmp_path):
    probabilities = build(tmp_path, VALUES, fallback=["2.jpg"])
    assert choose_pseudo_labels(probabilities, least=0.6, known=[3, 7]) == {"0.jpg": 7}


def test_blocks_do_not_matter(tmp_path, monkeypatch):
    whole = choose_pseudo_labels(build(tmp_path, VALUES), least=0.5, known=[3, 7, 9])
    monkeypatch.setattr("productrec.recognition.pseudo_labels._BLOCK_ROWS", 2)
    assert choose_pseudo_labels(build(tmp_path, VALUES), least=0.5, known=[3, 7, 9]) == whole


def test_none_sure_enough_is_told_with_the_highest(tmp_path):
    with pytest.raises(DataError, match=r"top probability of 0\.95; the highest is 0\.90.*pseudo_confidence"):
        choose_pseudo_labels(build(tmp_path, [VALUES[0], VALUES[1]]), least=0.95, known=[3, 7, 9])
