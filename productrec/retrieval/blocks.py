"""Blocks of a large file, each with a digest of its own, checked when it is first touched."""

from __future__ import annotations

import hashlib
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from productrec.errors import ArtifactError
from productrec.runtime import count_cores

BLOCK_BYTES = 1 << 18
_DIGEST_BYTES = 32
_FEW = 8  # blocks that one thread checks as fast as several


def write_block_digests(path: Path, out: Path) -> None:
    """Write the SHA-256 of each block of ``path``, one after the other, to ``out``."""
    with path.open("rb") as file:
        out.write_bytes(b"".join(_digest_all(file.fileno(), range(_count(path.stat().st_size)))))


class CheckedBlocks:
    """A file whose blocks are compared with their digests, each once, before it is used."""

    def __init__(self, path: Path, digests: Path) -> None:
        """Open ``path`` with what `write_block_digests` wrote of it.

        Raises:
            ArtifactError: there are not as many digests as blocks.
        """
        self._path = path
        self._file = os.open(path, os.O_RDONLY)  # read, not mapped: what was checked is no memory of this process
        weakref.finalize(self, os.close, self._file)
        wanted = digests.read_bytes()
        count = _count(os.fstat(self._file).st_size)
        if len(wanted) != count * _DIGEST_BYTES:
            raise ArtifactError(
                f"{digests}: must hold {count} digests of {_DIGEST_BYTES} bytes; got {len(wanted)} bytes. "
                "Build the index again."
            )
        self._wanted = [wanted[start : start + _DIGEST_BYTES] for start in range(0, len(wanted), _DIGEST_BYTES)]
        self._seen = np.zeros(count, dtype=bool)
        self.is_complete = False

    def check_all(self) -> None:
        """Check every block that was not yet checked.

        Raises:
            ArtifactError: a block differs from its digest.
        """
        if not self.is_complete:
            self._check(np.flatnonzero(~self._seen))

    def check_spans(self, starts: np.ndarray, length: int) -> None:
        """Check the blocks that hold ``length`` (at least 1) bytes from each of ``starts``, int64 offsets in bytes.

        Raises:
            ArtifactError: a block differs from its digest.
        """
        if self.is_complete:
            return
        touched = np.zeros(len(self._seen), dtype=bool)
        for offset in range(0, length + BLOCK_BYTES - 1, BLOCK_BYTES):
            touched[(starts + min(offset, length - 1)) // BLOCK_BYTES] = True
        self._check(np.flatnonzero(touched & ~self._seen))

    def _check(self, blocks: np.ndarray) -> None:
        for block, digest in zip(blocks.tolist(), _digest_all(self._file, blocks.tolist()), strict=True):
            if digest != self._wanted[block]:
                first = block * BLOCK_BYTES
                raise ArtifactError(
                    f"{self._path}: block {block} (bytes {first:,} to {first + BLOCK_BYTES - 1:,}) differs from its "
                    "digest; the index is damaged. Build it again."
                )
        self._seen[blocks] = True
        self.is_complete = bool(self._seen.all())


def _count(size: int) -> int:
    return -(-size // BLOCK_BYTES)


def _digest_all(file: int, blocks: range | list[int]) -> list[bytes]:
    def digest(block: int) -> bytes:
        return hashlib.sha256(os.pread(file, BLOCK_BYTES, block * BLOCK_BYTES)).digest()

    if len(blocks) <= _FEW:
        return [digest(block) for block in blocks]
    with ThreadPoolExecutor(count_cores()) as pool:  # hashing leaves the interpreter's lock
        return list(pool.map(digest, blocks, chunksize=1))
