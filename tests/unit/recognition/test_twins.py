"""Twin classes: one product under two names is told, and near-identical ones are not."""

import numpy as np

from productrec.recognition.twins import find_twins


def embed(spots, each, seed=0, noise=0.2):
    """Images around a spot each, as unit rows, and their neighbours' rows without themselves."""
    generator = np.random.default_rng(seed)
    rows = np.repeat(spots, each, axis=0) + noise * generator.standard_normal((len(spots) * each, spots.shape[1]))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    similarities = rows @ rows.T
    np.fill_diagonal(similarities, -2)
    return np.argsort(-similarities, axis=1)


def test_a_class_that_was_parted_by_chance_is_told_and_no_other():
    spots = np.random.default_rng(1).standard_normal((8, 16))
    nearest = embed(spots, 30)[:, :10]
    truth = np.repeat(np.arange(8), 30)
    labels = np.where((truth == 5) & (np.random.default_rng(2).random(240) < 0.4), 8, truth)
    (pair,) = find_twins(labels, labels[nearest], 9)
    assert (pair.one, pair.other) == (5, 8) and pair.mixing > 0.8


def test_siblings_that_can_be_told_apart_are_no_twins():
    spots = np.random.default_rng(1).standard_normal((4, 16))
    spots[1] = spots[0] + 0.25 * np.random.default_rng(3).standard_normal(16)  # near, and yet another
    labels = np.repeat(np.arange(4), 30)
    nearest = embed(spots, 30, noise=0.1)[:, :10]
    assert find_twins(labels, labels[nearest], 4) == []
    assert [pair[:2] for pair in find_twins(labels, labels[embed(spots, 30, noise=3.0)[:, :10]], 4)]


def test_mixing_is_one_where_both_sides_see_what_chance_would_show():
    labels = np.array([0, 0, 1, 1, -1])
    neighbours = np.array([[0, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 0], [0, 0, 0]])
    (pair,) = find_twins(labels, neighbours, 2)
    assert pair.mixing == 1.0 and abs(pair.cross - 2 / 3) < 1e-9
    assert find_twins(labels, np.full((5, 3), -1), 2) == []


def test_blocks_of_images_change_nothing(monkeypatch):
    generator = np.random.default_rng(4)
    labels, neighbours = generator.integers(-1, 6, 200), generator.integers(-1, 6, (200, 5))
    whole = find_twins(labels, neighbours, 6, least=0.0)
    monkeypatch.setattr("productrec.recognition.twins._ROWS_AT_A_TIME", 7)
    assert find_twins(labels, neighbours, 6, least=0.0) == whole
    # by hand: how often the images of either class see the other's among those of both
    own = [[(neighbours[labels == one] == other).sum() for other in (0, 1)] for one in (0, 1)]
    cross = np.mean([own[0][1] / sum(own[0]), own[1][0] / sum(own[1])])
    (pair,) = [pair for pair in whole if (pair.one, pair.other) == (0, 1)]
    assert abs(pair.cross - cross) < 1e-12
