"""Contact sheets: squares in rows, as one picture to look at."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from productrec.artifacts import write_file
from productrec.errors import RecipeError, StorageError

FORMATS = (".jpg", ".png")
_GAP = ((0, 4), (0, 4), (0, 0))
_CAPTION_PX, _FONT_PX = 18, 13


def check_sheet_name(path: Path) -> None:
    """Refuse a name that says no picture.

    Raises:
        RecipeError: it ends in none of `FORMATS`.
    """
    if path.suffix.lower() not in FORMATS:
        raise RecipeError(f"{path}: a sheet must end in {' or '.join(FORMATS)}; got {path.suffix or 'nothing'}.")


def write_sheet(
    path: Path, lines: Sequence[Sequence[np.ndarray]], captions: Sequence[Sequence[str]] | None = None
) -> None:
    """Write rows of squares, (S, S, 3) uint8 RGB each and as many in every row, with a white gap between them.

    ``captions``: for each row, a text above each of its squares that fits as far as the next one that has one; "" for
    none.

    Raises:
        RecipeError: another kind of file is asked for.
        StorageError: it cannot be written.
    """
    check_sheet_name(path)
    rows = []
    for number, line in enumerate(lines):
        squares = [np.pad(square, _GAP, constant_values=255) for square in line]
        if captions is not None:
            rows.append(_draw_captions([square.shape[1] for square in squares], captions[number]))
        rows.append(np.concatenate(squares, axis=1))
    encoded, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
    if not encoded:
        raise StorageError(f"{path}: a sheet of {len(lines)} rows is too large to be encoded. Ask for fewer images.")
    with write_file(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _draw_captions(widths: Sequence[int], texts: Sequence[str]) -> np.ndarray:
    """A white strip (H, W, 3) as wide as a row of squares, each text from its square's left edge on."""
    strip = Image.new("RGB", (sum(widths), _CAPTION_PX), "white")
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(_FONT_PX)
    starts = np.cumsum([0, *widths])
    given = [*(number for number, text in enumerate(texts) if text), len(texts)]
    for number, following in itertools.pairwise(given):
        room, shown = int(starts[following] - starts[number]) - 4, texts[number]
        while len(shown) > 1 and pen.textlength(shown, font) > room:
            shown = shown[:-2].rstrip() + "\u2026"
        pen.text((int(starts[number]), 1), shown, fill="black", font=font)
    return np.asarray(strip)
