"""Pictures, maps of shares and the class map: shown where they can be, and the same each time."""

import numpy as np
import pytest

from productrec.data.images import ArrayImages
from productrec.errors import DataError
from productrec.reporting.class_map import lay_out_classes
from productrec.reporting.class_names import ClassNames
from productrec.reporting.pictures import Pictures
from productrec.reporting.share_maps import draw_shares
from productrec.reporting.thumbnails import Thumbnails


def test_a_picture_is_shown_once_and_an_absent_one_not_at_all() -> None:
    thumbnails = Thumbnails()
    pictures = Pictures(thumbnails, ArrayImages([np.zeros((8, 8, 3), np.uint8)]), {"a": 0})
    assert pictures.show("a") == pictures.show("a") == 0 and pictures.show("b") is None
    assert len(thumbnails.dump()) == 1
    with pytest.raises(DataError, match="b: its image is not at hand"):
        pictures.decode("b")
    assert Pictures(thumbnails, None, {}).show("a") is None


def test_cells_that_add_become_orange_and_those_that_take_away_blue() -> None:
    grey = np.full((40, 40, 3), 128, np.uint8)
    drawn = draw_shares(grey, np.array([[0.5, 0.0], [0.0, -0.5]])).astype(int)
    assert drawn[0, 0, 0] > drawn[0, 0, 2] + 50 and drawn[-1, -1, 2] > drawn[-1, -1, 0] + 50
    assert (draw_shares(grey, np.zeros((2, 2))) == grey).all()


def test_the_map_is_the_same_each_time_and_keeps_neighbours() -> None:
    generator = np.random.default_rng(0)
    means = np.repeat(np.eye(4, 16), 6, axis=0) + 0.02 * generator.normal(size=(24, 16))
    places = lay_out_classes(means, seed=1)
    np.testing.assert_array_equal(places, lay_out_classes(means, seed=1))
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(axis=1) // 6 == np.arange(24) // 6).all()
    assert np.isfinite(lay_out_classes(np.ones((4, 3)))).all()


def test_a_class_is_told_by_its_name_and_id() -> None:
    names = ClassNames({3: "tea", 4: "4", 5: ""})
    assert [names.tell(number) for number in (3, 4, 5, 6)] == ["tea (3)", "class 4", "class 5", "class 6"]
    assert names.find_by(3, 4, 3) == "tea (3) class 4"
