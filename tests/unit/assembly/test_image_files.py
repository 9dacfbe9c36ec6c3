"""Image files: when they count as others than before."""

import os
from pathlib import Path

import pandas as pd
import pytest

from productrec.assembly.image_files import fingerprint_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"12345")
        os.utime(tmp_path / name, ns=(1, 1_700_000_000_000_000_000))
    return tmp_path


def fingerprint(folder: Path, *paths: str | None) -> str:
    return fingerprint_files(pd.DataFrame({"path": pd.Series(paths, dtype="str")}), folder)


def test_files_are_known_by_name_size_and_time(folder: Path) -> None:
    before = fingerprint(folder, "a", None, "b")
    assert fingerprint(folder, "a", None, "b") == before
    assert fingerprint(folder, "b", "a") != before
    assert fingerprint(folder, "a") != before
    os.utime(folder / "b", ns=(1, 1_700_000_000_000_000_001))
    later = fingerprint(folder, "a", None, "b")
    assert later != before
    (folder / "b").write_bytes(b"123456")
    os.utime(folder / "b", ns=(1, 1_700_000_000_000_000_001))
    assert fingerprint(folder, "a", None, "b") not in (before, later)


def test_a_link_is_known_by_itself_and_not_by_what_it_leads_to(folder: Path) -> None:
    (folder / "link").symlink_to("gone")
    before = fingerprint(folder, "link")
    (folder / "gone").write_bytes(b"x")
    assert fingerprint(folder, "link") == before
