"""What a stream of rows comes to: count, a digest that no order changes, the nearest of some queries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_MODULUS = 1 << 128


class Contents(NamedTuple):
    """How many rows, and the sum of their digests (the first 128 bits of SHA-256 of id, key and embedding)."""

    rows: int = 0
    digest: int = 0

    def add(self, ids: Sequence[str], keys: Sequence[str], embeddings: np.ndarray) -> Contents:
        """The contents with more rows: ids (N,), keys of their classes (N,), embeddings (N, D)."""
        total = self.digest
        for image_id, key, row in zip(ids, keys, np.ascontiguousarray(embeddings, dtype="<f4"), strict=True):
            texts = [text.encode("utf-8", "surrogatepass") for text in (image_id, key)]
            head = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
            total += int.from_bytes(hashlib.sha256(head + row.tobytes()).digest()[:16], "little")
        return Contents(self.rows + len(ids), total % _MODULUS)

    def describe(self) -> str:
        """As a person reads it."""
        return f"{self.rows:,} rows, digest {self.digest:032x}"


class NearestSoFar:
    """The ``k`` most similar of all rows that were shown, exactly."""

    def __init__(self, queries: np.ndarray, k: int) -> None:
        """``queries``: (Q, D) float32."""
        self._queries, self._k = queries, k
        self.rows = np.empty((len(queries), 0), np.int64)
        self.similarities = np.empty((len(queries), 0), np.float32)

    def add(self, rows: np.ndarray, embeddings: np.ndarray) -> None:
        """Show rows (N,) int64 with their embeddings (N, D)."""
        similarities = np.concatenate([self.similarities, self._queries @ embeddings.T], axis=1)
        known = np.concatenate([self.rows, np.broadcast_to(rows, (len(self._queries), len(rows)))], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, : self._k]
        self.rows, self.similarities = np.take_along_axis(known, order, 1), np.take_along_axis(similarities, order, 1)
