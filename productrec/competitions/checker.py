"""Check a CSV to the byte, as a competition's server and a careful person would: every fault, with its line.

`writer` checks what it has written by the same code that checks a CSV made elsewhere. The file is read line by line,
so that only its ids are held.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from productrec.competitions.cell_check import CellChecker
from productrec.competitions.contract import Contract
from productrec.competitions.id_check import IdChecker
from productrec.competitions.match_check import MatchChecker
from productrec.delimited import SEPARATORS, squash_name

_SHOWN = 5  # faults of each kind
_LONGEST_TEXT = 300  # letters of a fault's
_LONGEST_LINE = 1 << 20  # bytes; a longer one is no line of a CSV
_UTF_8_MARK = b"\xef\xbb\xbf"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_INDEX_NAMES = ("", "Unnamed: 0", "index")  # as pandas calls a column that it adds

_BYTES, _HEADER, _ROWS = "bytes", "header", "rows"


@dataclass
class Report:
    """What a check found.

    ``rows``: how many there are below the header; ``counts``: faults by kind; ``shown``: the first few of each kind.
    """

    path: Path
    rows: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    shown: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    def add(self, kind: str, what: str, line: int | None = None) -> None:
        """Note a fault: its kind, what it is, and in which line it is (from 1, the header's)."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        shown = self.shown.setdefault(kind, [])
        if len(shown) < _SHOWN:
            readable = "".join(
                letter if letter.isprintable() else repr(letter)[1:-1] for letter in what[:_LONGEST_TEXT]
            )
            shown.append(readable if line is None else f"line {line}: {readable}")

    def list_faults(self) -> list[str]:
        """A line for each kind of fault, with its count, and below it one for each of the first few."""
        lines = []
        for kind, count in self.counts.items():
            shown = self.shown[kind]
            lines += [f"{kind} ({count:,})", *(f"  {text}" for text in shown)]
            if count > len(shown):
                lines.append(f"  and {count - len(shown):,} more")
        return lines

    def summarise(self) -> str:
        """Every kind of fault with its count and the first few, in one line."""
        return "; ".join(f"{kind}: {count:,} ({', '.join(self.shown[kind])})" for kind, count in self.counts.items())


def check_csv(
    path: Path,
    *,
    contract: Contract,
    ids: Sequence[str] | None,
    labels: Collection[str] | None,
    in_order: bool = True,
) -> Report:
    """Find what is wrong with a CSV: its bytes, its header, its ids, and its labels or matches.

    Args:
        path: the CSV; that there is none, or that it is a folder, is a fault too.
        contract: what the competition wants.
        ids: every image id that must be there, once; None: any ids, each once.
        labels: what a class may be called (the contract's ``unknown_label`` besides); None: the numbers of the
            contract's ``class_count`` classes, or anything where it has none.
        in_order: whether the ids must come in the order of ``ids``.
    """
    report = Report(path)
    try:
        with path.open("rb") as file:
            cells = MatchChecker(contract, ids) if contract.answers == "matches" else CellChecker(contract, labels)
            _check(file, report, contract, IdChecker(ids, in_order=in_order), cells)
    except OSError as error:
        report.add(_BYTES, f"cannot be read: {error.strerror or error}")
    return report


def _check(
    file: BinaryIO, report: Report, contract: Contract, ids: IdChecker, cells: CellChecker | MatchChecker
) -> None:
    lines = _read_lines(file, report)
    first = next(lines, None)
    if first is None:
        return
    layout = _read_header(first[1], report, contract, ids)
    if layout is None:
        return
    for number, text in lines if layout.has_header else chain([first], lines):
        if not text.strip():
            report.add("blank lines", "holds nothing", number)
            continue
        report.rows += 1
        fields = _split(text, layout.separator, report, number)
        if len(fields) > layout.at_id:
            for kind, what in ids.check(fields[layout.at_id], number):
                report.add(kind, what, number)
        if len(fields) != layout.width:
            report.add(_ROWS, f"must have {layout.width} fields; got {len(fields)} in {text[:80]!r}", number)
            continue
        for kind, what in cells.check(fields[layout.at_cell], fields[layout.at_id]):
            report.add(kind, f"{what} ({fields[layout.at_id]})", number)
    for kind, what, line in ids.finish():
        report.add(kind, what, line)
    if not report.rows:
        report.add(_ROWS, "must stand below the header; there are none")


@dataclass(frozen=True)
class _Layout:
    """Where ids and cells stand in each row."""

    separator: str
    width: int
    at_id: int
    at_cell: int
    has_header: bool = True


def _read_header(text: str, report: Report, contract: Contract, ids: IdChecker) -> _Layout | None:
    """The layout that the first line shows; None where it does not show one."""
    wanted = [contract.id_column, contract.prediction_column]
    separator: str = contract.column_separator
    fields = _split(text, separator, report, 1)
    other = max(SEPARATORS, key=text.count)
    if fields != wanted and len(fields) == 1 and other != separator and other in text:
        report.add(_HEADER, f"columns must stand between {separator!r}; got {other!r}", 1)
        separator, fields = other, _split(text, other, report, 1)
    if fields == wanted:
        return _Layout(separator, 2, 0, 1)
    expected = f"must be {contract.column_separator.join(wanted)}; got {text[:200]}"
    if not set(wanted) <= set(fields) and ids.knows(fields[0]):
        report.add(_HEADER, f"{expected}: there is none", 1)
        return _Layout(separator, 2, 0, 1, has_header=False)
    if sorted(fields) == sorted(wanted):
        report.add(_HEADER, f"{expected}: the columns stand in the wrong order", 1)
    elif fields[1:] == wanted and fields[0] in _INDEX_NAMES:
        report.add(
            _HEADER, f"{expected}: the first column is an index, as pandas writes it (index=False leaves it out)", 1
        )
    elif set(wanted) <= set(fields):
        report.add(_HEADER, f"{expected}: it has columns too many", 1)
    else:
        report.add(_HEADER, expected, 1)
        squashed = [squash_name(name) for name in fields]
        if len(fields) == 2:
            return _Layout(separator, 2, 0, 1)
        if not {squash_name(name) for name in wanted} <= set(squashed):
            report.add(_ROWS, "were not looked at, since the header does not tell which columns hold ids and labels")
            return None
        fields, wanted = squashed, [squash_name(name) for name in wanted]
    return _Layout(separator, len(fields), fields.index(wanted[0]), fields.index(wanted[1]))


def _split(text: str, separator: str, report: Report, number: int) -> list[str]:
    """The fields of a line; quotes that are wrong, or that nothing needs, are noted."""
    if '"' not in text:
        return text.split(separator)
    try:
        fields = next(csv.reader([text], delimiter=separator, strict=True))
    except csv.Error:
        report.add("quotes", f"do not close, or stand within a field: {text[:80]!r}", number)
        return text.split(separator)
    again = io.StringIO()
    csv.writer(again, delimiter=separator, lineterminator="\n").writerow(fields)
    if again.getvalue() != f"{text}\n":
        report.add("quotes", f"stand where nothing needs them: {text[:80]!r}", number)
    return fields


def _read_lines(file: BinaryIO, report: Report) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of each line without its end, the first being 1; what is wrong with bytes is noted."""
    start = file.read(4)
    if not start:
        report.add(_BYTES, "the file is empty")
        return
    if start.startswith(_UTF_16_MARKS) or b"\0" in start[:2]:
        report.add(_BYTES, "must be UTF-8; got UTF-16 or UTF-32. Save it as UTF-8")
        return
    marked = start.startswith(_UTF_8_MARK)
    if marked:
        report.add(_BYTES, "must not begin with a byte order mark; got one. Save it as UTF-8 without BOM", 1)
    file.seek(len(_UTF_8_MARK) if marked else 0)
    number = ended_otherwise = first_of_these = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        body = line.removesuffix(b"\n")
        if len(body) == len(line):
            if len(line) == _LONGEST_LINE:
                report.add(
                    _BYTES, f"is longer than {_LONGEST_LINE:,} bytes; this is no CSV of lines that end with \\n", number
                )
                return
            report.add(_BYTES, "must end with \\n, as the last line too; was the file cut off?", number)
        if body.endswith(b"\r"):
            body = body[:-1]
            ended_otherwise += 1
            first_of_these = first_of_these or number
        if b"\r" in body or b"\0" in body:
            report.add(_BYTES, "must hold no \\r and no NUL within a line; got one", number)
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            report.add(_BYTES, f"must be UTF-8; got byte 0x{body[error.start]:02x}", number)
            text = body.decode(errors="replace")
        yield number, text
    if ended_otherwise:
        report.add(
            _BYTES, f"must end with \\n; got \\r\\n here and in {ended_otherwise - 1:,} more lines", first_of_these
        )
