"""The label cell of a row against the contract: how many labels, which, how they are parted, how sure they are.

A half of `checker`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from productrec.competitions.contract import Contract

_MISSING = frozenset({"nan", "NaN", "NAN", "None", "<NA>", "null", "NULL"})  # as programs write a missing value
_WHOLE_WITH_DECIMALS = re.compile(r"(\d+)\.0*")
_CONFIDENCE = re.compile(r"0(\.\d+)?|1(\.0+)?")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}


class CellChecker:
    """Tells what is wrong with the labels of a row."""

    def __init__(self, contract: Contract, labels: Collection[str] | None) -> None:
        """``labels``: what a class may be called; None: what the contract's ``class_count`` tells, or anything."""
        self._count = contract.labels_per_image
        self._separator = contract.label_separator
        self._has_confidence = contract.confidence
        self._allows_empty = contract.allows_empty
        if labels is None and contract.class_count is not None:
            labels = [str(number) for number in range(contract.class_count)]
        own = set() if contract.unknown_label is None else {contract.unknown_label}
        self._known = None if labels is None else own.union(labels)

    def check(self, cell: str, image_id: str) -> Iterator[tuple[str, str]]:
        """Yield kind and words of what is wrong with the cell of an image."""
        if cell == "" and self._allows_empty:
            return
        if self._known is None or not self._is_right(cell):
            yield from self._explain(cell)

    def _is_right(self, cell: str) -> bool:
        """Whether a cell is right without doubt: the quick way, for files of which most rows are."""
        assert self._known is not None
        if self._has_confidence:
            label, _, confidence = cell.rpartition(self._separator)
            return label in self._known and _CONFIDENCE.fullmatch(confidence) is not None
        labels = cell.split(self._separator) if self._count > 1 else [cell]
        return len(labels) == self._count == len(set(labels)) and self._known.issuperset(labels)

    def _explain(self, cell: str) -> Iterator[tuple[str, str]]:
        text = cell.strip()
        if not text:
            yield "empty labels", "must hold a label; got none"
            return
        if self._is_missing(text):
            yield "empty labels", f"must hold a label; got {text}"
            return
        if text != cell:
            yield "spaces", f"must hold no spaces around its labels; got {cell!r}"
        if self._has_confidence:
            label, _, confidence = text.rpartition(self._separator)
            if not _CONFIDENCE.fullmatch(confidence) or not label:
                wanted = f"must hold a label, {self._separator!r} and a number from 0 to 1 without exponent"
                yield "confidences", f"{wanted}; got {text!r}"
                label = label or text
            labels = [label.removesuffix(self._separator)]
            if self._separator in label:
                yield "numbers of labels", f"must hold one label and its confidence; got {text!r}"
                return
        elif self._count == 1:
            labels = [text]
        else:
            labels = text.split(self._separator)
        is_list = self._count > 1 or self._is_known(text[1:-1])
        if is_list and _BRACKETS.get(text[0]) == text[-1] and not self._is_known(text):
            yield "brackets", f"must hold labels without brackets; got {text!r}"
            return
        if len(labels) != self._count:
            between = repr(self._separator)
            yield "numbers of labels", f"must hold {self._count} labels, with {between} between; got {text!r}"
        if len(set(labels)) < len(labels):
            yield "repeated labels", f"must hold labels that differ; got {text!r}"
        for label in labels:
            yield from self._explain_label(label)

    def _explain_label(self, label: str) -> Iterator[tuple[str, str]]:
        if self._is_known(label):
            return
        decimals = _WHOLE_WITH_DECIMALS.fullmatch(label)
        if not label.strip():
            yield "empty labels", "must hold no separator beside another; got an empty label between two"
        elif self._is_missing(label):
            yield "empty labels", f"must hold labels; got {label}"
        elif decimals and (self._known is None or decimals[1] in self._known):
            yield "labels with decimals", f"must hold {decimals[1]}; got {label}"
        elif self._known is not None:
            yield "unknown labels", f"must hold labels of classes; got {label!r}"
        elif label != label.strip():
            yield "spaces", f"must hold no spaces around its labels; got {label!r}"

    def _is_known(self, label: str) -> bool:
        return self._known is not None and label in self._known

    def _is_missing(self, text: str) -> bool:
        return text in _MISSING and not self._is_known(text)
