"""Classes parted in halves: no class on both sides, groups as they are asked for, and the real sets as they are."""

import zipfile
from collections import Counter

import numpy as np
import pytest
from sections.halves import Pictures, halve, load_grocery, load_omniglot, split_classes

GROUPS = [*["apple"] * 5, "kiwi", "lime", "mango", *["milk"] * 6, *["juice"] * 3, "plum"]


@pytest.mark.parametrize("seed", range(20))
def test_each_group_is_dealt_to_both_halves(seed):
    halves = split_classes(GROUPS, seed, whole_groups=False)
    assert abs(int(halves.sum()) - int((~halves).sum())) <= 1
    for group, size in Counter(GROUPS).items():
        of_group = halves[np.array(GROUPS) == group]
        assert size // 2 <= of_group.sum() <= (size + 1) // 2


def test_groups_of_one_class_go_to_either_half_and_seeds_differ():
    parted = [split_classes(GROUPS, seed, whole_groups=False) for seed in range(20)]
    assert {bool(halves[GROUPS.index("kiwi")]) for halves in parted} == {False, True}
    assert len({halves.tobytes() for halves in parted}) > 10
    assert (parted[3] == split_classes(GROUPS, 3, whole_groups=False)).all()


@pytest.mark.parametrize("seed", range(5))
def test_whole_groups_lie_in_one_half(seed):
    halves = split_classes(GROUPS, seed, whole_groups=True)
    sides = {group: set(halves[np.array(GROUPS) == group].tolist()) for group in GROUPS}
    assert all(len(side) == 1 for side in sides.values())
    assert sum(side == {True} for side in sides.values()) in (3, 4)


def make_pictures(*, whole_groups=False):
    labels = np.repeat(np.arange(len(GROUPS)), 3)
    may_train = np.tile([True, True, False], len(GROUPS))
    return Pictures("some", None, [f"{n}.png" for n in range(len(labels))], labels, GROUPS, may_train, whole_groups)


@pytest.mark.parametrize("whole_groups", [False, True])
def test_no_class_is_on_both_sides_and_the_folds_change_places(whole_groups):
    pictures = make_pictures(whole_groups=whole_groups)
    first, second = (halve(pictures, 1, fold) for fold in (0, 1))
    for halves in (first, second):
        assert not set(pictures.labels[halves.train]) & set(pictures.labels[halves.test])
        assert pictures.may_train[halves.train].all()
        assert not pictures.may_train[halves.test].all()  # images that are never trained on may ask
    assert set(pictures.labels[first.train]) == set(pictures.labels[second.test])
    assert len(first.test) + len(second.test) == len(pictures.labels)


def test_a_quick_look_takes_whole_groups():
    some = make_pictures().take_groups(2)
    assert set(some.groups) == {"apple", "juice"}
    assert Counter(some.labels.tolist()) == dict.fromkeys(range(8), 3)
    assert len(some.paths) == len(some.may_train) == 24


def test_grocery_is_all_there(grocery):
    pictures = load_grocery(grocery)
    assert len(pictures.paths) == 2936 and int(pictures.may_train.sum()) == 2640
    assert len(pictures.groups) == 81 and set(pictures.labels) == set(range(81))
    assert pictures.groups[:5] == ["Apple"] * 5
    assert all((pictures.root / path).is_file() for path in pictures.paths[::500])


def test_drawings_are_grouped_by_alphabet_and_unpacked_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for alphabet in ("Greek", "Early_Aramaic"):
            for character in ("character01", "character02"):
                for drawing in range(3):
                    archive.writestr(f"images/{alphabet}-{character}/{drawing}.png", b"drawn")
        archive.writestr("images/readme.txt", b"no drawing")
    pictures = load_omniglot(tmp_path / "set.zip", tmp_path / "unpacked")
    assert pictures.groups == ["Early_Aramaic"] * 2 + ["Greek"] * 2
    assert Counter(pictures.labels.tolist()) == dict.fromkeys(range(4), 3)
    assert pictures.may_train.all() and pictures.whole_groups
    kept = tmp_path / "unpacked" / pictures.paths[0]
    kept.write_bytes(b"seen")
    load_omniglot(tmp_path / "set.zip", tmp_path / "unpacked")
    assert kept.read_bytes() == b"seen"
