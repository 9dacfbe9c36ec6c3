"""Images whose class stands for no product become distractors, without a label."""

import pandas as pd
import pytest

from productrec.data.curation.distractors import find_distractors, set_apart
from productrec.data.table import CLASS_COLUMNS, DISTRACTORS, IMAGE_COLUMNS, build_frame, check_table
from productrec.errors import DataError

CLASSES = build_frame(CLASS_COLUMNS, {"id": [1, 2, 3], "name": ["cola", "new_whale", "tea"]})
IMAGES = build_frame(
    IMAGE_COLUMNS,
    {
        "image_id": list("abcdef"),
        "label": [1, 2, 2, 3, None, 2],
        "split": ["train", "train", "val", "train", "test", "test"],
    },
)


def test_a_class_is_named_by_a_person_or_by_the_contract():
    assert find_distractors(CLASSES, [], None, "shop") == {}
    assert find_distractors(CLASSES, ["cola"], None, "shop") == {1: "cola"}
    assert find_distractors(CLASSES, ["cola"], "new_whale", "shop") == {1: "cola", 2: "new_whale"}
    assert find_distractors(CLASSES, ["3"], None, "shop") == {3: "tea"}
    assert find_distractors(CLASSES, [], "nothing", "shop") == {}  # no image bears the contract's label


def test_a_misspelt_name_is_told_with_the_one_that_is_near():
    with pytest.raises(DataError, match=r"got 'new_wale'\. Did you mean new_whale\?"):
        find_distractors(CLASSES, ["new_wale"], None, "shop")


def test_a_number_that_was_given_to_a_name_names_no_class():
    with pytest.raises(DataError, match="got '3'"):
        find_distractors(CLASSES, ["3"], None, "shop", numbered=True)


def test_a_class_must_be_left():
    with pytest.raises(DataError, match="must leave a class; got all of cola, new_whale, tea"):
        find_distractors(CLASSES, ["cola", "tea"], "new_whale", "shop")


def test_they_lose_label_and_class_and_those_of_the_test_stay_there():
    images, classes = set_apart(IMAGES, CLASSES, [2])
    assert images["split"].tolist() == ["train", DISTRACTORS, DISTRACTORS, "train", "test", "test"]
    assert images["label"].tolist() == [1, pd.NA, pd.NA, 3, pd.NA, pd.NA]
    assert classes["name"].tolist() == ["cola", "tea"]
    check_table(images, classes, "shop")
    assert IMAGES["split"].tolist().count(DISTRACTORS) == 0  # the source's rows are as they were
