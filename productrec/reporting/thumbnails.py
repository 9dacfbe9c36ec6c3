"""Small pictures inside of a page: each encoded once, however often it is shown, and all of them within a budget."""

from __future__ import annotations

import base64
from collections.abc import Callable

import cv2
import numpy as np

from productrec.errors import DataError, RecipeError


def shrink(image: np.ndarray, side_px: int) -> np.ndarray:
    """An image (H, W, C) uint8 whose longer side is at most ``side_px``; a smaller one stays as it is."""
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def encode_jpeg(image: np.ndarray, *, side_px: int = 112, quality: int = 75) -> bytes:
    """A small JPEG of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        side_px: of the longer side, at most.
        quality: 1 to 100.
    """
    if side_px < 1 or not 1 <= quality <= 100:
        raise RecipeError(f"thumbnail: side_px must be 1 or more, quality 1 to 100; got {side_px} and {quality}.")
    pixels = cv2.cvtColor(shrink(image, side_px), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])
    return bytes(data)


def build_data_uri(data: bytes, kind: str = "image/jpeg") -> str:
    """An address that holds the bytes themselves."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


class Thumbnails:
    """Pictures that a page shows by their number; the macro ``thumbnail`` of ``parts.jinja`` takes it.

    ``left_out`` counts the pictures that went over the budget, ``broken`` those that could not be read.
    """

    def __init__(self, *, side_px: int = 112, quality: int = 75, most_bytes: int | None = None) -> None:
        """Begin without pictures.

        Args:
            side_px: of the longer side, at most.
            quality: of the JPEGs, 1 to 100.
            most_bytes: of all pictures together, as they stand in the page; None for no limit.
        """
        self._side_px, self._quality, self._most_bytes = side_px, quality, most_bytes
        self._numbers: dict[str, int | None] = {}
        self._encoded: list[str] = []
        self.bytes = 0
        self.left_out = 0
        self.broken = 0

    def add(self, name: str, decode: Callable[[], np.ndarray]) -> int | None:
        """The number of a picture; it is decoded only where none of this name was added before.

        Args:
            name: what tells it from other pictures, for instance its image id.
            decode: gives its pixels, (H, W, 3) uint8 RGB; raises `DataError` where it cannot be read.

        Returns:
            Its number; None where it cannot be read or the budget is used up.
        """
        if name not in self._numbers:
            self._numbers[name] = self._encode(decode)
        return self._numbers[name]

    def dump(self) -> list[str]:
        """The pictures by their numbers, JPEG in base64."""
        return list(self._encoded)

    def _encode(self, decode: Callable[[], np.ndarray]) -> int | None:
        if self._most_bytes is not None and self.bytes >= self._most_bytes:
            self.left_out += 1
            return None
        try:
            data = encode_jpeg(decode(), side_px=self._side_px, quality=self._quality)
        except DataError:
            self.broken += 1
            return None
        text = base64.b64encode(data).decode()
        if self._most_bytes is not None and self.bytes + len(text) > self._most_bytes:
            self.left_out += 1
            return None
        self.bytes += len(text)
        self._encoded.append(text)
        return len(self._encoded) - 1
