"""CSV sources: ids to the letter, columns found or named, labels numbered."""

from pathlib import Path
from typing import Any

import pytest

from productrec.data.sources.format import ReadOptions
from productrec.data.sources.reading import read_source
from productrec.data.sources.rows import SourceRows
from productrec.errors import DataError


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


def read(folder: Path, **options: Any) -> SourceRows:
    return read_source(folder, "csv", ReadOptions(**options))


def refuse(folder: Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, **options)
    return str(caught.value)


def test_ids_stay_the_strings_they_are(tmp_path: Path) -> None:
    ids = ["000123", "NA", "nan", "1.0", "1e5", "True", "2019-01-01", " x ", "é"]
    rows = read(write(tmp_path, train="id,label\n" + "".join(f"{name},1\n" for name in ids)))
    assert rows.image_id == ids
    images, _ = rows.build_frames()
    assert images["image_id"].tolist() == ids
    assert not images["image_id"].isna().any()


def test_splits_titles_and_whole_numbers_as_class_ids(tmp_path: Path) -> None:
    rows = read(
        write(
            tmp_path,
            train='id,title,label\na,"Tin, red",7\nb,Jar,3\n',
            val="id,label\nc,7\n",
            test="id,label\nd,7\n",
        )
    )
    assert rows.image_id == ["a", "b", "c", "d"]
    assert rows.split == ["train", "train", "val", "test"]
    assert rows.label == [7, 3, 7, None]
    assert rows.title == ["Tin, red", "Jar", None, None]
    assert rows.class_names == {3: "3", 7: "7"}


def test_names_are_numbered_in_sorted_order(tmp_path: Path) -> None:
    rows = read(write(tmp_path, train="id,label\na,tin\nb,jar\nc,tin\n", val="id,label\nd,box\n"))
    assert rows.label == [2, 1, 2, 0]
    assert rows.class_names == {0: "box", 1: "jar", 2: "tin"}


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        (["-1", "0", "5"], [-1, 0, 5]),
        (["4294967296", "9223372036854775807"], [4294967296, 9223372036854775807]),
        (["007", "7"], [0, 1]),  # as numbers they would be one class
        (["1", "x"], [0, 1]),
        (["1", "²"], [0, 1]),
        (["1", "9223372036854775808"], [0, 1]),  # more than 64 bits
        (["-0", "0"], [0, 1]),
        (["1", "1.0"], [0, 1]),
    ],
)
def test_labels_are_numbers_only_where_all_are_plain_ones(tmp_path: Path, given: list[str], numbers: list[int]) -> None:
    text = "".join(f"image{number},{label}\n" for number, label in enumerate(given))
    rows = read(write(tmp_path, train="id,label\n" + text))
    assert rows.label == numbers
    assert [rows.class_names[number] for number in numbers] == given
    rows.build_frames()


def test_columns_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, train="posting,image,label_group,kind\np1,a.jpg,5,x\n", test="posting,image\np2,b.jpg\n")
    usual = read(tmp_path)
    assert (usual.image_id, usual.label) == (["a.jpg", "b.jpg"], [5, None])
    named = read(tmp_path, id_column="posting", label_column="kind")
    assert (named.image_id, named.label, named.class_names) == (["p1", "p2"], [0, None], {0: "x"})


def test_a_missing_column_names_the_option(tmp_path: Path) -> None:
    write(tmp_path, train="photo,brand\na.jpg,x\n")
    both = refuse(tmp_path)  # all that lack at once
    assert "a column of image ids, usually image_id, id, posting_id, image (--id-column) and a column of labels" in both
    assert "(--label-column); got photo, brand" in both
    only = refuse(tmp_path, id_column="photo")
    assert "--label-column" in only and "--id-column" not in only
    assert "must have the column 'foto' (--id-column) and a column of labels" in refuse(tmp_path, id_column="foto")
    assert "the column 'file' (--file-column)" in refuse(
        tmp_path, id_column="photo", label_column="brand", file_column="file"
    )
    assert read(tmp_path, id_column="photo", label_column="brand").image_id == ["a.jpg"]


def test_test_ids_come_from_the_sample_submission_where_there_is_no_test_file(tmp_path: Path) -> None:
    write(tmp_path, train="id,label\na,1\n", sample_submission="id,predicted\n007,1 2 3\nNA,1 2 3\n")
    rows = read(tmp_path, sample=tmp_path / "sample_submission.csv")
    assert rows.image_id == ["a", "007", "NA"]
    assert rows.split == ["train", "test", "test"]
    assert rows.label[1:] == [None, None]
    assert read(tmp_path).image_id == ["a"]
    write(tmp_path, test="id\nt\n")
    assert read(tmp_path, sample=tmp_path / "sample_submission.csv").image_id == ["a", "t"]


def test_a_byte_order_mark_quotes_and_windows_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b'\xef\xbb\xbfid,label\r\n"a""b\nc",1\r\n')
    assert read(tmp_path).image_id == ['a"b\nc']


def test_a_row_without_label_is_refused(tmp_path: Path) -> None:
    write(tmp_path, train="id,label\na,1\nb,\nc\n")
    assert "every row of train.csv and val.csv must have a label or a title; 2 (b, c) have neither" in refuse(tmp_path)


def test_a_title_is_one_line_and_may_stand_without_a_label(tmp_path: Path) -> None:
    rows = read(write(tmp_path, train='id,title,label\na,"Oat\r\nmilk  1 l ",7\nb,Jar,\nc," ",7\n'))
    assert rows.title == ["Oat milk  1 l", "Jar", None]
    assert rows.label == [7, None, 7]
    write(tmp_path, train='id,title,label\na,Oat,7\nb," \n",\n')
    assert "1 (b) have neither" in refuse(tmp_path)


def test_extra_fields_do_no_harm(tmp_path: Path) -> None:
    assert read(write(tmp_path, train="id,label\na,1,more,fields\n")).label == [1]


@pytest.mark.parametrize("data", [b"", b"id,label\n", b"id,label\n\xff,1\n", b'id,label\n"' + b"a" * 200_000])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "train.csv").write_bytes(data)
    message = refuse(tmp_path)
    assert "train.csv" in message
    assert "must have a header and at least one row" in message or "cannot be read as UTF-8 CSV" in message


def test_a_source_without_train_csv_is_refused(tmp_path: Path) -> None:
    assert "train.csv: must exist in a CSV source" in refuse(write(tmp_path, val="id,label\na,1\n"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.csv", "Id,Label\na,x\nb,y\n"),
        ("train.csv", "id;label\na;x\nb;y\n"),
        ("train.tsv", "ImageId\tClass Name\na\tx\nb\ty\n"),
        ("Train_Labels.csv", "IMAGE_ID,product_id\na,x\nb,y\n"),
    ],
)
def test_headers_in_any_case_and_other_separators(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    rows = read(tmp_path)
    assert (rows.image_id, rows.class_names) == (["a", "b"], {0: "x", 1: "y"})
    assert rows.notes and rows.notes[0].startswith(f"{name}: ids from ")


def test_a_column_of_files_beside_that_of_the_ids(tmp_path: Path) -> None:
    write(
        tmp_path,
        train="posting_id,image,title,label_group\ntrain_1,h1.jpg,red tin,5\n",
        test="posting_id,image,title\ntest_1,t1.jpg,jar\n",
        sample_submission="posting_id,matches\ntest_1,test_1\n",
    )
    rows = read(tmp_path, sample=tmp_path / "sample_submission.csv")
    assert (rows.image_id, rows.path) == (["train_1", "test_1"], ["h1.jpg", "t1.jpg"])
    assert rows.title == ["red tin", "jar"]


def test_the_sample_submission_says_which_column_is_that_of_the_ids(tmp_path: Path) -> None:
    write(tmp_path, train="image,code,label\na.jpg,17,x\n", sample_submission="Code,label\n18,x\n")
    rows = read(tmp_path, sample=tmp_path / "sample_submission.csv")
    assert (rows.image_id, rows.path) == (["17", "18"], ["a.jpg", None])
    assert rows.split == ["train", "test"]
