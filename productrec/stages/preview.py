"""Preview: a contact sheet of training images beside what augmentation makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from productrec.assembly.training_data import build_augmentations
from productrec.data.dataset import TrainingImages
from productrec.data.images import open_images
from productrec.data.samplers import Draw
from productrec.data.sheets import check_sheet_name, write_sheet
from productrec.data.table import load_table
from productrec.data.views import resize_square
from productrec.errors import DataError
from productrec.recipe import Recipe


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
    check_sheet_name(out)
    table = load_table(recipe.table, root=recipe.data.images)
    rows = table.select(recipe.train.splits)
    if not len(rows):
        raise DataError(f"{recipe.table}: splits {recipe.train.splits} hold no readable image. Look at the source.")
    side_px = recipe.train.side_px
    pictures = open_images(table, rows)
    whole_size = build_augmentations(recipe)[-1]  # of the last epoch, where squares grow
    dataset = TrainingImages(pictures, np.zeros(len(rows), np.int64), whole_size, recipe.seed)
    shown = np.unique(np.linspace(0, len(rows) - 1, min(images, len(rows))).round().astype(int)).tolist()
    write_sheet(
        out,
        [
            [
                resize_square(pictures.decode(row), side_px),
                *(dataset[Draw(epoch, row, 0)].pixels for epoch in range(epochs)),
            ]
            for row in shown
        ],
    )
    return out
