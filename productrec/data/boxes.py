"""Boxes: the part of a picture that a row of the image table shows, in pixels."""

from __future__ import annotations

from typing import Any

import numpy as np


def format_box(x: float, y: float, width: float, height: float) -> str:
    """A box in pixels from the upper left, as the table keeps it; parts of it may lie outside the picture."""
    return ",".join(f"{value:.2f}" for value in (x, y, width, height))


def crop_to_box(pixels: np.ndarray, box: str) -> np.ndarray:
    """The part of a picture (H, W, 3) that a box covers; the whole picture where it covers none of it."""
    x, y, width, height = (float(value) for value in box.split(","))
    left, top = max(0, round(x)), max(0, round(y))
    part = pixels[top : max(0, round(y + height)), left : max(0, round(x + width))]
    return part if part.size else pixels


def is_box(box: Any) -> bool:
    """Whether a value is a box as the table keeps it: four finite numbers, of which width and height are above 0.

    The box's far corner must be finite too.
    """
    try:
        values = [float(value) for value in str(box).split(",")]
    except ValueError:
        return False
    if len(values) != 4 or not np.isfinite(values).all() or min(values[2:]) <= 0:
        return False
    x, y, width, height = values
    return bool(np.isfinite((x + width, y + height)).all())
