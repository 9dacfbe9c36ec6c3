"""The one decoder: bytes of a file to upright RGB pixels, or one clear error."""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from productrec.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MOST_PIXELS = 100_000_000
MOST_SIDE_PX = 30_000
MOST_BYTES = 256 << 20
MOST_SCANS = 100  # of a JPEG; encoders make about ten
_SCAN = b"\xff\xda"  # the marker that begins a JPEG's scan; where compressed data hold these bytes they are stuffed
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # of compressed data's end: neither stuffing nor a restart
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers that no length follows
_ORIENTATION = 0x0112  # the EXIF tag: 1 is upright, 2 to 8 say how the stored picture is turned and mirrored


class OversizedError(DataError):
    """A picture promises more pixels than are allowed; nothing of it was decoded."""


def read_image_bytes(path: str | Path) -> bytes:
    """The bytes of a regular file; pipes, devices and oversized files are refused before anything is read.

    Raises:
        DataError: no such file, not a regular file, or too large.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be opened ({error}).") from None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise DataError(f"{path}: must be a regular file.")
        if state.st_size > MOST_BYTES:
            raise DataError(f"{path}: must be at most {MOST_BYTES >> 20} MiB; got {state.st_size >> 20} MiB.")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None
    finally:
        os.close(descriptor)


def decode_image(data: bytes, where: str | Path, *, most_pixels: int | None = None) -> np.ndarray:
    """Decode to RGB.

    EXIF orientation is applied, transparency is put on white, 16-bit grey is scaled to 8, an animation gives its first
    frame. OpenCV decodes plain JPEGs (about 1.5 times as fast), Pillow everything else.

    Args:
        data: the file's bytes.
        where: what to call the image in an error.
        most_pixels: height times width at most; None for `MOST_PIXELS`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: the format is not among `FORMATS`, the picture is over the limits, also in a JPEG's scans, or it is
            damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_size(image.size, where, most_pixels=most_pixels)
                _check_scans(data, where)
                if image.format == "JPEG" and image.mode in ("RGB", "L"):
                    # OpenCV knows orientation from EXIF alone, Pillow from XMP too: Pillow says it for both decoders.
                    orientation = image.getexif().get(_ORIENTATION, 1)
                    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
                    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
                    if pixels is None:
                        raise DataError(f"{where}: is a damaged JPEG.")
                    return _turn_upright(pixels, orientation)
                return _decode_with_pillow(image)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: {_explain(error)}") from None


def check_image(data: bytes, where: str | Path) -> tuple[int, int]:
    """Decode in full with Pillow, which refuses a truncated file where OpenCV would fill it with grey.

    Returns:
        Width and height in pixels, upright.

    Raises:
        DataError: as `decode_image`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_size(image.size, where)
                _check_scans(data, where)
                image.load()
                # Only now: a TIFF is turned, and its orientation dropped, as it is loaded.
                turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
                return (image.height, image.width) if turned else (image.width, image.height)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: {_explain(error)}") from None


def check_size(size: tuple[int, int], where: str | Path, *, most_pixels: int | None = None) -> None:
    """Refuse a picture whose header promises more pixels than a photograph has, before they are decoded.

    Raises:
        OversizedError: it does, or has none.
    """
    width, height = size
    most_pixels = MOST_PIXELS if most_pixels is None else most_pixels
    if width < 1 or height < 1 or max(size) > MOST_SIDE_PX or width * height > most_pixels:
        raise OversizedError(
            f"{where}: must have 1 to {most_pixels:,} pixels and sides to {MOST_SIDE_PX:,}; got {width} x {height}."
        )


def _check_scans(data: bytes, where: str | Path) -> None:
    """Refuse a JPEG of so many scans that it would be decoded for hours: each, of 75 bytes, may go over all pixels."""
    # Thumbnails and what follows a picture may hold the marker too: the picture's own are counted where there are many.
    if not data.startswith(b"\xff\xd8") or data.count(_SCAN) <= MOST_SCANS:
        return
    place, scans = 2, 0
    while scans <= MOST_SCANS and (found := _NEXT_MARKER.search(data, place)):
        marker, place = data[found.start() + 1], found.end()
        if marker == 0xD9:  # the picture's end
            return
        scans += marker == _SCAN[1]
        if marker not in _STANDALONE:
            place += int.from_bytes(data[place : place + 2], "big")
    if scans > MOST_SCANS:
        raise DataError(f"{where}: must be a JPEG of at most {MOST_SCANS} scans; got more, which no encoder writes.")


def _explain(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its own text names a buffer's address
        return f"is not a picture in one of the formats {', '.join(FORMATS)}."
    # Pillow's plugins raise whatever their parsers stumble over (struct.error, SyntaxError, KeyError, ...).
    return f"is not a readable image ({type(error).__name__}: {str(error)[:100]})."


def _turn_upright(pixels: np.ndarray, orientation: object) -> np.ndarray:
    """Undo an EXIF orientation: 5 to 8 were stored with rows and columns exchanged, the others only mirrored."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _decode_with_pillow(image: Image.Image) -> np.ndarray:
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        grey = np.asarray(upright, dtype=np.int64)
        return np.repeat((grey >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        transparent = upright.convert("RGBA")
        white = Image.new("RGBA", transparent.size, "white")
        upright = Image.alpha_composite(white, transparent)
    return np.array(upright.convert("RGB"))
