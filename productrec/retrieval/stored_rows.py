"""Embeddings on disk in fewer bits: unit rows as float16 or int8, read as float32 unit rows, block by block."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np

Stored = Literal["float32", "float16", "int8"]
_STEPS = 127  # of int8 on either side of 0
_OFF_UNIT = 1e-3  # as `embedding_set.check_embeddings`


def encode_rows(embeddings: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Embeddings (B, D) as they are stored.

    float16 rounds each number by at most 2^-11 of it. int8 rounds each row to multiples of a 127th of its own largest
    number m; that scale is not kept, since the norm, which is 1, tells it. A row, brought back to unit norm, moves by
    at most e (1 + e^2), and so do its similarities to unit rows: e = 5e-4 for float16, sqrt(D) m / 254 for int8.
    Roundings mostly cancel: a similarity is off by m / 440 in the mean square.

    Args:
        embeddings: of unit norm; a row that is not, which reading in fewer bits would hide, becomes zeros.
        dtype: float32, which leaves them as they are, float16 or int8.
    """
    if dtype == np.float32:
        return embeddings
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    sound = np.where(np.abs(norms - 1.0) < _OFF_UNIT, embeddings, np.float32(0.0))
    if dtype == np.float16:
        return sound.astype(np.float16)
    largest = np.abs(sound).max(axis=1, keepdims=True, initial=0.0)
    return np.rint(sound * (_STEPS / np.where(largest > 0, largest, 1.0))).astype(np.int8)


class StoredRows:
    """Rows (N, D) of fewer bits in a memory map; what is taken of them is float32 of unit norm, an array like any.

    Rows of zeros stay zeros.
    """

    def __init__(self, stored: np.ndarray) -> None:
        self._stored = stored

    @property
    def shape(self) -> tuple[int, ...]:
        """N and D."""
        return self._stored.shape

    @property
    def ndim(self) -> int:
        """2, rows and columns."""
        return self._stored.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """What is read: float32."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, rows: Any) -> np.ndarray:
        values = np.asarray(self._stored[rows], dtype=np.float32)
        norms = np.linalg.norm(values, axis=-1, keepdims=True)
        np.divide(values, norms, out=values, where=norms > 0)
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def read_rows(stored: np.ndarray) -> np.ndarray:
    """Stored rows as float32 unit rows; float32 ones are these already."""
    if stored.dtype == np.float32:
        return stored
    return cast(np.ndarray, StoredRows(stored))  # it is taken from, measured and converted as one
