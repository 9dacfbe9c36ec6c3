"""Archives: unpacked once, never outside their folder, refused where they are damaged or bombs."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from productrec.data.sources.archive import unpack_archive
from productrec.errors import DataError


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


def pack(path: Path, **entries: bytes) -> Path:
    files = {name.replace("__", "/").replace("_dot_", "."): data for name, data in entries.items()}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, data in files.items():
                file.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz") as file:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                file.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_an_archive_is_unpacked_once(tmp_path: Path, name: str) -> None:
    archive = pack(tmp_path / name, top__tin__a_dot_png=picture(), top__cup__b_dot_png=picture())
    unpacked = unpack_archive(archive, tmp_path / "out")
    assert unpacked.folder == tmp_path / "out" / "files" / "top"
    assert sorted(path.name for path in unpacked.folder.rglob("*.png")) == ["a.png", "b.png"]
    assert {path.parent.name for path in unpacked.folder.rglob("*.png")} == {"cup", "tin"}
    before = (unpacked.folder / "tin" / "a.png").stat().st_mtime_ns
    assert unpack_archive(archive, tmp_path / "out").folder == unpacked.folder
    assert (unpacked.folder / "tin" / "a.png").stat().st_mtime_ns == before


def test_nothing_leaves_the_folder(tmp_path: Path) -> None:
    archive = tmp_path / "set.tar"
    with tarfile.open(archive, "w") as file:
        for name, kind in (
            ("../outside.png", tarfile.REGTYPE),
            ("/absolute.png", tarfile.REGTYPE),
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
            ("good/a.png", tarfile.REGTYPE),
            ("good/a.png", tarfile.REGTYPE),
            ("x" * 300 + ".png", tarfile.REGTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            data = picture() if kind == tarfile.REGTYPE else b""
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    unpacked = unpack_archive(archive, tmp_path / "out")
    assert len(unpacked.skipped) == 7
    assert [path.name for path in (tmp_path / "out").rglob("*.png")] == ["a.png"]
    assert not (tmp_path / "outside.png").exists()


def test_a_bomb_and_a_damaged_archive_are_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", b"\0" * (80 << 20))
    with pytest.raises(DataError, match="a bomb, or not an archive of images"):
        unpack_archive(bomb, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for name in ("bad.zip", "bad.tar"):
        (tmp_path / name).write_bytes(b"not an archive")
        with pytest.raises(DataError, match="cannot be unpacked"):
            unpack_archive(tmp_path / name, tmp_path / "out")
    noise = np.random.default_rng(0).bytes(200_000)
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        with zipfile.ZipFile(tmp_path / "cut.zip", "w", kind) as file:
            file.writestr("a.png", noise)
        _spoil(tmp_path / "cut.zip")
    for suffix in ("gz", "bz2", "xz"):
        with tarfile.open(tmp_path / f"cut.tar.{suffix}", f"w:{suffix}") as packed:
            entry = tarfile.TarInfo("a.png")
            entry.size = len(noise)
            packed.addfile(entry, io.BytesIO(noise))
        _spoil(tmp_path / f"cut.tar.{suffix}")


def _spoil(archive: Path) -> None:
    """Bytes in the middle damaged, then the second half missing: one clear error each, and nothing left behind."""
    data = archive.read_bytes()
    middle = len(data) // 2
    for spoilt in (data[:middle] + b"\xff" * 5000 + data[middle + 5000 :], data[:middle]):
        archive.write_bytes(spoilt)
        with pytest.raises(DataError, match="cannot be unpacked"):
            unpack_archive(archive, archive.parent / "out")
        assert not (archive.parent / "out").exists()


def test_a_tar_that_ends_before_its_marker_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.tar"
    with tarfile.open(whole, "w") as file:
        for name in "ab":
            entry = tarfile.TarInfo(f"{name}.png")
            entry.size = 512
            file.addfile(entry, io.BytesIO(bytes(512)))
    unpack_archive(whole, tmp_path / "out")
    for length in (1024, 1024 + 100, 2048):  # at an entry's end, in a header, and before the marker alone
        (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:length])
        with pytest.raises(DataError, match="cut.tar: cannot be unpacked"):
            unpack_archive(tmp_path / "cut.tar", tmp_path / "other")
