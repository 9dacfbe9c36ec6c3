"""Views of an image as pixels: parts are cut from the decoded picture and resized to the network's square."""

from math import ceil

import cv2
import numpy as np

from productrec.data.view_presets import Cut


def cut_views(
    image: np.ndarray,
    cuts: tuple[Cut, ...],
    side_px: int,
    multiple_px: int = 32,
    *,
    seed: int = 0,
    row: int = 0,
) -> list[np.ndarray]:
    """Cut and resize an image once for each of ``cuts``.

    Args:
        image: (H, W, 3) uint8.
        cuts: parts and scales, or pipelines, see `View.cut`.
        side_px: the network's side.
        multiple_px: sides other than ``side_px`` are rounded to multiples of this, as most backbones want.
        seed: with ``row`` and the view's name it decides what a random pipeline draws, and nothing else does.
        row: of the image.

    Returns:
        One (S, S, 3) uint8 a cut.

    Raises:
        DataError: a pipeline cannot take the image.
    """
    height, width = image.shape[:2]
    resized = []
    for (left, top, right, bottom), scale, pipeline in cuts:
        if pipeline is not None:
            from productrec.data.transforms import apply_pipeline  # brings albumentations

            resized.append(apply_pipeline(pipeline.text, image, side_px, draw=f"{seed} {row} {pipeline.name}"))
            continue
        x0, y0 = int(left * width), int(top * height)
        x1, y1 = max(ceil(right * width), x0 + 1), max(ceil(bottom * height), y0 + 1)
        side = compute_side_px(side_px, scale, multiple_px)
        resized.append(resize_square(image[y0:y1, x0:x1], side))
    return resized


def compute_side_px(side_px: int, scale: float, multiple_px: int = 32) -> int:
    """Side of a scaled view in pixels."""
    return side_px if scale == 1.0 else max(multiple_px, round(side_px * scale / multiple_px) * multiple_px)


def resize_square(image: np.ndarray, side_px: int) -> np.ndarray:
    """Resize the whole image to a square: area averaging when it shrinks, cubic when it grows."""
    smaller = min(image.shape[:2]) >= side_px
    return cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
