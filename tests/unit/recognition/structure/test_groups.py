"""Groups: images of one listing answer together, as a loop over groups would have it."""

import numpy as np
import pytest

from productrec.recognition.structure.groups import ALONE, number_groups, pool_groups


def draw(rows=60, classes=5, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), rows).astype(np.float32)


def gather(values, *arguments, **others):
    out = np.full(values.shape, np.nan, np.float32)
    for rows, block in pool_groups(values, *arguments, **others):
        assert block.dtype == np.float32 and np.isnan(out[rows]).all()  # every row once
        out[rows] = block
    return out


def pool_by_loops(values, groups, power, silent):
    out = values.astype(np.float64)
    for group in set(groups.tolist()) - {ALONE}:
        rows = np.flatnonzero(groups == group)
        speaking = [row for row in rows if not silent[row]]
        if not speaking:
            continue
        mean = np.mean([np.log(np.maximum(values[row].astype(np.float64), 1e-30)) for row in speaking], axis=0)
        for row in rows:
            own = np.log(np.maximum(values[row].astype(np.float64), 1e-30))
            mixed = np.exp(mean if silent[row] else (1 - power) * own + power * mean)
            out[row] = mixed / mixed.sum()
    return out


@pytest.mark.parametrize("block_rows", [1, 7, 4096])
@pytest.mark.parametrize("power", [0.3, 1.0])
def test_pooling_is_that_of_a_loop_whatever_the_block(power, block_rows):
    values = draw()
    groups = np.random.default_rng(1).integers(ALONE, 6, len(values))
    silent = np.random.default_rng(2).random(len(values)) < 0.2
    silent[groups == 3] = True  # a group of which nothing is known
    found = gather(values, groups, power, silent=silent, block_rows=block_rows)
    np.testing.assert_allclose(found, pool_by_loops(values, groups, power, silent), atol=2e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_full_pooling_makes_the_images_of_a_group_alike_and_leaves_others():
    values = draw(4)
    found = gather(values, np.array([0, ALONE, 0, ALONE]), 1.0)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)
    np.testing.assert_array_equal(found[[1, 3]], values[[1, 3]])


@pytest.mark.parametrize(("groups", "power"), [(None, 1.0), (np.zeros(60, np.int64), 0.0)])
def test_without_groups_or_power_nothing_changes(groups, power):
    values = draw()
    np.testing.assert_array_equal(gather(values, groups, power), values)


def test_certain_images_that_disagree_stay_finite():
    found = gather(np.eye(3, dtype=np.float32), np.zeros(3, np.int64), 1.0)
    np.testing.assert_allclose(found, 1 / 3, atol=1e-6)


def test_a_group_is_of_at_least_two_images_with_a_name():
    numbers = number_groups(["b", None, "a", "b", "", "", float("nan"), "a", "single"])
    assert numbers.tolist() == [1, ALONE, 0, 1, ALONE, ALONE, ALONE, 0, ALONE]
    assert number_groups([]).tolist() == []
