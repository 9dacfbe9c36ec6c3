"""Archives: a competition's zip or tar unpacked beside the image table, and nothing outside that folder."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Self

from productrec.artifacts import compute_file_digest
from productrec.data.sources.unpacked import Unpacked, make_unpacked
from productrec.errors import DataError, describe_offenders

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# A bomb promises far more than it holds: no image archive shrinks a hundredfold, nor has single files of gigabytes.
MOST_GROWTH = 100
MOST_FILE_BYTES = 4 << 30
_SMALL_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


class Budget:
    """Counts the bytes that a source of ``packed_bytes`` unpacks to, and refuses what no images grow to."""

    def __init__(self, source: Path, packed_bytes: int) -> None:
        self._source = source
        self._left = max(_SMALL_BYTES, packed_bytes * MOST_GROWTH)

    def spend(self, count: int) -> None:
        """Take ``count`` bytes.

        Raises:
            DataError: there are none left.
        """
        self._left -= count
        if self._left < 0:
            raise DataError(
                f"{self._source}: unpacks to more than {MOST_GROWTH} times its size; a bomb, or not an archive of "
                "images. Unpack it by hand and ingest the folder."
            )


def is_archive(path: Path) -> bool:
    """Whether a path is a file with the name of a zip or tar."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def unpack_archive(archive: Path, folder: Path) -> Unpacked:
    """Unpack into ``folder``, unless that holds this very archive already.

    Entries that would leave the folder, links, devices and entries too large are left out, and told. A single folder at
    the top is stepped into.

    Args:
        archive: a zip or tar, compressed or not.
        folder: where to; its earlier contents are replaced.

    Raises:
        DataError: the archive is damaged, encrypted, or grows beyond all measure.
        StorageError: the disk refused.
    """
    inputs = {"archive": compute_file_digest(archive)}
    unpacked = make_unpacked(folder, inputs, {}, lambda files: unpack_into(archive, files))
    return Unpacked(_step_into(unpacked.folder), unpacked.skipped)


def unpack_into(archive: Path, folder: Path) -> list[str]:
    """Unpack into ``folder``, with the care of `unpack_archive`; the names of the entries that were left out.

    Args:
        archive: a zip or tar, compressed or not.
        folder: made where it is not there; what lies in it stays, and must come from nowhere but this archive.

    Raises:
        DataError: the archive is damaged, encrypted, or grows beyond all measure.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _open_archive(archive) as entries:
        return _unpack(entries, folder, Budget(archive, archive.stat().st_size), archive)


@contextmanager
def _open_archive(archive: Path) -> Iterator[Iterator[tuple[str, int, bool, IO[bytes] | None]]]:
    is_zip = archive.name.lower().endswith(".zip")
    with explain_damage(archive):
        opened = zipfile.ZipFile(archive) if is_zip else tarfile.open(archive, tarinfo=_Entry)  # noqa: SIM115 - below
    with opened:
        yield _list_zip(opened) if isinstance(opened, zipfile.ZipFile) else _list_tar(opened)


@contextmanager
def explain_damage(source: Path) -> Iterator[None]:
    """For reading alone: decompressors raise OSError and whatever else for damage, which is not the disk's refusal."""
    try:
        yield
    except Exception as error:
        raise DataError(f"{source}: cannot be unpacked ({error}). Download it again.") from None


class _Entry(tarfile.TarInfo):
    """An entry of a tar that must go on to its end marker.

    tarfile takes a header that it cannot read for the end, and what follows would be lost without a word.
    """

    @classmethod
    def fromtarfile(cls, packed: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(packed)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the marker; a class that type checkers do not know
                raise
            raise tarfile.ReadError(f"{error} where an entry or the end marker must be") from None


def _list_zip(opened: zipfile.ZipFile) -> Iterator[tuple[str, int, bool, IO[bytes] | None]]:
    for entry in opened.infolist():
        if not entry.is_dir():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            is_regular = kind in (0, stat.S_IFREG)
            yield entry.filename, entry.file_size, is_regular, opened.open(entry) if is_regular else None


def _list_tar(packed: tarfile.TarFile) -> Iterator[tuple[str, int, bool, IO[bytes] | None]]:
    for entry in packed:
        if not entry.isdir():
            yield entry.name, entry.size, entry.isreg(), packed.extractfile(entry) if entry.isreg() else None
    while packed.fileobj is not None and packed.fileobj.read(_CHUNK_BYTES):
        pass  # a compressed tar's checksum is behind its end


def _unpack(
    entries: Iterator[tuple[str, int, bool, IO[bytes] | None]], folder: Path, budget: Budget, archive: Path
) -> list[str]:
    skipped: list[str] = []
    while True:
        with explain_damage(archive):
            entry = next(entries, None)
        if entry is None:
            return skipped
        name, size, is_regular, source = entry
        path = _find_target(name)
        if path is None or not is_regular or source is None or size > MOST_FILE_BYTES:
            skipped.append(name)
            continue
        target = folder / path
        if target.exists() or any(parent.is_file() for parent in target.parents):
            skipped.append(name)  # the first of two entries of one name stays
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with source, target.open("wb") as file:
            while True:
                with explain_damage(archive):
                    chunk = source.read(_CHUNK_BYTES)
                if not chunk:
                    break
                budget.spend(len(chunk))
                file.write(chunk)


def _find_target(name: str) -> Path | None:
    """The entry's path below the folder, or None where it would leave it or cannot be a file's name."""
    if "\0" in name or name.startswith(("/", "\\")) or PureWindowsPath(name).drive:
        return None
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or any(len(part.encode(errors="replace")) > 255 for part in parts):
        return None
    return Path(*parts)


def _step_into(folder: Path) -> Path:
    while True:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
        if len(entries) != 1 or not entries[0].is_dir():
            return folder
        folder = entries[0]


def describe_skipped(skipped: list[str]) -> str | None:
    """A line about entries that were left out, or None."""
    if not skipped:
        return None
    return f"{describe_offenders(skipped)} entries of the archive were left out: links, devices, or outside the folder."
