"""Reading a source of any format: which one it has, and its rows by that format's own file in `formats`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from productrec.data.sources.files import list_folders
from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.rows import SourceRows
from productrec.data.sources.unpacked import Unpacked
from productrec.errors import DataError, describe_offenders
from productrec.settings.names import list_formats

_FORMATS = "productrec.data.sources.formats"
_LIST_SUFFIXES = (".json", ".csv", ".tsv", ".txt", ".parquet", ".mat")
_LARGEST_LIST_BYTES = 4 << 30
_NO_CLASSES = (
    " Its folders are named as folders of all images are, not as classes; if they are classes, pass --format folders."
)


def load_format(name: str) -> Format:
    """The format that ``formats/NAME.py`` makes.

    Raises:
        DataError: there is no such file.
    """
    if name not in list_formats():
        raise DataError(f"format: must be one of {', '.join(list_formats())}; got {name!r}.")
    chosen = import_module(f"{_FORMATS}.{name}").FORMAT
    if not isinstance(chosen, Format):
        raise TypeError(f"{_FORMATS}.{name}: FORMAT must be a Format; got {type(chosen).__name__}")
    return chosen


def detect_format(source: Path) -> str:
    """The name of the format that a source folder has, told by its files.

    Formats are asked in the order of their ranks; where none detects its own, they are asked to guess.

    Raises:
        DataError: no such folder, or none of the formats.
    """
    if not source.is_dir():
        raise DataError(f"{source}: must be the folder (or the zip or tar) of the competition's files; no such folder.")
    formats = dict(_load_by_rank())
    for name, candidate in formats.items():
        if candidate.detect(source):
            return name
    for name, candidate in formats.items():
        if candidate.guess is not None and candidate.guess(source):
            return name
    *others, last = (candidate.shows for candidate in formats.values())
    raise DataError(
        f"{source}: must hold {', '.join(others)}, or {last}; "
        f"got {describe_offenders(sorted(entry.name for entry in source.iterdir()))}."
        f"{_NO_CLASSES if list_folders(source) else ''}"
    )


def unpack_images(source: Path, format_name: str, folder: Path) -> Unpacked | None:
    """Unpack to ``folder`` a source whose images lie within larger files; None where they are files of their own.

    Raises:
        DataError: the source is not of that format, or damaged.
        StorageError: the disk refused.
    """
    unpack = load_format(format_name).unpack
    return None if unpack is None else unpack(source, folder)


def read_source(source: Path, format_name: str, options: ReadOptions | None = None) -> SourceRows:
    """The rows of a source of a known format.

    Args:
        source: folder; the one it was unpacked to, where `unpack_images` gives one.
        format_name: what `detect_format` returns, or a person says.
        options: what a person says of its columns and boxes; None: nothing.

    Raises:
        DataError: the source is not of that format.
    """
    return load_format(format_name).read(source, options or ReadOptions())


def list_source_files(source: Path) -> list[Path]:
    """The files of a source that say what its images are, sorted; those of every format, so that none is overlooked."""
    files = set(source.iterdir())
    for _, candidate in _load_by_rank():
        files.update(path for pattern in candidate.lists for path in source.glob(pattern))
    return sorted(
        path
        for path in files
        if path.suffix.lower() in _LIST_SUFFIXES and path.is_file() and path.stat().st_size <= _LARGEST_LIST_BYTES
    )


def _load_by_rank() -> Iterator[tuple[str, Format]]:
    formats = {name: load_format(name) for name in list_formats()}
    yield from sorted(formats.items(), key=lambda entry: (entry[1].rank, entry[0]))
