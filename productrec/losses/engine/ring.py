"""Where the rows of a ring buffer go, and how the newest of them are taken out again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RingPlaces:
    """The next place of a ring of ``rows``, how far it is filled, and what the newest rows were written over.

    The buffers are their owner's, handed over with each call, so that they may move between devices. Plain numbers: on
    an accelerator reading them from tensors would wait for the device in every step.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.next = self.filled = 0
        self._counted = (0, 0)
        self._before: tuple[Tensor, list[Tensor]] | None = None

    def begin(self) -> None:
        """A new batch: what `undo` takes back is what is written from now on."""
        self._counted, self._before = (self.next, self.filled), None

    def write(self, written: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Write rows into their places, once a batch, and say which places these are.

        Args:
            written: each buffer (rows, ...) with its new rows (N, ...), N at most ``rows`` and the same for all.
        """
        first = written[0][1]
        count = len(first)
        slots = (torch.arange(count, device=first.device) + self.next) % self.rows
        self._before = (slots, [buffer[slots] for buffer, _ in written])
        for buffer, new in written:
            buffer[slots] = new.to(buffer.dtype)
        self.next = (self.next + count) % self.rows
        self.filled = min(self.rows, self.filled + count)
        return slots

    def undo(self, *buffers: Tensor) -> None:
        """Put back what the newest rows were written over; ``buffers`` in the order in which they were written."""
        self.next, self.filled = self._counted
        if self._before is not None:
            slots, before = self._before
            for buffer, old in zip(buffers, before, strict=True):
                buffer[slots] = old
            self._before = None

    def set(self, following: int, filled: int) -> None:
        """Take up a state: the next place, and how far the ring is filled."""
        self.next, self.filled = following, filled
        self.begin()
