"""Titles of training images: their tokens, which belong together, and one for each image of a batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class TitleBatch(NamedTuple):
    """One title of each image of a batch.

    ``ids``: (B, L) integers, tokens, padded; ``lengths``: (B,) int64, at least 1; ``groups``: (B,) int64, equal for
    images and titles that belong together; ``present``: (B,) bool, whether the image has a title, else a stand-in is
    there.
    """

    ids: Tensor
    lengths: Tensor
    groups: Tensor
    present: Tensor

    def to(self, device: torch.device) -> TitleBatch:
        """The same on a device; lengths stay where they are, since packing by length asks for them on the CPU."""
        ids, groups, present = (part.to(device, non_blocking=True) for part in (self.ids, self.groups, self.present))
        return TitleBatch(ids, self.lengths, groups, present)


@dataclass(frozen=True)
class RowTitles:
    """The titles of N images, as tokens.

    ``ids``: (T, L) integers, padded; ``lengths``: (T,) int64; ``starts``: (N + 1,), the titles of image i are those
    from ``starts[i]`` to before ``starts[i + 1]``; ``groups``: (N,), see `titles.number_groups`; ``seed``: decides
    which title of several an epoch takes.
    """

    ids: Tensor
    lengths: Tensor
    starts: np.ndarray
    groups: np.ndarray
    seed: int = 0

    def pick(self, rows: Tensor, epoch: int) -> TitleBatch:
        """A title of each image of a batch; which of several follows from seed, epoch and row alone.

        Args:
            rows: (B,) of the images.
            epoch: from 0.
        """
        numbers = rows.numpy()
        first, counts = self.starts[numbers], np.diff(self.starts)[numbers]
        chosen = first.copy()
        for place in np.flatnonzero(counts > 1):
            chosen[place] += self._draw(int(numbers[place]), epoch) % int(counts[place])
        present = counts > 0
        chosen[~present] = 0  # a stand-in, for all processes to have as many rows
        lengths = self.lengths[chosen]
        longest = int(lengths.max()) if len(lengths) else 0
        return TitleBatch(
            self.ids[chosen, :longest], lengths, torch.from_numpy(self.groups[numbers]), torch.from_numpy(present)
        )

    def _draw(self, row: int, epoch: int) -> int:
        drawn = hashlib.blake2b(f"title {self.seed} {epoch} {row}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn, "little")
