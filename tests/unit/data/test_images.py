"""Pictures in files: paths of any letters, kept small."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from productrec.data.images import FileImages, open_images
from productrec.data.table import CLASS_COLUMNS, IMAGE_COLUMNS, ImageTable, build_frame
from productrec.errors import DataError


def test_one_path_of_other_letters_makes_the_others_no_longer(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "ä.png")
    paths = [f"{tmp_path}/{number:09}.jpg" for number in range(2000)]
    plain, mixed = (len(pickle.dumps(FileImages(one))) for one in (paths, [*paths, str(tmp_path / "ä.png")]))
    assert mixed < 1.1 * plain
    images = FileImages([*paths, str(tmp_path / "ä.png")])
    assert len(images) == 2001
    assert (images.decode(2000) == np.array([255, 0, 0])).all()


@pytest.mark.parametrize("name", ["\udcff.jpg", "☕.jpg"])
def test_a_path_comes_back_to_the_letter(name: str) -> None:
    with pytest.raises(DataError) as caught:
        FileImages([f"absent/{name}"]).decode(0)
    assert str(caught.value).startswith(f"absent/{name}: cannot be opened")


def test_no_pictures_are_none() -> None:
    assert len(FileImages([])) == 0


def test_images_that_have_moved_are_told_with_the_setting_that_mends_it(tmp_path: Path) -> None:
    rows = build_frame(IMAGE_COLUMNS, {"image_id": ["a"], "path": ["a.png"]})
    table = ImageTable(rows, build_frame(CLASS_COLUMNS, {"id": []}), tmp_path / "gone", None, "")
    with pytest.raises(DataError, match=r"gone: the folder of the images must be there; .* data.images=FOLDER"):
        open_images(table, rows)
