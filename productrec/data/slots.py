"""Slots: shared memory that loader processes write their batches into, over and over.

A tensor that a loader process sends is written into fresh shared memory, whose pages the system must find, clear and
map for every batch; that takes longer than filling them. Slots are mapped once, and only their numbers travel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Slotted(NamedTuple):
    """Squares that lie in a slot: its place (worker, number), and their shape (B, S, S, 3)."""

    worker: int
    number: int
    shape: tuple[int, ...]


class Slots:
    """``count`` slots of ``slot_bytes`` for each of some loader processes.

    A process takes its slots in turn, so there must be one more than it works ahead: the one that is read meanwhile.
    """

    def __init__(self, workers: int, count: int, slot_bytes: int) -> None:
        memory = torch.empty((workers, count, slot_bytes), dtype=torch.uint8)
        self._memory: Tensor = memory.share_memory_()  # type: ignore[no-untyped-call]
        self._taken = 0

    def open(self, worker: int, shape: tuple[int, ...]) -> tuple[Slotted, np.ndarray]:
        """The next slot of this loader process, and the uint8 array (B, S, S, 3) in it to fill."""
        slot = Slotted(worker, self._taken % self._memory.shape[1], shape)
        self._taken += 1
        return slot, self._view(slot).numpy()

    def take(self, slot: Slotted, into: Tensor) -> None:
        """Copy what lies in a slot, which is free from then on."""
        # By NumPy: torch would wake threads for it, which the loader processes need more.
        np.copyto(into.numpy(), self._view(slot).numpy())

    def _view(self, slot: Slotted) -> Tensor:
        size = int(np.prod(slot.shape))
        return self._memory[slot.worker, slot.number, :size].view(slot.shape)
