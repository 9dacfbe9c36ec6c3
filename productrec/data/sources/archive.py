"""Archives: a competition's zip or tar unpacked beside the image table, and nothing outside that folder."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from productrec.artifacts import compute_file_digest, is_fresh, write_artifact
from productrec.errors import DataError, describe_offenders

KIND = "unpacked archive"
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# A bomb promises far more than it holds: no image archive shrinks a hundredfold, nor has single files of gigabytes.
MOST_GROWTH = 100
MOST_FILE_BYTES = 4 << 30
_SMALL_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


class Unpacked(NamedTuple):
    """``folder``: what the archive held; ``skipped``: entries that were left out, with the reason."""

    folder: Path
    skipped: list[str]


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
    skipped: list[str] = []
    if not is_fresh(folder, kind=KIND, inputs=inputs, settings={}):
        most = max(_SMALL_BYTES, archive.stat().st_size * MOST_GROWTH)
        notes: dict[str, object] = {}
        with (
            write_artifact(folder, kind=KIND, inputs=inputs, settings={}, notes=notes) as temporary,
            _open_archive(archive) as entries,
        ):
            skipped = _unpack(entries, temporary / "files", most, archive)
            notes["skipped"] = skipped
    return Unpacked(_step_into(folder / "files"), skipped)


@contextmanager
def _open_archive(archive: Path) -> Iterator[Iterator[tuple[str, int, bool, IO[bytes] | None]]]:
    is_zip = archive.name.lower().endswith(".zip")
    with _explain_damage(archive):
        opened = zipfile.ZipFile(archive) if is_zip else tarfile.open(archive)  # noqa: SIM115 - below
    with opened:
        yield _list_zip(opened) if isinstance(opened, zipfile.ZipFile) else _list_tar(opened)


@contextmanager
def _explain_damage(archive: Path) -> Iterator[None]:
    """For reading alone: decompressors raise OSError and whatever else for damage, which is not the disk's refusal."""
    try:
        yield
    except Exception as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}). Download it again.") from None


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
    entries: Iterator[tuple[str, int, bool, IO[bytes] | None]], folder: Path, most_bytes: int, archive: Path
) -> list[str]:
    folder.mkdir()
    skipped: list[str] = []
    total = 0
    while True:
        with _explain_damage(archive):
            entry = next(entries, None)
        if entry is None:
            return skipped
        name, size, is_regular, source = entry
        path = _find_place(name)
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
                with _explain_damage(archive):
                    chunk = source.read(_CHUNK_BYTES)
                if not chunk:
                    break
                total += len(chunk)
                if total > most_bytes:
                    raise DataError(
                        f"{archive}: unpacks to more than {MOST_GROWTH} times its size; a bomb, or not an archive of "
                        "images. Unpack it by hand and ingest the folder."
                    )
                file.write(chunk)


def _find_place(name: str) -> Path | None:
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
