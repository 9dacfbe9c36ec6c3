"""Titles in the table: one a line, whatever breaks they came with."""

import numpy as np
import pandas as pd
import pytest

from productrec.data.titles import join_titles, split_titles


@pytest.mark.parametrize(
    ("titles", "text"),
    [
        (["Oat milk"], "Oat milk"),
        (["a", "b"], "a\nb"),
        (["a\nb", " c\r\nd\u2028e "], "a b\nc d e"),
        (["", " \n", "a"], "a"),
        (["a  b", "a  b"], "a  b\na  b"),
        ([], None),
        ([" "], None),
    ],
)
def test_titles_are_joined_and_split(titles: list[str], text: str | None) -> None:
    assert join_titles(titles) == text
    assert split_titles(text) == ([] if text is None else text.split("\n"))
    assert join_titles(split_titles(text)) == text


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, ""])
def test_what_is_no_text_has_no_titles(missing: object) -> None:
    assert split_titles(missing) == []  # type: ignore[arg-type]
