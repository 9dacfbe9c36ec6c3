"""Views: which parts of an image are cut, at which size."""

import numpy as np
import pytest

from productrec.data.view_presets import PRESETS, WHOLE, View, get_views
from productrec.data.views import compute_side_px, cut_views, resize_square
from productrec.errors import RecipeError


def draw_gradient(height: int = 200, width: int = 400) -> np.ndarray:
    """Red grows from left to right, green from top to bottom: a pixel's colour tells where it came from."""
    red = np.tile(np.linspace(0, 255, width), (height, 1))
    green = np.tile(np.linspace(0, 255, height)[:, None], (1, width))
    return np.stack([red, green, np.full((height, width), 7.0)], -1).round().astype(np.uint8)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_plain_view_comes_first_in_every_preset(preset: str) -> None:
    views = get_views(preset)
    assert views[0] == View("plain", WHOLE, 1.0, False)
    assert len({view.name for view in views}) == len(views)
    assert len(set(views)) == len(views)


def test_presets_have_the_views_they_are_named_for() -> None:
    assert [view.name for view in get_views("flip")] == ["plain", "flip"]
    assert len(get_views("five_crops")) == 7
    assert {view.scale for view in get_views("scales")} == {1.0, 0.85, 1.25}
    assert len(get_views("zoom")) == 2 + 2 * 5
    assert len(get_views("full")) == 2 + 2 * 5 + 2 * 5 + 2 * 2
    for smaller in PRESETS.values():
        assert {view for view in smaller if not view.turns} <= set(PRESETS["full"])


@pytest.mark.parametrize("preset", ["flip", "scales", "full"])
def test_mirrored_views_share_their_cut_with_the_one_they_mirror(preset: str) -> None:
    views = get_views(preset)
    plain = {view.cut for view in views if not view.flip}
    mirrored = [view.cut for view in views if view.flip]
    assert mirrored
    assert set(mirrored) <= plain
    assert len(set(mirrored)) == len(mirrored)
    assert len({view.cut for view in views}) == len(plain)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(
        RecipeError,
        match=r"tta: must be one of plain, .*, turns, .*full; got 'ten'",
    ):
        get_views("ten")


def test_boxes_lie_inside_the_image_and_crops_reach_their_corners() -> None:
    for view in get_views("full"):
        left, top, right, bottom = view.box
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
    boxes = {view.name: view.box for view in get_views("five_crops")}
    assert boxes["top_left"][:2] == (0, 0)
    assert boxes["bottom_right"][2:] == (1, 1)
    assert boxes["centre"][0] == pytest.approx(1 - boxes["centre"][2])


@pytest.mark.parametrize("view", get_views("full"), ids=lambda view: view.name)
def test_a_cut_shows_the_part_its_box_names(view: View) -> None:
    (square,) = cut_views(draw_gradient(), (view.cut,), 64)
    side = compute_side_px(64, view.scale)
    assert square.shape == (side, side, 3)
    assert square.dtype == np.uint8
    left, top, right, bottom = (255 * edge for edge in view.box)
    middle = square[side // 2, side // 2]
    assert middle[0] == pytest.approx((left + right) / 2, abs=5)
    assert middle[1] == pytest.approx((top + bottom) / 2, abs=5)
    assert square[side // 2, 0, 0] == pytest.approx(left, abs=6)
    assert square[side // 2, -1, 0] == pytest.approx(right, abs=6)
    assert square[0, side // 2, 1] == pytest.approx(top, abs=6)
    assert square[-1, side // 2, 1] == pytest.approx(bottom, abs=6)
    assert (square[..., 2] == 7).all()


def test_cuts_come_in_the_order_asked_for() -> None:
    cuts = tuple(dict.fromkeys(view.cut for view in get_views("full")))
    together = cut_views(draw_gradient(), cuts, 64)
    for cut, square in zip(cuts, together, strict=True):
        assert np.array_equal(cut_views(draw_gradient(), (cut,), 64)[0], square)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (500, 1, 3), (2, 3, 3)])
def test_tiny_and_thin_images_give_every_view(shape: tuple[int, int, int]) -> None:
    cuts = tuple(view.cut for view in get_views("full"))
    for square in cut_views(np.full(shape, 200, np.uint8), cuts, 32):
        assert square.shape[0] == square.shape[1] > 0
        assert (square == 200).all()


@pytest.mark.parametrize(
    ("side_px", "scale", "expected"),
    [(224, 1.0, 224), (100, 1.0, 100), (224, 0.85, 192), (224, 1.25, 288), (32, 0.85, 32), (16, 0.85, 32)],
)
def test_scaled_sides_are_multiples_of_what_backbones_want(side_px: int, scale: float, expected: int) -> None:
    assert compute_side_px(side_px, scale) == expected


def test_resizing_averages_when_it_shrinks() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (resize_square(stripes, 16) == 100).all()
    assert resize_square(stripes, 100).shape == (100, 100, 3)
    assert np.array_equal(resize_square(stripes, 64), stripes)
