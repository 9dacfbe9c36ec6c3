"""CSV as people write it: comma, semicolon or tab, told by the header; and cells that a spreadsheet would obey."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

from productrec.errors import DataError, ProductrecError

SEPARATORS = (",", ";", "\t")
# What a spreadsheet takes for a formula (OWASP, "CSV Injection"), also in the wide letters of East Asian scripts;
# `guard_cell` puts apostrophes before it.
_WIDE = "\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
_BEGINS = rf"[=+\-@\t\r\n{_WIDE}]"
_FORMULA = re.compile(f"'*{_BEGINS}")
_GUARDED = re.compile(f"'+{_BEGINS}")


@dataclass(frozen=True)
class Delimited:
    """A CSV's header, its rows (as many fields as each line has, no blank lines), and what parts the fields."""

    columns: list[str]
    rows: list[list[str]]
    separator: str

    def get_column(self, name: str) -> list[str]:
        """The fields of a column, by row; empty where a row is too short."""
        column = self.columns.index(name)
        return [row[column] if column < len(row) else "" for row in self.rows]


def read_delimited(path: Path, *, error: type[ProductrecError] = DataError) -> Delimited:
    """Read a CSV whose fields stand between commas, semicolons or tabs, whichever part its header most often.

    Args:
        path: UTF-8, with or without a byte order mark.
        error: kind of error that is raised.

    Raises:
        ProductrecError: of kind ``error``; it cannot be read, or has no header.
    """
    line = ""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            separator = find_separator(header)
            reader = csv.reader(file, delimiter=separator, strict=True)
            columns = next(reader, [])
            try:
                rows = [row for row in reader if row]
            except csv.Error:
                line = f", line {reader.line_num}"
                raise
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(
            f"{path}{line}: cannot be read as UTF-8 CSV ({reason}). Download it again, or save it so."
        ) from None
    if not columns:
        raise error(f"{path}: must have a header and at least one row; it is empty. Download it again.")
    return Delimited(columns, rows, separator)


def find_separator(header: str) -> str:
    """Which of `SEPARATORS` parts a header into the most fields; a comma where none does."""
    return max(SEPARATORS, key=lambda separator: len(next(csv.reader([header], delimiter=separator), [])))


def squash_name(column: str) -> str:
    """A column's name as one is compared with another: ``Image Id``, ``imageId`` and ``image_id`` are the same."""
    return "".join(letter for letter in column.casefold() if letter.isalnum())


def write_for_people(
    file: TextIO, columns: Sequence[str], rows: Iterable[Sequence[str | float | None]], *, separator: str = ","
) -> None:
    """Write a CSV that a person may open in a spreadsheet: every text is guarded, numbers stay numbers.

    Who reads it back takes `unguard_cell`. Not for submissions, whose ids must stay what they are.

    Args:
        file: opened with ``newline=""``.
        columns: the header.
        rows: as many cells each; None is an empty one.
        separator: between cells.
    """
    writer = csv.writer(file, lineterminator="\n", delimiter=separator)
    for row in chain([columns], rows):
        writer.writerow([guard_cell(cell) if isinstance(cell, str) else cell for cell in row])


def guard_cell(text: str) -> str:
    """A text for a file that a person opens in a spreadsheet, which must not take it for a formula.

    An apostrophe goes before it; `unguard_cell` gives back the text to the letter.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unguard_cell(text: str) -> str:
    """The text that `guard_cell` was given; a text that never was guarded stays what it is."""
    return text[1:] if _GUARDED.match(text) else text
