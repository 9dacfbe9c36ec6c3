"""CSV as people write it, and cells that a spreadsheet would obey."""

import csv
from pathlib import Path

import pytest

from productrec.delimited import (
    find_separator,
    guard_cell,
    read_delimited,
    squash_name,
    unguard_cell,
    write_for_people,
)
from productrec.errors import DataError, SubmissionError

WIDE = "\uff1d\uff0b\uff0d\uff20"  # the same signs in the wide letters of East Asian scripts


@pytest.mark.parametrize(
    ("header", "separator"),
    [("id,label", ","), ("id;label", ";"), ("id\tlabel", "\t"), ("id", ","), ('"a,b";c', ";"), ("a,b;c,d", ",")],
)
def test_the_header_tells_what_parts_the_fields(header: str, separator: str) -> None:
    assert find_separator(header) == separator


def test_columns_rows_and_short_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfid;label\r\n007;x\r\n\r\nNA\r\n")
    table = read_delimited(path)
    assert (table.columns, table.separator) == (["id", "label"], ";")
    assert table.get_column("id") == ["007", "NA"]
    assert table.get_column("label") == ["x", ""]


@pytest.mark.parametrize("data", [b"", b"\xff", b'id\n"' + b"a" * 200_000])
def test_what_cannot_be_read_is_an_error_of_the_kind_that_is_asked_for(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(data)
    for kind in (DataError, SubmissionError):
        with pytest.raises(kind, match=r"x.csv(, line 2)?: (cannot be read as UTF-8 CSV|must have a header)"):
            read_delimited(path, error=kind)
    path.write_text('id,label\na,x\nb,"y\n')
    with pytest.raises(
        DataError, match="x.csv, line [34]: .*unexpected end of data"
    ):  # it would swallow all that follows
        read_delimited(path)
    with pytest.raises(DataError, match="No such file"):
        read_delimited(tmp_path / "absent.csv")


def test_names_of_columns_are_compared_without_case_and_marks() -> None:
    assert len({squash_name(name) for name in ("Image Id", "imageId", "image_id", "IMAGE-ID")}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+x",
        "-x",
        "@x",
        "\tx",
        "\rx",
        "'=x",
        "''=x",
        "'x",
        "x",
        "",
        "=",
        "x=1",
        "-1.jpg",
        "\n=x",
        f"{WIDE[0]}1",
        f"'{WIDE[2]}1",
    ],
)
def test_a_guarded_cell_is_no_formula_and_comes_back_to_the_letter(text: str, tmp_path: Path) -> None:
    guarded = guard_cell(text)
    assert not guarded.startswith(("=", "+", "-", "@", "\t", "\r", "\n", *WIDE))
    assert unguard_cell(guarded) == text
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerow(["id", guarded])
    with (tmp_path / "x.csv").open(newline="") as file:
        assert unguard_cell(next(csv.reader(file))[1]) == text


def test_a_csv_for_people_guards_texts_and_leaves_numbers(tmp_path: Path) -> None:
    ids = ["=cmd|' /C calc'!A0", "'=x", 'plain,\n"quoted"', "-1.jpg"]
    path = tmp_path / "x.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        write_for_people(file, ["id", "@value"], [(image_id, -0.5) for image_id in ids] + [("", None)])
    assert path.read_text().splitlines()[:2] == ["id,'@value", "'=cmd|' /C calc'!A0,-0.5"]
    assert [unguard_cell(cell) for cell in read_delimited(path).get_column("id")] == [*ids, ""]
