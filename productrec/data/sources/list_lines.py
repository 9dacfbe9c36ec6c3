"""Lines of the list files that the retrieval benchmarks come with.

Classes that these benchmarks test on are never trained on, nor looked at while a network trains: their images stand in
the split test, with their labels, because Recall@K is measured among them. Where a benchmark tells queries from
gallery, the column ``role`` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from productrec.errors import DataError


def has_files(source: Path, *names: str) -> bool:
    """Whether a folder holds every one of these files."""
    return all((source / name).is_file() for name in names)


def read_lines(path: Path, *, columns: int, skip: int) -> Iterator[tuple[int, list[str]]]:
    """Line numbers from 1, and the fields of each line after the first ``skip``; empty lines are passed over.

    Args:
        path: UTF-8 text; fields stand between white space, of which the last one may hold some.
        columns: fields a line.
        skip: lines of the heading.

    Raises:
        DataError: it cannot be read, or a line has another number of fields.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    for number, line in enumerate(lines[skip:], start=skip + 1):
        fields = line.split(maxsplit=columns - 1)
        if fields and len(fields) != columns:
            raise DataError(f"{path}, line {number}: must have {columns} columns; got {line[:80]!r}.")
        if fields:
            yield number, [field.strip() for field in fields]
