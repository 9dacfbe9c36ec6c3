"""Pictures by row: from the files of the source, or from the packed store; loaders ask no more of either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from productrec.data.boxes import crop_to_box
from productrec.data.decode import decode_image, read_image_bytes
from productrec.data.packed import PackedImages
from productrec.data.table import ImageTable
from productrec.errors import DataError


class Images(Protocol):
    """Some pictures, addressed by position; loader processes get a copy each, which must be small."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def decode(self, row: int) -> np.ndarray:
        """Pixels (H, W, 3) uint8, upright RGB.

        Raises:
            DataError: it cannot be read.
        """
        ...


class FileImages:
    """Pictures in files, or in boxes of them."""

    def __init__(self, paths: Sequence[str], boxes: Sequence[str | None] | None = None) -> None:
        # NumPy arrays, not lists: loader processes share them without touching a reference count per string. Bytes: one
        # path that is not ASCII would make every other four times as long.
        self._paths = np.array([path.encode("utf-8", "surrogatepass") for path in paths], dtype=np.bytes_)
        self._boxes = None if boxes is None else np.array([box or "" for box in boxes])

    def __len__(self) -> int:
        return len(self._paths)

    def decode(self, row: int) -> np.ndarray:
        """See `Images.decode`."""
        path = self._paths[row].decode("utf-8", "surrogatepass")
        pixels = decode_image(read_image_bytes(path), path)
        box = "" if self._boxes is None else str(self._boxes[row])
        return crop_to_box(pixels, box) if box else pixels


class ArrayImages:
    """Pictures in memory, (H, W, 3) uint8 RGB each."""

    def __init__(self, pictures: Sequence[np.ndarray]) -> None:
        """Take pictures up.

        Raises:
            DataError: one is of another shape or type.
        """
        for number, picture in enumerate(pictures):
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
                raise DataError(
                    f"picture {number}: must be (H, W, 3) uint8, RGB; got {picture.dtype} of shape {picture.shape}."
                )
        self._pictures = list(pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    def decode(self, row: int) -> np.ndarray:
        """See `Images.decode`."""
        return self._pictures[row]


class PackedRows:
    """Some rows of a packed store."""

    def __init__(self, packed: PackedImages, rows: np.ndarray) -> None:
        self._packed, self._rows = packed, rows

    def __len__(self) -> int:
        return len(self._rows)

    def decode(self, row: int) -> np.ndarray:
        """See `Images.decode`."""
        return self._packed.decode(int(self._rows[row]))


def open_images(table: ImageTable, rows: pd.DataFrame) -> Images:
    """The pictures of some rows of a table: packed, where the table says so, else in their files.

    Raises:
        ArtifactError: the packed store is not there or damaged.
        DataError: the folder of the files is not there.
    """
    if table.packed is not None:
        packed = PackedImages(table.packed)
        packed.check_ids(table.images["image_id"].tolist())
        return PackedRows(packed, rows.index.to_numpy(dtype=np.int64))
    if not table.root.is_dir():
        raise DataError(
            f"{table.root}: the folder of the images must be there; not one of {len(rows)} can be read. If they have "
            "moved, name the folder they are in now with data.images=FOLDER."
        )
    return FileImages(table.get_paths(rows), get_boxes(rows))


def get_boxes(rows: pd.DataFrame) -> list[str | None] | None:
    """The part of its picture that each row shows; None where every row shows all of it."""
    boxes = rows["box"]
    return None if boxes.isna().all() else [None if pd.isna(box) else str(box) for box in boxes]
