"""Which row an image id stands at, and which id a row has, from mapped files instead of a list of a million names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_PLACE = np.dtype([("hash", "<u8"), ("row", "<u4")])
PLACE_BYTES = _PLACE.itemsize + np.dtype(np.int64).itemsize  # a row, the ids themselves left out


def write_places(path: Path, ids: Sequence[str]) -> None:
    """Write the rows of unique image ids, by the first 8 bytes of the ids' BLAKE2b, ascending."""
    places = np.empty(len(ids), _PLACE)
    places["hash"], places["row"] = _hash(ids), np.arange(len(ids))
    np.save(path, places[np.argsort(places["hash"], kind="stable")])


def find_places(path: Path, ids: Sequence[str]) -> np.ndarray:
    """Row of each image id, int64; -1 where it is not there.

    Of a million ids one that is not there is taken for another once in 10^13 times.
    """
    places = np.load(path, mmap_mode="r")
    hashes = _hash(ids)
    slots = np.searchsorted(places["hash"], hashes).clip(max=len(places) - 1)
    found = places[slots]
    return np.where(found["hash"] == hashes, found["row"].astype(np.int64), -1)


def write_names(path: Path, ends: Path, ids: Sequence[str]) -> None:
    """Write image ids one after the other, and where each ends."""
    names = [image_id.encode("utf-8", "surrogatepass") for image_id in ids]
    path.write_bytes(b"".join(names))
    np.save(ends, np.cumsum([len(name) for name in names], dtype=np.int64))


def read_names(path: Path, ends: Path, rows: np.ndarray) -> list[str]:
    """Image ids of rows (N,), as `write_names` wrote them."""
    stops = np.load(ends, mmap_mode="r")
    names = []
    with path.open("rb") as file:
        for row in rows.tolist():
            start = int(stops[row - 1]) if row else 0
            file.seek(start)
            names.append(file.read(int(stops[row]) - start).decode("utf-8", "surrogatepass"))
    return names


def _hash(ids: Sequence[str]) -> np.ndarray:
    data = b"".join(
        hashlib.blake2b(image_id.encode("utf-8", "surrogatepass"), digest_size=8).digest() for image_id in ids
    )
    return np.frombuffer(data, "<u8")
