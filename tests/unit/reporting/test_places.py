"""Paths in a page's texts: relative where that is shorter, and nothing else is changed."""

from pathlib import Path

import pytest

from productrec.reporting.places import shorten_paths


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my (own) work" / "shop"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_paths_below_the_current_folder_are_relative(here: Path) -> None:
    assert shorten_paths(f"{here}/data/tiny: must be there. Run in {here}/a (not {here}/b).") == (
        "data/tiny: must be there. Run in a (not b)."
    )


def test_paths_near_it_are_relative_and_those_far_from_it_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert shorten_paths(f"{tmp_path}/images: must be there") == "../images: must be there"
    assert shorten_paths("'/nowhere' must be there") == "'/nowhere' must be there"
    assert shorten_paths("productrec audit ../x/y, 3/4, a /b") == "productrec audit ../x/y, 3/4, a /b"
    assert shorten_paths("see https://example.org/a/b") == "see https://example.org/a/b"
