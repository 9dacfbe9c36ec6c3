"""Locks: one process at a time; they are the kernel's, so that a process that died holds none."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from productrec.console import warn
from productrec.errors import ArtifactError

_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextlib.contextmanager
def hold_lock(path: Path, busy: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; the empty file stays.

    Where the disk knows no locks, or the file cannot be opened, that is told and the block runs without; of a disk that
    is read-only the block's own writes tell.
    filelock is needed from 4.3.1 on: before, a loader process that outlived a killed training still held its lock.

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
