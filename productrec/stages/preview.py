"""Preview: a contact sheet of training images beside what augmentation makes of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from productrec.artifacts import explain_storage_errors
from productrec.data.dataset import TrainingImages
from productrec.data.images import open_images
from productrec.data.table import load_table
from productrec.data.transforms import build_augmentation
from productrec.data.views import resize_square
from productrec.errors import DataError, RecipeError, StorageError
from productrec.recipe import Recipe

_PADDING = ((0, 4), (0, 4), (0, 0))
_FORMATS = (".jpg", ".png")


def run_preview(recipe: Recipe, out: Path, *, images: int = 8, epochs: int = 6) -> Path:
    """Write a sheet: a row an image, first as it is, then as the first epochs of training would show it.

    Args:
        recipe: whose table, augmentation, side and seed are shown.
        out: a .jpg or .png file.
        images: how many, spread evenly over the training images.
        epochs: how many augmented squares of each.

    Raises:
        DataError: there is no readable training image.
        RecipeError: another kind of file is asked for, or the augmentation cannot be built.
        StorageError: the sheet cannot be written.
    """
    if out.suffix.lower() not in _FORMATS:
        raise RecipeError(f"{out}: a sheet must end in {' or '.join(_FORMATS)}; got {out.suffix or 'nothing'}.")
    table = load_table(recipe.table, root=recipe.data.images)
    rows = table.select(recipe.train.splits)
    if not len(rows):
        raise DataError(f"{recipe.table}: splits {recipe.train.splits} hold no readable image. Ingest again.")
    side_px = recipe.train.side_px
    pictures = open_images(table, rows)
    augmentation = build_augmentation(recipe.train.augmentation, side_px)
    dataset = TrainingImages(pictures, np.zeros(len(rows), np.int64), augmentation, recipe.seed)
    places = np.unique(np.linspace(0, len(rows) - 1, min(images, len(rows))).round().astype(int)).tolist()
    lines = []
    for place in places:
        squares = [resize_square(pictures.decode(place), side_px)]
        squares += [dataset[(epoch, place)][0] for epoch in range(epochs)]
        lines.append(np.concatenate([np.pad(square, _PADDING, constant_values=255) for square in squares], axis=1))
    sheet = np.concatenate(lines)
    with explain_storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
            raise StorageError(f"{out}: cannot be written. Is the folder writable, and is there room?")
    return out
