"""Boxes: what of a picture they cut."""

import numpy as np

from productrec.data.boxes import crop_to_box, format_box, is_box


def test_boxes_cut_what_lies_inside_the_picture() -> None:
    pixels = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    assert crop_to_box(pixels, format_box(2, 3, 5, 4)).tolist() == pixels[3:7, 2:7].tolist()
    assert crop_to_box(pixels, format_box(-5, -5, 8, 100)).shape == (10, 3, 3)
    assert crop_to_box(pixels, format_box(50, 50, 8, 8)).shape == pixels.shape


def test_a_box_is_four_numbers_with_a_far_corner() -> None:
    assert is_box("1,2,3,4.5") and is_box("-1e3,0,5e3,0.1") and is_box("1e300,0,1,1")
    for text in (
        "1,2,3",
        "1,2,0,4",
        "1,2,3,-4",
        "nan,0,1,1",
        "0,inf,1,1",
        "1e308,0,1e308,1",
        "0,1e308,1,1e308",
        "a,b,c,d",
    ):
        assert not is_box(text), text
    far = crop_to_box(np.zeros((4, 5, 3), np.uint8), "1e300,0,1e300,1")
    assert far.shape == (4, 5, 3)
