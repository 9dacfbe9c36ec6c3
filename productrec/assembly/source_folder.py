"""The folder that a source is read from, and its format: an archive, shards or a dataset are unpacked to one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from productrec.console import warn
from productrec.data.sources.archive import describe_skipped, is_archive, unpack_archive
from productrec.data.sources.reading import detect_format, unpack_images
from productrec.data.sources.unpacked import Unpacked
from productrec.recipe.data import DataSettings
from productrec.settings.names import AUTO


def unpack_source(source: Path, out: Path, data: DataSettings) -> tuple[Path, str]:
    """The folder to read, and its format: what lies in an archive, in shards or in a dataset is unpacked first."""
    folder = out.parent / f"{out.name}.unpacked"
    if is_archive(source):
        source = _tell_skipped(source, unpack_archive(source, folder))
        folder = out.parent / f"{out.name}.unpacked.images"  # an archive of shards
    format_name = detect_format(source) if data.format == AUTO else data.format
    unpacked = unpack_images(source, format_name, folder)
    return source if unpacked is None else _tell_skipped(source, unpacked), format_name


@contextmanager
def unpack_to_look(source: Path, out: Path, data: DataSettings) -> Iterator[tuple[Path, str]]:
    """The folder and format of a source; what must be unpacked for it is removed at the end, unless ingest left it."""
    kept = out.parent / f"{out.name}.unpacked" / "manifest.json"
    if kept.is_file() and kept.stat().st_mtime_ns > _find_newest(source):
        yield unpack_source(source, out, data)
        return
    beside = next(folder for folder in out.absolute().parents if folder.is_dir())  # as large as the table's own disk
    with tempfile.TemporaryDirectory(prefix=".productrec-look-", dir=beside) as folder:
        yield unpack_source(source, Path(folder) / out.name, data)


def _tell_skipped(source: Path, unpacked: Unpacked) -> Path:
    skipped = describe_skipped(unpacked.skipped)
    if skipped:
        warn(f"{source}: {skipped}")
    return unpacked.folder


def _find_newest(source: Path) -> int:
    """When a source's archive, or the latest of the files right in its folder, was written, in ns."""
    files = [source] if source.is_file() else source.iterdir() if source.is_dir() else []
    return max((path.stat().st_mtime_ns for path in files if path.is_file()), default=0)
