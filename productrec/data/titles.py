"""Titles in the image table: an image's, one a line of its text."""

from __future__ import annotations

from collections.abc import Iterable


def join_titles(titles: Iterable[str]) -> str | None:
    """Several titles of one image as the table keeps them: one a line; None where all are blank.

    Line breaks of any kind within a title become spaces; blank lines and spaces at both ends are left out.
    """
    lines = (" ".join(filter(None, map(str.strip, title.splitlines()))) for title in titles)
    return "\n".join(filter(None, lines)) or None


def split_titles(text: str | None) -> list[str]:
    """The titles of an image, from what `join_titles` gave; none of None, nor of what else is no text (NaN, NA)."""
    return text.split("\n") if isinstance(text, str) and text else []
