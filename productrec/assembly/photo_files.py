"""The files of photos that a command is given: single ones, and folders with all that are in them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from productrec.errors import DataError


def list_files(source: Path, leave_out: Path | None = None) -> dict[str, str]:
    """Path of every file by its name below ``source``, a file or a folder; no hidden ones, and not ``leave_out``.

    Raises:
        DataError: there is none.
    """
    if source.is_file():
        return {source.name: str(source)}
    if not source.is_dir():
        raise DataError(f"{source}: must be a folder of photos, or a photo; there is none of that name.")
    files = {}
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and (leave_out is None or path.absolute() != leave_out.absolute()):
                files[path.relative_to(source).as_posix()] = str(path)
    if not files:
        raise DataError(f"{source}: must hold photos; it holds no file.")
    return files


def list_photos(sources: Sequence[Path]) -> dict[str, str]:
    """Path of every file by a name of its own: below its source, or as it was given where two would have one name.

    Raises:
        DataError: a source holds none.
    """
    found = [(name, path) for source in sources for name, path in list_files(source).items()]
    counts = Counter(name for name, _ in found)
    return {name if counts[name] == 1 else path: path for name, path in found}
