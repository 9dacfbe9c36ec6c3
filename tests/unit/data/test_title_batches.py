"""Titles of training images: which belong together, and one for each image of a batch."""

import numpy as np
import torch

from productrec.data.title_batches import RowTitles
from productrec.data.titles import number_groups


def same(groups, *rows):
    return len({groups[row] for row in rows}) == 1


class TestGroups:
    def test_equal_titles_belong_together_and_different_ones_do_not(self):
        groups = number_groups([["oat milk"], ["oat milk"], ["soy milk"], []], None)
        assert same(groups, 0, 1)
        assert len(set(groups.tolist())) == 3

    def test_images_of_a_class_belong_together_whatever_their_titles(self):
        groups = number_groups([["a"], ["b"], ["c"]], np.array([4, 4, 5]))
        assert same(groups, 0, 1)
        assert groups[2] != groups[0]

    def test_a_chain_of_titles_and_classes_joins_its_ends(self):
        groups = number_groups([["a"], ["a"], ["b"], ["c"]], np.array([0, 1, 1, 2]))
        assert same(groups, 0, 1, 2)
        assert groups[3] != groups[0]

    def test_images_without_title_and_class_stand_alone(self):
        groups = number_groups([[], [], []], np.array([-1, -1, -1]))
        assert len(set(groups.tolist())) == 3

    def test_one_title_of_several_is_enough(self):
        assert same(number_groups([["a", "b"], ["b", "c"], ["c"]], None), 0, 1, 2)


def make_titles(seed=0):
    return RowTitles(
        ids=torch.tensor([[1, 2, 3], [4, 0, 0], [5, 6, 0]]),
        lengths=torch.tensor([3, 1, 2]),
        starts=np.array([0, 1, 1, 3]),  # the second image has none, the third two
        groups=np.array([7, 8, 9]),
        seed=seed,
    )


class TestPicking:
    def test_a_batch_has_a_title_of_each_image_no_wider_than_the_longest(self):
        batch = make_titles().pick(torch.tensor([2, 1]), epoch=0)
        assert batch.ids.shape == (2, int(batch.lengths.max()))
        assert batch.present.tolist() == [True, False]
        assert batch.groups.tolist() == [9, 8]
        assert batch.ids[0, 0] in (4, 5)

    def test_epochs_take_turns_among_several_titles_and_the_same_epoch_does_not(self):
        titles = make_titles()
        taken = [int(titles.pick(torch.tensor([2]), epoch).ids[0, 0]) for epoch in range(20)]
        assert set(taken) == {4, 5}
        assert taken == [int(titles.pick(torch.tensor([2]), epoch).ids[0, 0]) for epoch in range(20)]

    def test_another_seed_takes_others(self):
        rows = torch.tensor([2] * 1)
        one, other = ([int(make_titles(seed).pick(rows, epoch).ids[0, 0]) for epoch in range(20)] for seed in (0, 1))
        assert one != other
