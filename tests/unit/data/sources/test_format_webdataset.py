"""WebDataset: shards become image files and a table; hostile and damaged ones are refused, and nothing is lost."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from productrec.data.sources.files import find_paths
from productrec.data.sources.formats.webdataset import list_shards, unpack_shards
from productrec.data.sources.reading import detect_format, read_source
from productrec.data.table import check_table
from productrec.errors import DataError
from productrec.recipe.data import DataSettings
from productrec.stages.ingest import run_ingest
from productrec.stages.look import explain_source


def picture(colour: str = "red", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, kind)
    return buffer.getvalue()


def write_shard(path: Path, entries: list[tuple[str, bytes | str]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:
        for name, data in entries:
            content = data.encode(errors="surrogatepass") if isinstance(data, str) else data
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def read(source: Path, folder: Path) -> tuple[pd.DataFrame, dict[int, str]]:
    """The image table's rows with the paths that were found, by id; class names."""
    unpacked = unpack_shards(source, folder)
    rows = read_source(unpacked.folder, "webdataset")
    images, classes = rows.build_frames()
    check_table(images, classes, "here")
    images["path"] = find_paths(images, unpacked.folder)
    return images.set_index("image_id"), rows.class_names


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    source = tmp_path / "set"
    write_shard(
        source / "train-000000.tar",
        [
            ("000001.png", picture("red")),
            ("000001.cls", "mug\n"),
            ("000001.txt", "A red mug"),
            ("./000002.JPG", picture("blue", "JPEG")),
            ("./000002.json", json.dumps({"class_name": "bowl", "caption": "Blauer Napf ü", "width": 8})),
            ("shelf/a.webp", picture("green", "WEBP")),
            ("shelf/a.json", json.dumps({"label": "mug"})),
            ("shelf/a.seg.png", picture("white")),
            ("README", "no sample"),
        ],
    )
    write_shard(source / "train-000001.tar.gz", [("000003.png", picture()), ("000003.cls", "bowl")], "w:gz")
    write_shard(source / "validation-000000.tar", [("v1.png", picture()), ("v1.cls", "mug")])
    write_shard(source / "test-000000.tar", [("t1.png", picture()), ("t1.cls", "bowl"), ("t2.cls", "x")])
    return source


def test_samples_become_rows(shards: Path, tmp_path: Path) -> None:
    assert detect_format(shards) == "webdataset"
    images, names = read(shards, tmp_path / "out")
    assert list(images.index) == ["t1", "t2", "000001", "000002", "shelf/a", "000003", "v1"]
    assert names == {0: "bowl", 1: "mug"}
    assert images.loc[["000001", "000002", "shelf/a", "000003", "v1"], "label"].tolist() == [1, 0, 1, 0, 1]
    assert images["split"].to_dict() | {"000001": "train", "v1": "val", "t1": "test"} == images["split"].to_dict()
    assert images.loc[["t1", "t2"], "label"].isna().all()
    assert images.loc["000001", "title"] == "A red mug"
    assert images.loc["000002", "title"] == "Blauer Napf ü"
    assert pd.isna(images.loc["t2", "path"])
    files = tmp_path / "out" / "files"
    kept = sorted(path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file())
    assert kept == sorted([*images["path"].dropna(), "images.parquet"])
    assert (tmp_path / "out/files" / images.loc["shelf/a", "path"]).read_bytes() == picture("green", "WEBP")


def test_whole_numbers_are_class_ids_and_shards_without_a_split_are_train(tmp_path: Path) -> None:
    entries = [("a.png", picture()), ("a.cls", "12"), ("b.png", picture()), ("b.json", '{"label": 7, "title": " "}')]
    write_shard(tmp_path / "set" / "valves-000.tar", entries)
    images, names = read(tmp_path / "set", tmp_path / "out")
    assert images["label"].to_dict() == {"a": 12, "b": 7}
    assert set(images["split"]) == {"train"}
    assert names == {7: "7", 12: "12"}
    assert pd.isna(images.loc["b", "title"])


def test_unchanged_shards_are_not_unpacked_again(shards: Path, tmp_path: Path) -> None:
    image = unpack_shards(shards, tmp_path / "out").folder / "images/train-000000.tar/000001.png"
    before = image.stat().st_mtime_ns
    unpack_shards(shards, tmp_path / "out")
    assert image.stat().st_mtime_ns == before
    write_shard(shards / "train-000000.tar", [("new.png", picture()), ("new.cls", "mug")])
    unpack_shards(shards, tmp_path / "out")
    assert not image.exists()
    assert (image.parent / "new.png").is_file()


def test_nothing_leaves_the_folder(tmp_path: Path) -> None:
    source = tmp_path / "set"
    source.mkdir()
    with tarfile.open(source / "train-0.tar", "w") as file:
        for name, kind in (
            ("../outside.png", tarfile.REGTYPE),
            ("/tmp/absolute.png", tarfile.REGTYPE),
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("device.png", tarfile.CHRTYPE),
            ("a.png", tarfile.REGTYPE),
            ("a.png", tarfile.REGTYPE),
            ("a.png/b.png", tarfile.REGTYPE),
            ("link.cls", tarfile.REGTYPE),
            ("a.cls", tarfile.REGTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            data = b"mug" if name.endswith(".cls") else picture()
            entry.size = len(data) if kind == tarfile.REGTYPE else 0
            file.addfile(entry, io.BytesIO(data))
    unpacked = unpack_shards(source, tmp_path / "out")
    assert sorted(unpacked.skipped) == sorted(
        f"train-0.tar/{name}"
        for name in (
            "../outside.png",
            "/tmp/absolute.png",
            "link.png",
            "hard.png",
            "device.png",
            "a.png",
            "a.png/b.png",
        )
    )
    assert [path.name for path in tmp_path.rglob("*.png")] == ["a.png"]
    images, _ = read(source, tmp_path / "out")
    # The link's sample is there, without a picture.
    assert images["path"].notna().to_dict() == {"a": True, "link": False}


def test_a_sample_without_an_image_never_gets_anothers(tmp_path: Path) -> None:
    source = tmp_path / "set"
    key = "images/train-0.tar/a"
    write_shard(source / "train-0.tar", [("a.png", picture()), ("a.cls", "mug"), (f"{key}.cls", "mug")])
    write_shard(source / "images.tar", [("train-0.tar/a.cls", "mug"), ("train-0.tar/a/b.png", picture())])
    write_shard(source / "train-1.tar", [("train-0.tar/b.cls", "mug"), ("c.without.image.png", picture())])
    folder = unpack_shards(source, tmp_path / "out").folder
    images, _ = read_source(folder, "webdataset").build_frames()
    found = dict(zip(images["image_id"], find_paths(images, folder), strict=True))
    with_image = {image_id: path for image_id, path in found.items() if isinstance(path, str)}
    assert set(found) == {"a", key, "train-0.tar/a", "train-0.tar/a/b", "train-0.tar/b", "c"}
    assert with_image == {
        "a": "images/train-0.tar/a.png",
        "train-0.tar/a/b": "images/images.tar/train-0.tar/a/b.png",
    }


def test_a_key_in_two_shards_is_refused(tmp_path: Path) -> None:
    for number in range(2):
        write_shard(tmp_path / "set" / f"train-{number}.tar", [("007.png", picture()), ("007.cls", "mug")])
    with pytest.raises(DataError, match=r"image ids must be unique over all splits; 1 \(007\)"):
        read(tmp_path / "set", tmp_path / "out")


def test_a_training_sample_without_a_label_is_refused(tmp_path: Path) -> None:
    entries = [("a.png", picture()), ("a.cls", "mug"), ("b.png", picture()), ("b.cls", "\n")]
    write_shard(tmp_path / "set" / "train-0.tar", entries)
    with pytest.raises(DataError, match=r"every training image must have a label or a title; 1 \(b\) have neither"):
        read(tmp_path / "set", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", "{", "sample a: its json cannot be read"),
        ("a.json", "[" * 100_000, "sample a: its json cannot be read"),
        ("a.json", "[1]", r"its json must be an object; got \[1\]"),
        ("a.json", '{"label": [1, 2]}', r"a label must be a class name or a whole number; got \[1, 2\]"),
        ("a.json", '{"label": true}', "a label must be a class name or a whole number; got True"),
        ("a.json", '{"label": 1.5}', "a label must be a class name or a whole number; got 1.5"),
        ("a.json", '{"title": "\\ud800"}', "must be valid Unicode"),
        ("a.cls", b"\xff\xfe\xfa", "a.cls must be text in UTF-8"),
        ("a.txt", b" " * (17 << 20), "a label or title must have at most 16777216 bytes; a.txt has more"),
        ("\udcff.cls", "mug", "must be valid Unicode"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, data: str | bytes, message: str) -> None:
    write_shard(tmp_path / "set" / "train-0.tar", [("a.png", picture()), (name, data)])
    with pytest.raises(DataError, match=message):
        unpack_shards(tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_truncated_shard_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "whole.tar", [(f"{i}.{ending}", b"3" * 600) for i in range(2) for ending in "ab"])
    data = whole.read_bytes()
    entry = 512 + 1024
    (tmp_path / "set").mkdir()
    shard = tmp_path / "set" / "train-0.tar"
    # Within a picture, within its padding, at an entry's end, within a header; and a header spoilt.
    cuts = [data[:length] for length in (0, 100, entry - 700, entry - 100, 2 * entry, 2 * entry + 100, 4 * entry)]
    for damaged in [*cuts, data[: 2 * entry] + b"\xff" * 512 + data[2 * entry + 512 :]]:
        shard.write_bytes(damaged)
        with pytest.raises(DataError, match=r"train-0.tar: cannot be unpacked"):
            unpack_shards(tmp_path / "set", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    shard.write_bytes(data)
    unpack_shards(tmp_path / "set", tmp_path / "out")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "set" / "train-0.tar.xz", [("a.png", bytes(80 << 20))], "w:xz")
    with pytest.raises(DataError, match="a bomb"):
        unpack_shards(tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_shards_or_samples_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=r"must hold tar shards \(train-000000.tar\); got none"):
        unpack_shards(tmp_path / "set", tmp_path / "out")
    write_shard(tmp_path / "set" / "all.tar", [("README", "nothing")])
    write_shard(tmp_path / "set" / "._all.tar", [("a.png", picture())])
    assert [path.name for path in list_shards(tmp_path / "set")] == ["all.tar"]
    with pytest.raises(DataError, match=r"must hold samples .* got none in 1.*name the archive itself"):
        unpack_shards(tmp_path / "set", tmp_path / "out")


def test_shards_are_ingested(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data" / "set"
    data = DataSettings(validation_fraction=0.0)
    explain_source(shards, out, data=data)
    told = capsys.readouterr()
    assert "format webdataset" in told.out + told.err
    assert not (tmp_path / "data").exists() and not list(tmp_path.glob(".productrec*"))  # nothing is left of the look
    ingested = run_ingest(shards, out, data=data)
    assert ingested.by_split == {"train": 4, "val": 1, "test": 2}
    assert ingested.by_status == {"ok": 6, "missing": 1}
    assert ingested.classes == 2
    assert (tmp_path / "data/set.unpacked/files/images/train-000000.tar/000001.png").is_file()
    assert run_ingest(shards, out, data=data).skipped


def test_an_archive_of_shards_is_ingested(shards: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", shards))
    out = tmp_path / "data" / "set"
    data = DataSettings(validation_fraction=0.0)
    assert run_ingest(archive, out, data=data).by_status == {"ok": 6, "missing": 1}
    assert run_ingest(archive, out, data=data).skipped
