"""Which file belongs to an id."""

import itertools
import os
from pathlib import Path, PureWindowsPath

import pandas as pd
import pytest
from PIL import Image

from productrec.data.sources.files import (
    IMAGE_FOLDERS,
    IMAGE_SUFFIXES,
    UPPER_SUFFIXES,
    FileFinder,
    find_image_root,
    find_paths,
)
from productrec.data.sources.format import ReadOptions
from productrec.data.sources.reading import read_source
from productrec.data.sources.rows import SourceRows
from productrec.errors import DataError


def write_images(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), "red").save(root / name)
    return root


def frame(*entries: tuple[str, str], paths: dict[str, str] | None = None) -> pd.DataFrame:
    rows = SourceRows()
    for image_id, split in entries:
        rows.add(image_id, split, None, path=(paths or {}).get(image_id))
    return rows.build_frames()[0]


def test_a_looped_link_hides_no_other_file(tmp_path: Path) -> None:
    write_images(tmp_path, "sub/a.png")
    (tmp_path / "sub" / "loop.png").symlink_to(tmp_path / "sub" / "loop.png")
    assert FileFinder(tmp_path).find("sub/a.png", "train") == "sub/a.png"


def test_the_image_root_is_the_source_or_the_given_folder(tmp_path: Path) -> None:
    assert find_image_root(tmp_path, None) == tmp_path
    (tmp_path / "pictures").mkdir()
    assert find_image_root(tmp_path, tmp_path / "pictures") == tmp_path / "pictures"
    with pytest.raises(DataError, match="must be the folder of the images; no such folder"):
        find_image_root(tmp_path, tmp_path / "absent")


# ---------------------------------------------------------------- files of ids


def test_ids_are_found_in_the_usual_folders_with_and_without_suffix(tmp_path: Path) -> None:
    write_images(tmp_path, "images/a.jpg", "images/000123.jpg", "images/NA.png", "images/deep/d.JPG", "b.webp", "e.PNG")
    names = ["a.jpg", "000123", "NA", "deep/d", "b", "e", "absent", "a.png"]
    finder = FileFinder(tmp_path)
    assert [finder.find(name, "train") for name in names] == [
        "images/a.jpg",
        "images/000123.jpg",
        "images/NA.png",
        "images/deep/d.JPG",
        "b.webp",
        "e.PNG",
        None,
        None,
    ]


def test_a_dot_in_an_id_is_no_suffix(tmp_path: Path) -> None:
    write_images(tmp_path, "images/a.b.jpg", "images/a..b.jpg")
    finder = FileFinder(tmp_path)
    assert finder.find("a.b", "train") == "images/a.b.jpg"
    assert finder.find("a..b", "train") == "images/a..b.jpg"


@pytest.mark.parametrize("suffix", ["", "_images"])
def test_a_splits_folder_serves_that_split(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, *(f"{split}{suffix}/x.jpg" for split in ("train", "val", "test")))
    finder = FileFinder(tmp_path)
    for split in ("train", "val", "test"):
        assert finder.find("x", split) == f"{split}{suffix}/x.jpg"


@pytest.mark.parametrize("suffix", ["", "_images"])
def test_a_test_id_never_gets_a_training_file(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, f"train{suffix}/x.jpg", f"test{suffix}/y.jpg")
    finder = FileFinder(tmp_path)
    assert finder.find("x", "test") is None
    assert finder.find("y", "train") is None
    assert finder.find("y", "val") is None


@pytest.mark.parametrize("suffix", ["", "_images"])
def test_an_image_held_out_of_train_is_found_where_it_lies(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, f"train{suffix}/x.jpg")
    assert FileFinder(tmp_path).find("x", "val") == f"train{suffix}/x.jpg"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "../secret",
        "../../etc/passwd",
        "/etc/passwd",
        "deep/../../secret.jpg",
        "..\\secret.jpg",
        "..\\\\secret.jpg",
        "deep\\..\\..\\secret.jpg",
        "\\secret.jpg",
        "\\\\server\\share\\secret.jpg",
        "a\0.jpg",
        "a\0/b.jpg",
        "..",
        ".",
        "",
        "/",
    ],
)
def test_a_name_that_leads_outside_is_never_looked_for(tmp_path: Path, name: str) -> None:
    root = write_images(tmp_path / "root", "images/a.jpg", "images/deep/b.jpg")
    write_images(tmp_path, "secret.jpg")
    write_images(root, "secret.jpg", "images/..\\secret.jpg", "images/deep\\..\\..\\secret.jpg")
    assert FileFinder(root).find(name, "train") is None
    rows = frame((name, "train"), ("a", "train"), ("t", "test"), paths={"t": name})
    assert find_paths(rows, root).fillna("none").tolist() == ["none", "images/a.jpg", "none"]


def test_the_trick_would_work_without_the_guard(tmp_path: Path) -> None:
    root = write_images(tmp_path / "root", "images/a.jpg")
    write_images(tmp_path, "secret.jpg")
    assert (root / "images" / "../../secret.jpg").is_file()


def test_a_folder_named_like_an_image_is_no_file(tmp_path: Path) -> None:
    write_images(tmp_path, "images/a.jpg/b.jpg", "images/c.jpg")
    assert FileFinder(tmp_path).find("a.jpg", "train") is None
    assert FileFinder(tmp_path).find("a.jpg/b.jpg", "train") == "images/a.jpg/b.jpg"
    assert FileFinder(tmp_path).find("c.jpg/d.jpg", "train") is None


def test_a_known_path_counts_before_the_id(tmp_path: Path) -> None:
    write_images(tmp_path, "elsewhere/real.jpg", "images/7.jpg")
    rows = frame(("7", "train"), ("8", "test"), paths={"7": "elsewhere/real.jpg"})
    assert find_paths(rows, tmp_path).fillna("none").tolist() == ["elsewhere/real.jpg", "none"]


def test_a_source_without_a_single_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds none of the 2 images .* name their folder with --images"):
        find_paths(frame(("a", "train"), ("b", "test")), tmp_path)
    write_images(tmp_path, "images/b.jpg")
    found = find_paths(frame(("a", "train"), ("b", "test")), tmp_path)
    assert found.isna().tolist() == [True, False]


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, *(f"images/{number}.jpg" for number in range(5)))
    finder = FileFinder(tmp_path)
    listed = []
    listing = finder._list
    monkeypatch.setattr(finder, "_list", lambda folder: listed.append(folder not in finder._listed) or listing(folder))
    for number in range(5):
        assert finder.find(str(number), "train")
    assert sum(listed) == 1


def find_one_by_one(root: Path, name: str, split: str) -> str | None:
    """What `FileFinder.find` promises, by a look at every place."""
    if name.startswith(("/", "\\")) or ".." in PureWindowsPath(name).parts or "\0" in name:
        return None
    for folder, suffix in itertools.product(IMAGE_FOLDERS, ("", *IMAGE_SUFFIXES, *UPPER_SUFFIXES)):
        owner = folder.removesuffix("_images").removesuffix("2017").removesuffix("2014")
        foreign = {"train": ("val", "test"), "val": ("test",), "test": ("train", "val")}[split]
        path = os.path.normpath(os.path.join(folder, name + suffix))
        if owner not in foreign and (root / path).is_file():
            return Path(path).as_posix()
    return None


def test_the_finder_finds_what_a_look_at_every_place_finds(tmp_path: Path) -> None:
    folders = ("images", "images/a", "images/images", "train", "val_images", "test2017", "a", "a/b", ".")
    files = ("a.jpg", "a.PNG", "b.jpg.jpg", "..jpg", ".jpg", "c", "d.e", "a\\b.jpg")
    for place, (folder, name) in enumerate(itertools.product(folders, files)):
        if place % 3:
            write_images(tmp_path, f"{folder}/x.png")
            (tmp_path / folder / name).touch()
    finder = FileFinder(tmp_path)
    names = ["a", "b", "b.jpg", "c", "d", "d.e", "", ".", "x", "a.jpg", "a\\b", "images/a", "gone/a", "C:a"]
    names += ["a/a", "a//a", "./a", "a/./b/c", "a/b/a.jpg", "a/b/..jpg", "a/b/.", "~"]
    for name, split in itertools.product(names, ("train", "val", "test")):
        assert finder.find(name, split) == find_one_by_one(tmp_path, name, split), (name, split)


# ---------------------------------------------------------------- whole sources


def test_a_csv_source_finds_files_by_ids_without_suffix(tmp_path: Path) -> None:
    write_images(tmp_path, "images/000123.jpg", "images/NA.jpg", "images/t1.jpg")
    (tmp_path / "train.csv").write_text("id,label\n000123,1\nNA,2\n123,1\n")
    (tmp_path / "sample_submission.csv").write_text("id,predicted\nt1,1 2 3\n")
    images, _ = read_source(tmp_path, "csv", ReadOptions(sample=tmp_path / "sample_submission.csv")).build_frames()
    assert find_paths(images, tmp_path).fillna("none").tolist() == [
        "images/000123.jpg",
        "images/NA.jpg",
        "none",
        "images/t1.jpg",
    ]


def test_an_fgvc_source_keeps_ids_without_files(tmp_path: Path) -> None:
    write_images(tmp_path, "images/a.jpg", "images/d.jpg")
    (tmp_path / "train.json").write_text('{"images": [{"id": "a.jpg", "class": 1}, {"id": "gone.jpg", "class": 1}]}')
    (tmp_path / "test.json").write_text('{"images": [{"id": "d.jpg"}, {"id": "../train.json"}]}')
    images, _ = read_source(tmp_path, "fgvc_json").build_frames()
    images["path"] = find_paths(images, tmp_path)
    assert images["image_id"].tolist() == ["a.jpg", "gone.jpg", "d.jpg", "../train.json"]
    assert images["path"].fillna("none").tolist() == ["images/a.jpg", "none", "images/d.jpg", "none"]
