"""Which images an exported file is checked on, calibrated on and scored on: a run's own, given photos, or noise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.class_order import ClassOrder
from productrec.data.images import FileImages, Images, open_images
from productrec.data.sources.files import IMAGE_SUFFIXES
from productrec.data.table import ImageTable, load_table
from productrec.data.views import resize_square
from productrec.errors import ArtifactError, DataError
from productrec.recipe import Recipe
from productrec.training.run.checkpoint import Checkpoint

NOISE = "images of noise"
_CHECKED = 64  # images at most
_NOISE_IMAGES = 16
_TRIED = 8  # images of which one must be readable
_TITLES = {"val": "validation images", "train": "training images"}


@dataclass(frozen=True)
class Pictures:
    """Some images as a network's plain view has them.

    ``what``: they are, in words; ``positions``: (N,) of their classes among the logits, -1 for a class that is none of
    these; None where nobody knows them.
    """

    images: Images
    side_px: int
    what: str
    positions: np.ndarray | None = None

    def read(self, most: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Squares (B, S, S, 3) uint8 and their rows (B,), batch by batch.

        Args:
            most: how many at most, spread evenly over all; those that cannot be read are left out.
            batch_size: B at most.
        """
        count = len(self.images)
        wanted = np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)
        for start in range(0, len(wanted), batch_size):
            squares, rows = [], []
            for row in wanted[start : start + batch_size]:
                try:
                    squares.append(resize_square(self.images.decode(int(row)), self.side_px))
                except DataError:
                    continue
                rows.append(row)
            if rows:
                yield np.stack(squares), np.array(rows)

    def is_readable(self) -> bool:
        """Whether one of a few images can be read."""
        return any(True for _ in self.read(_TRIED, 1))


@dataclass(frozen=True)
class ExportImages:
    """What an export looks at.

    ``checked``: (N, S, S, 3) uint8, and ``what`` they are; ``calibration``: images to quantise by, None where there are
    none but noise; ``scored``: validation images with labels, None where there are none; ``reason``: why the run's own
    images are not at hand, empty where they are.
    """

    checked: np.ndarray
    what: str
    calibration: Pictures | None
    scored: Pictures | None
    reason: str


def gather_images(recipe: Recipe, checkpoint: Checkpoint, photos: Path | None = None) -> ExportImages:
    """Find images for an export.

    A file is checked on the photos, where a folder of them is given, else on validation images of the run's image
    table, else on its training images, else on noise. It is calibrated on training images, else photos, else validation
    images.

    Args:
        recipe: of the run, with its table and where its images are.
        checkpoint: of the run.
        photos: folder of images, looked through with all that are in it.

    Raises:
        DataError: ``photos`` is no folder, or holds no readable image.
    """
    side_px = int(checkpoint.recipe["train"]["side_px"])
    given = None if photos is None else _open_photos(photos, side_px)
    own, reason = _open_table(recipe, checkpoint, side_px)
    validation, training = own.get("val"), own.get("train")
    pictures = given or validation or training
    scored = None if validation is None or validation.positions is None else validation
    if pictures is not None:
        checked = np.concatenate([squares for squares, _ in pictures.read(_CHECKED, _CHECKED)])
        what = pictures.what
    else:
        shape = (_NOISE_IMAGES, side_px, side_px, 3)
        checked, what = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), NOISE
    return ExportImages(checked, what, training or given or validation, scored, reason)


def _open_photos(folder: Path, side_px: int) -> Pictures:
    if not folder.is_dir():
        raise DataError(f"{folder}: must be a folder of photos; there is none of that name.")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
    pictures = Pictures(FileImages([str(path) for path in files]), side_px, f"photos of {folder}")
    if not pictures.is_readable():
        raise DataError(f"{folder}: must hold photos that can be read; of {len(files)} image files none of a few can.")
    return pictures


def _open_table(recipe: Recipe, checkpoint: Checkpoint, side_px: int) -> tuple[dict[str, Pictures], str]:
    """The splits of a run's table whose images can be read, and why there are none."""
    own: dict[str, Pictures] = {}
    try:
        table = load_table(recipe.table, root=recipe.data.images)
        for split in _TITLES:
            pictures = _open_split(table, split, checkpoint, side_px)
            if pictures is not None and pictures.is_readable():
                own[split] = pictures
    except (ArtifactError, DataError) as error:
        return {}, str(error)
    return own, "" if own else f"{recipe.table}: the images of this table cannot be read."


def _open_split(table: ImageTable, split: str, checkpoint: Checkpoint, side_px: int) -> Pictures | None:
    rows = table.select([split])
    if not len(rows):
        return None
    positions = None
    if rows["label"].notna().any():
        rows = rows[rows["label"].notna()]
        with contextlib.suppress(ArtifactError):  # a class of the run is gone from the table
            order = ClassOrder(checkpoint.match_classes(table))
            positions = order.positions_of(rows["label"].to_numpy(dtype=np.int64))
    return Pictures(open_images(table, rows), side_px, _TITLES[split], positions)
