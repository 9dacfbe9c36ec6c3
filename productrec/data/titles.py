"""Titles in the image table: an image's, one a line of its text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np


def join_titles(titles: Iterable[str]) -> str | None:
    """Several titles of one image as the table keeps them: one a line; None where all are blank.

    Line breaks of any kind within a title become spaces; blank lines and spaces at both ends are left out.
    """
    lines = (" ".join(filter(None, map(str.strip, title.splitlines()))) for title in titles)
    return "\n".join(filter(None, lines)) or None


def normalise_title(title: str) -> str:
    """A title as it is compared: in Unicode's normal form NFC, spaces in a row as one; case and accents stay."""
    return " ".join(unicodedata.normalize("NFC", title).split())


def split_titles(text: str | None) -> list[str]:
    """The titles of an image, from what `join_titles` gave; none of None, nor of what else is no text (NaN, NA)."""
    return text.split("\n") if isinstance(text, str) and text else []


def number_groups(titles: list[list[str]], labels: np.ndarray | None) -> np.ndarray:
    """A number (N,) for each image: equal where a chain of equal titles, or of equal labels, joins two images.

    Args:
        titles: of each of N images.
        labels: (N,) class positions, below 0 for none; None where classes do not count.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    numbers: dict[tuple[str, object], int] = {}
    rows, columns = [], []
    for row, own in enumerate(titles):
        marks: list[tuple[str, object]] = [("title", title) for title in own]
        if labels is not None and labels[row] >= 0:
            marks.append(("label", int(labels[row])))
        for mark in marks or [("alone", row)]:
            rows.append(row)
            columns.append(numbers.setdefault(mark, len(numbers)) + len(titles))
    size = len(titles) + len(numbers)
    links = coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(size, size))
    groups: np.ndarray = connected_components(links, directed=False)[1][: len(titles)].astype(np.int64)
    return groups
