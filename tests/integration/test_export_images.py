"""Which images an export looks at: the run's own, with their classes, in this order of preference, or none of them."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from productrec.assembly.export_images import NOISE, gather_images
from productrec.data.table import load_table
from productrec.recipe import load_recipe
from productrec.training.run.checkpoint import load_checkpoint


@pytest.fixture
def work(trained, monkeypatch):
    """`gather_images` for the run ``tiny``, whose table may be another one; nothing is written."""
    monkeypatch.chdir(trained)
    checkpoint = load_checkpoint(trained / "runs/tiny/checkpoints/best")
    recipe = load_recipe(trained / "runs/tiny/recipe.yaml")
    table = load_table(recipe.table)

    def gather(photos=None, change=None, **tables):
        images = table.images.copy()
        if change is not None:
            images = change(images)
        other = dataclasses.replace(table, images=images, **tables)
        monkeypatch.setattr("productrec.assembly.export_images.load_table", lambda folder, root: other)
        return gather_images(recipe, checkpoint, photos)

    return gather, table, checkpoint


def test_validation_images_are_checked_on_and_scored_on_and_training_images_calibrate(work):
    gather, table, checkpoint = work
    found = gather()
    assert (found.what, found.reason) == ("validation images", "")
    assert found.checked.shape == (18, 32, 32, 3) and found.checked.dtype == np.uint8
    assert found.calibration.what == "training images" and len(found.calibration.images) == 48
    class_ids = [checkpoint.class_ids[position] for position in found.scored.positions]
    assert class_ids == table.select(["val"])["label"].tolist()


def test_images_without_a_label_are_not_scored_on_and_an_unknown_class_is_none(work):
    gather, _, _ = work

    def change(images):
        rows = images.index[images["split"] == "val"]
        images.loc[rows[:3], "label"] = pd.NA
        images.loc[rows[3], "label"] = 12345
        return images

    positions = gather(change=change).scored.positions
    assert len(positions) == 15 and positions[0] == -1 and (positions[1:] >= 0).all()


def test_a_table_without_labels_in_val_or_without_a_class_of_the_run_scores_nothing(work):
    gather, table, _ = work
    unlabelled = gather(change=lambda images: images.assign(label=images["label"].where(images["split"] != "val")))
    assert unlabelled.scored is None and unlabelled.what == "validation images"
    fewer = gather(classes=table.classes.iloc[1:])
    assert fewer.scored is None and fewer.what == "validation images"


def test_training_images_stand_in_for_validation_images_and_the_other_way_round(work):
    gather, _, _ = work
    without_val = gather(change=lambda images: images[images["split"] != "val"])
    assert without_val.what == "training images" and without_val.scored is None
    assert len(without_val.checked) == 48
    without_train = gather(change=lambda images: images[images["split"] != "train"])
    assert without_train.what == without_train.calibration.what == "validation images"


def test_photos_are_checked_on_where_they_are_given_and_broken_ones_left_out(work, drawn, tmp_path):
    gather, _, _ = work
    photos = tmp_path / "photos/monday"
    photos.mkdir(parents=True)
    for number, path in enumerate(sorted((drawn / "images").iterdir())[:5]):
        shutil.copy(path, photos / f"{number}.JPG")
    (photos / "0.JPG").write_bytes(b"broken")
    (photos / "notes.txt").write_text("no photo")
    found = gather(tmp_path / "photos")
    assert found.what == f"photos of {tmp_path / 'photos'}" and len(found.checked) == 4
    assert found.calibration.what == "training images" and found.scored is not None


def test_images_that_are_gone_leave_noise_and_a_reason(work, tmp_path):
    gather, _, _ = work
    gone = gather(root=tmp_path / "nowhere")
    assert gone.what == NOISE and gone.calibration is None and gone.scored is None
    assert "nowhere" in gone.reason
    empty = gather(root=tmp_path)
    assert empty.what == NOISE and "cannot be read" in empty.reason
    assert len(np.unique(empty.checked)) == 256


def test_what_is_read_is_spread_evenly(work):
    gather, _, _ = work
    pictures = gather().calibration
    rows = np.concatenate([rows for _, rows in pictures.read(5, 2)])
    assert rows.tolist() == [0, 12, 24, 35, 47]
    assert [len(squares) for squares, _ in pictures.read(5, 2)] == [2, 2, 1]
    assert sum(len(rows) for _, rows in pictures.read(1000, 7)) == 48
