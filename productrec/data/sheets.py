"""Contact sheets: squares in rows, as one picture to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from productrec.artifacts import write_file
from productrec.errors import RecipeError, StorageError

FORMATS = (".jpg", ".png")
_GAP = ((0, 4), (0, 4), (0, 0))


def check_sheet_name(path: Path) -> None:
    """Refuse a name that says no picture.

    Raises:
        RecipeError: it ends in none of `FORMATS`.
    """
    if path.suffix.lower() not in FORMATS:
        raise RecipeError(f"{path}: a sheet must end in {' or '.join(FORMATS)}; got {path.suffix or 'nothing'}.")


def write_sheet(path: Path, lines: Sequence[Sequence[np.ndarray]]) -> None:
    """Write rows of squares, (S, S, 3) uint8 RGB each and as many in every row, with a white gap between them.

    Raises:
        RecipeError: another kind of file is asked for.
        StorageError: it cannot be written.
    """
    check_sheet_name(path)
    rows = [np.concatenate([np.pad(square, _GAP, constant_values=255) for square in line], axis=1) for line in lines]
    encoded, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
    if not encoded:
        raise StorageError(f"{path}: a sheet of {len(lines)} rows is too large to be encoded. Ask for fewer images.")
    with write_file(path) as temporary:
        temporary.write_bytes(data.tobytes())
