"""The cell of a row that lists an image's matches: its own id, ids of test images, each once, not too many.

A half of `checker`, for contracts whose answers are matches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from productrec.competitions.contract import Contract


class MatchChecker:
    """Tells what is wrong with the matches of a row."""

    def __init__(self, contract: Contract, ids: Sequence[str] | None) -> None:
        """``ids``: of all test images; None: a list may hold any."""
        self._most = contract.most_matches
        self._separator = contract.label_separator
        self._known = None if ids is None else frozenset(ids)

    def check(self, cell: str, image_id: str) -> Iterator[tuple[str, str]]:
        """Yield kind and words of what is wrong with the cell of an image."""
        if not cell.strip():
            yield "empty lists", "must hold the image's own id at least; got none"
            return
        listed = cell.split(self._separator)
        if image_id not in listed:
            yield "own ids", f"must hold the image's own id; got {cell!r}"
        if len(listed) > self._most:
            yield "numbers of ids", f"must hold at most {self._most} ids; got {len(listed)}"
        if len(set(listed)) < len(listed):
            yield "repeated ids in a list", f"must hold ids that differ; got {cell!r}"
        for other in listed:
            if not other.strip():
                yield "spaces", f"must hold no {self._separator!r} beside another or at an end; got {cell!r}"
            elif self._known is not None and other not in self._known and other != image_id:
                yield "unknown ids", f"must hold ids of test images; got {other!r}"
