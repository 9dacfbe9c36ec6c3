"""Class keys: what stays of a class when the numbers of all others move."""

import json

import pytest

from productrec.data.class_keys import get_class_keys, match_classes
from productrec.data.table import CLASS_COLUMNS, IMAGE_COLUMNS, ImageTable, build_frame, load_table, save_table
from productrec.errors import ArtifactError


def build(tmp_path, names, paths=None, *, numbered=True, ids=None):
    classes = {"id": ids or list(range(len(names))), "name": names, "path": paths or [None] * len(names)}
    images = build_frame(IMAGE_COLUMNS, {"image_id": ["a"], "split": ["train"]})
    return ImageTable(images, build_frame(CLASS_COLUMNS, classes), tmp_path, None, "print", numbered=numbered)


def test_numbered_classes_are_found_by_name(tmp_path):
    before, after = build(tmp_path, ["pear", "plum"]), build(tmp_path, ["apple", "pear", "plum"])
    assert match_classes(get_class_keys(before, [1, 0]), after, where="run") == [2, 1]


def test_a_name_that_two_branches_use_stays_with_its_branch(tmp_path):
    # One leaf of a name: the reader calls it by that name; two of them: by their paths.
    before = build(tmp_path, ["red"], ["apples"])
    after = build(tmp_path, ["apples/red", "pears/red"], ["apples", "pears"])
    assert match_classes(get_class_keys(before, [0]), after, where="run") == [0]


def test_the_sources_own_ids_count_whatever_the_names(tmp_path):
    before = build(tmp_path, ["Royal Gala", "Lemon"], ids=[7, 9], numbered=False)
    after = build(tmp_path, ["Other", "Lemon, yellow", "Gala"], ids=[3, 9, 7], numbered=False)
    assert match_classes(get_class_keys(before, [7, 9]), after, where="run") == [7, 9]


def test_a_class_that_is_gone_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"runs/x: its classes must be in the image table; 1 \(plum\) are not"):
        match_classes(["pear", "plum"], build(tmp_path, ["pear"]), where="runs/x")


@pytest.mark.parametrize("numbered", [True, False])
def test_a_table_knows_whether_its_ids_are_its_own(tmp_path, numbered):
    table = build(tmp_path, ["pear"])
    settings = {"format": "toy"}  # whatever the format
    save_table(
        tmp_path / "t",
        table.images,
        table.classes,
        root=tmp_path,
        sample=None,
        inputs={},
        settings=settings,
        numbered=numbered,
    )
    assert load_table(tmp_path / "t").numbered is numbered


@pytest.mark.parametrize(("format_name", "numbered"), [("folders", True), ("csv", True), ("fgvc_json", False)])
def test_a_table_of_before_that_was_noted_is_known_by_its_format(tmp_path, format_name, numbered):
    table = build(tmp_path, ["pear"])
    settings = {"format": format_name}
    save_table(tmp_path / "t", table.images, table.classes, root=tmp_path, sample=None, inputs={}, settings=settings)
    path = tmp_path / "t" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["notes"]["numbered"]
    path.write_text(json.dumps(manifest))
    assert load_table(tmp_path / "t").numbered is numbered
