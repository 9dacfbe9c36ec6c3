"""Boxes: what of a picture they cut."""

import numpy as np

from productrec.data.boxes import crop_to_box, format_box


def test_boxes_cut_what_lies_inside_the_picture() -> None:
    pixels = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    assert crop_to_box(pixels, format_box(2, 3, 5, 4)).tolist() == pixels[3:7, 2:7].tolist()
    assert crop_to_box(pixels, format_box(-5, -5, 8, 100)).shape == (10, 3, 3)
    assert crop_to_box(pixels, format_box(50, 50, 8, 8)).shape == pixels.shape
