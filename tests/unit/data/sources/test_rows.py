"""Rows of a source: their frames, and texts as class ids."""

import pandas as pd
import pytest

from productrec.data.sources.rows import SourceRows, parse_whole_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-12", -12),
        ("007", 7),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("-9223372036854775808", -(2**63)),
        ("", None),
        ("-", None),
        ("--1", None),
        ("+1", None),
        ("1.0", None),
        (" 1", None),
        ("1\n", None),
        ("²", None),
        ("٣", None),
        ("9" * 5000, None),
    ],
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert parse_whole_number(text) == number


def test_frames_have_every_column_and_its_type() -> None:
    rows = SourceRows()
    rows.add("a", "train", 2**62 + 1, title="T")
    rows.add("b", "test", None, url="u")
    rows.class_descriptions[5] = "unused class"
    rows.class_names[1] = "one"
    images, classes = rows.build_frames()
    assert images["label"].tolist() == [2**62 + 1, pd.NA]  # a float would have lost the last bit
    assert str(images["label"].dtype) == "Int64"
    assert images["status"].isna().all()
    assert classes["id"].tolist() == [1, 2**62 + 1]
    assert classes["name"].tolist() == ["one", str(2**62 + 1)]
