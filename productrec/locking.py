"""Locks: one process at a time; they are the kernel's, so that a process that died holds none."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from productrec.artifacts import explain_storage_errors
from productrec.console import warn
from productrec.errors import ArtifactError, StorageError

_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class ProcessLock:
    """The lock of a file, which is this process's until it is released or the process dies; the empty file stays.

    filelock is needed from 4.3.1 on: before, a loader process that outlived a killed training still held its lock.
    """

    def __init__(self, path: Path) -> None:
        from filelock import FileLock

        self._path = path
        self._lock = FileLock(path, fallback_to_soft=False)

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock, as soon as it is free where ``wait``; whether this process has it.

        Raises:
            StorageError: the disk knows no locks, or does not let the file be opened.
        """
        from filelock import Timeout

        try:
            with explain_storage_errors(self._path):
                self._lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            return False
        except OSError as error:
            raise StorageError(
                f"{self._path}: cannot be locked ({error.strerror or error}). Choose a folder on another disk."
            ) from None
        return True

    def release(self) -> None:
        """Let other processes have it."""
        self._lock.release()


@contextlib.contextmanager
def hold_lock(path: Path, busy: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; the empty file stays.

    Where the disk knows no locks, or the file cannot be opened, that is told and the block runs without; of a disk that
    is read-only the block's own writes tell.

    Args:
        path: of the lock file; its folder is made.
        busy: what to say where another process holds it.
        wait_seconds: how long to wait for that process.

    Raises:
        ArtifactError: another process holds it.
    """
    from filelock import FileLock, Timeout

    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(path, timeout=wait_seconds, fallback_to_soft=False))
        except Timeout:
            raise ArtifactError(busy) from None
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                warn(f"{path.parent}: this disk knows no locks; let one process at a time write here.")
            elif error.errno != errno.EROFS:
                why = error.strerror or error
                warn(f"{path.parent}: cannot be locked ({why}); let one process at a time write here.")
        yield
