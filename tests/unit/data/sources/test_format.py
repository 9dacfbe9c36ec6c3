"""Formats as files: each has the interface, and one more file is one more format."""

import importlib
import inspect
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from productrec.data.sources import formats
from productrec.data.sources.format import Format
from productrec.data.sources.reading import detect_format, list_source_files, load_format, read_source, unpack_images
from productrec.errors import DataError
from productrec.settings.names import list_formats

TOY = """
from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.rows import SourceRows


def read_toy(source, options):
    rows = SourceRows(numbered=True, class_names={0: "toy"})
    for line in (source / "toy.txt").read_text().split():
        rows.add(line, "train", 0)
    return rows


FORMAT = Format(
    rank=5, shows="toy.txt", detect=lambda source: (source / "toy.txt").is_file(), read=read_toy, lists=("lists/*",)
)
"""


@pytest.fixture
def toy_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A source of a format whose file, and nothing else, is added."""
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "toy_by_test.py").write_text(TOY)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "added")])
    importlib.invalidate_caches()
    list_formats.cache_clear()
    source = tmp_path / "source"
    (source / "lists").mkdir(parents=True)
    (source / "toy.txt").write_text("a.jpg b.jpg")
    (source / "lists" / "more.txt").write_text("")
    (source / "lists" / "a.jpg").write_text("")
    yield source
    monkeypatch.undo()
    list_formats.cache_clear()
    sys.modules.pop(f"{formats.__name__}.toy_by_test", None)


@pytest.mark.parametrize("name", list_formats())
def test_every_file_makes_a_format(name: str, tmp_path: Path) -> None:
    made = load_format(name)
    assert made.shows and made.rank > 0
    assert list(inspect.signature(made.detect).parameters) == ["source"]
    assert list(inspect.signature(made.read).parameters) == ["source", "options"]
    assert made.unpack is None or list(inspect.signature(made.unpack).parameters) == ["source", "folder"]
    assert made.guess is None or list(inspect.signature(made.guess).parameters) == ["source"]
    assert not made.detect(tmp_path)  # an empty folder is nobody's
    with pytest.raises(DataError):  # and not a row is made of it
        unpacked = unpack_images(tmp_path, name, tmp_path / "unpacked")
        read_source(tmp_path if unpacked is None else unpacked.folder, name)


def test_ranks_differ_so_that_the_order_is_written_down() -> None:
    ranks = [load_format(name).rank for name in list_formats()]
    assert len(set(ranks)) == len(ranks)


def test_one_more_file_is_one_more_format(toy_source: Path) -> None:
    assert "toy_by_test" in list_formats()
    assert detect_format(toy_source) == "toy_by_test"
    assert read_source(toy_source, "toy_by_test").image_id == ["a.jpg", "b.jpg"]
    names = [path.relative_to(toy_source).as_posix() for path in list_source_files(toy_source)]
    assert names == ["lists/more.txt", "toy.txt"]
    shutil.rmtree(toy_source)
    toy_source.mkdir()
    with pytest.raises(DataError, match="must hold toy.txt, images.csv or images.parquet"):
        detect_format(toy_source)


def test_a_format_that_no_file_makes_is_refused() -> None:
    with pytest.raises(DataError, match=r"format: must be one of cars, coco, .*, webdataset; got 'toy_by_test'"):
        load_format("toy_by_test")


def test_a_file_that_makes_no_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("productrec.data.sources.formats.sop")
    monkeypatch.setattr(module, "FORMAT", "sop")
    with pytest.raises(TypeError, match="formats.sop: FORMAT must be a Format; got str"):
        load_format("sop")
    assert not isinstance(module.FORMAT, Format)
