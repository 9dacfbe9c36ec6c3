"""Ids of a CSV against those that must be there: missing, repeated, in another order, or written otherwise.

A half of `checker`. An id that a program has changed is told by what was done to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?\d{1,28}(\.\d{0,9})?([eE][+-]?\d{1,3})?")


def _drop_ending(text: str) -> str:
    return text.rpartition(".")[0] or text


def _drop_folder(text: str) -> str:
    return text.rpartition("/")[2]


def _read_number(text: str) -> str:
    return str(Decimal(text).normalize()) if _NUMBER.fullmatch(text) else text


def _undo_both(text: str) -> str:
    return _read_number(_drop_ending(text))


# What programs do to ids: a way to look at both that undoes it, and what it is called.
_CHANGES: tuple[tuple[Callable[[str], str], str], ...] = (
    (str.strip, "has spaces around it"),
    (_read_number, "was turned into a number"),
    (_drop_ending, "has another ending, or none"),
    (_drop_folder, "has a folder before it"),
    (_undo_both, "was turned into a number and has another ending, or none"),
    (str.casefold, "has other capital letters"),
)


class IdChecker:
    """Takes the ids of a CSV row by row and tells what is wrong with them."""

    def __init__(self, expected: Sequence[str] | None, *, in_order: bool) -> None:
        """``expected``: every id that must be there, once; None: any. ``in_order``: whether order counts."""
        self._expected = None if expected is None else {image_id: row for row, image_id in enumerate(expected)}
        self._in_order = in_order
        self._lines: dict[str, int] = {}  # of the ids that were met, in the order of the file
        self._undone: list[dict[str, str]] = []  # for each change, from what it leaves of an expected id to that id

    def knows(self, image_id: str) -> bool:
        """Whether this is one of the expected ids, changed by a program or not."""
        return self._expected is not None and (image_id in self._expected or self._recognise(image_id) is not None)

    def check(self, image_id: str, line: int) -> Iterator[tuple[str, str]]:
        """Yield kind and words of what is wrong with the id of a line."""
        meant = image_id
        if not image_id.strip():
            yield "empty ids", "must hold an id; got none"
            return
        if self._expected is None:
            if image_id != image_id.strip():
                yield "ids written otherwise", f"{image_id!r} has spaces around it"
        elif image_id not in self._expected:
            found = self._recognise(image_id)
            if found is None:
                yield "extra ids", f"{image_id} is none of the test images"
                return
            meant, change = found
            yield "ids written otherwise", f"must be {meant!r}; got {image_id!r}, which {change}"
        if meant in self._lines:
            yield "repeated ids", f"{image_id} stands in line {self._lines[meant]} already"
        else:
            self._lines[meant] = line

    def finish(self) -> Iterator[tuple[str, str, int | None]]:
        """Yield kind, words and line of what is wrong with the ids in all, after the last row."""
        if self._expected is None:
            return
        for image_id, row in self._expected.items():
            if image_id not in self._lines:
                where = f", row {row + 1} (line {row + 2}) of those that must be there" if self._in_order else ""
                yield "missing ids", f"{image_id}{where}", None
        if self._in_order:
            present = (image_id for image_id in self._expected if image_id in self._lines)
            for (got, line), wanted in zip(self._lines.items(), present, strict=True):
                if got != wanted:
                    yield "ids in another order", f"must be {wanted}; got {got}", line

    def _recognise(self, image_id: str) -> tuple[str, str] | None:
        """The expected id that a program has made this one of, and what it did; None where there is no such."""
        assert self._expected is not None
        if not self._undone:
            self._undone = [_index(self._expected, undo) for undo, _ in _CHANGES]
        for (undo, change), known in zip(_CHANGES, self._undone, strict=True):
            if (meant := known.get(undo(image_id))) is not None:
                return meant, change
        return None


def _index(ids: Iterable[str], undo: Callable[[str], str]) -> dict[str, str]:
    """From what a change leaves of an id to the id, where that is one alone."""
    left = [(undo(image_id), image_id) for image_id in ids]
    times = Counter(key for key, _ in left)
    return {key: image_id for key, image_id in left if times[key] == 1}
