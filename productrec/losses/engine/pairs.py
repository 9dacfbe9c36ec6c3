"""Which references are the positives of which anchor, and how a block of similarities is taken apart by that.

Two ways that give the same: masks over all pairs for small batches, where every operation costs its start, and tables
of positions for large ones, where a comparison or a choice over all pairs costs as much as their products.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from productrec.losses.engine.comparison import Comparison

# Pairs up to which masks are faster.
_MASKED_PAIRS = 1 << 14
# Entries of the tables of positions, made for many blocks together where classes are small.
_TABLE_ENTRIES = 1 << 18


class Pairs(Protocol):
    """The pairs of a batch, block by block.

    A block of b anchors is a flat scratch of b M similarities and one entry more, for what has no place.
    """

    def take(self, start: int, stop: int, scratch: Tensor) -> Tensor:
        """The positives of anchors from start to stop, (b, P), +inf where there are fewer.

        Over positives and over the anchors themselves -inf is written, so that the scratch keeps the negatives.
        """
        ...

    def put(self, start: int, stop: int, scratch: Tensor, positives: Tensor) -> None:
        """Write positives (b, P) into their places of the scratch, which holds 0 there; absent ones are 0 too."""
        ...

    def look_up(self, start: int, stop: int, values: Tensor) -> Tensor:
        """The values (M,) of the references that are the positives, (b, P); anything where there is none."""
        ...


def find_pairs(comparison: Comparison, block_rows: int, *, few_columns: bool) -> Pairs:
    """The pairs of anchors and references.

    Args:
        comparison: N anchors and M references.
        block_rows: anchors in each block but the last.
        few_columns: make the table of positives as narrow as it can be.
    """
    labels, reference_labels, own_rows = comparison.labels, comparison.reference_labels, comparison.own_rows
    compared = len(comparison.compared_labels)
    if block_rows >= len(labels) and len(labels) * compared <= _MASKED_PAIRS and not few_columns:
        return _MaskedPairs(labels, reference_labels, own_rows)
    labels = labels.long()
    if reference_labels is None:
        return _TabledPairs(labels, labels, torch.arange(len(labels), device=labels.device), block_rows)
    return _TabledPairs(labels, reference_labels.long(), own_rows, block_rows)


class _MaskedPairs:
    def __init__(self, labels: Tensor, reference_labels: Tensor | None, own_rows: Tensor | None) -> None:
        others = labels if reference_labels is None else reference_labels
        self._not_negative = labels[:, None] == others
        self._not_positive = ~self._not_negative
        if reference_labels is None:
            self._not_positive.fill_diagonal_(True)
        elif own_rows is not None:
            own = own_rows[:, None] == torch.arange(len(others), device=labels.device)
            self._not_positive |= own
            self._not_negative |= own

    def take(self, start: int, stop: int, scratch: Tensor) -> Tensor:
        similarities = scratch[:-1].view(self._not_positive.shape)
        positives = similarities.masked_fill(self._not_positive, torch.inf)
        similarities.masked_fill_(self._not_negative, -torch.inf)
        return positives

    def put(self, start: int, stop: int, scratch: Tensor, positives: Tensor) -> None:
        scratch[:-1].view(positives.shape).add_(positives)

    def look_up(self, start: int, stop: int, values: Tensor) -> Tensor:
        return values.expand(stop - start, -1)


class _TabledPairs:
    def __init__(self, labels: Tensor, reference_labels: Tensor, own_rows: Tensor | None, block_rows: int) -> None:
        self._own, self._compared, self._block_rows = own_rows, len(reference_labels), block_rows
        ordered, self._order = torch.sort(reference_labels, stable=True)
        self._first = torch.searchsorted(ordered, labels)
        self._count = torch.searchsorted(ordered, labels, right=True).sub_(self._first)
        self._passed: Tensor | None = None
        if own_rows is not None:
            positions = torch.empty_like(self._order)
            positions[self._order] = torch.arange(len(positions), device=positions.device)
            passed = positions[own_rows] - self._first
            # Not there (-1 wraps around to any row), or there under another label: no positive stands behind it.
            inside = (own_rows >= 0) & (passed >= 0) & (passed < self._count)
            self._passed = passed.masked_fill_(~inside, torch.iinfo(torch.int64).max)
            self._count -= inside.long()
        # At least one column, so that no loss needs to think of a table without.
        self._width = max(1, int(self._count.max()))
        self._tabled = (0, 0)
        self._positives, self._owns = self._order, own_rows

    def take(self, start: int, stop: int, scratch: Tensor) -> Tensor:
        positives, owns = self._find_positions(start, stop)
        scratch[-1] = torch.inf
        taken = scratch[positives]
        scratch.index_fill_(0, positives.view(-1), -torch.inf)
        if owns is not None:
            scratch.index_fill_(0, owns, -torch.inf)
        return taken

    def put(self, start: int, stop: int, scratch: Tensor, positives: Tensor) -> None:
        scratch[self._find_positions(start, stop)[0]] = positives

    def look_up(self, start: int, stop: int, values: Tensor) -> Tensor:
        return values[self._find_positions(start, stop)[0] % self._compared]

    def _find_positions(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Positions of the positives (b, P) and of the anchors (b,) in the scratch; its last entry for none."""
        if not self._tabled[0] <= start < self._tabled[1]:
            rows = max(1, _TABLE_ENTRIES // (self._width * self._block_rows)) * self._block_rows
            self._tabled = (start, min(start + rows, len(self._first)))
            self._make_tables(*self._tabled)
        within = slice(start - self._tabled[0], stop - self._tabled[0])
        return self._positives[within], None if self._owns is None else self._owns[within]

    def _make_tables(self, start: int, stop: int) -> None:
        nowhere = self._block_rows * self._compared
        device = self._order.device
        row_starts = (torch.arange(stop - start, device=device) % self._block_rows).mul_(self._compared)
        steps = torch.arange(self._width, device=device)
        positions = self._first[start:stop, None] + steps
        if self._passed is not None:  # behind the anchor's own place the positives move up by one
            positions += steps >= self._passed[start:stop, None]
        self._positives = self._order[positions.clamp_(max=self._compared - 1)].add_(row_starts[:, None])
        self._positives.masked_fill_(steps >= self._count[start:stop, None], nowhere)
        if self._own is not None:
            own = self._own[start:stop]
            self._owns = torch.where(own < 0, nowhere, own + row_starts)
