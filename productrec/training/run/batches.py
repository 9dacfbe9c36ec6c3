"""The batches of a training: a loader, and the sampler that says what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from productrec.data.dataset import TrainingBatch
from productrec.data.samplers import EpochSampler


class Batches:
    """One epoch after the other, from the batch that is next; ``near_classes`` is part of a training's state."""

    def __init__(self, loader: Iterable[TrainingBatch], sampler: EpochSampler) -> None:
        """``loader``: gives the batches of ``sampler``."""
        self._loader, self._sampler = loader, sampler

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return len(self._sampler)

    def start(self, epoch: int, first_batch: int) -> None:
        """Make the next pass that of an epoch (from 0), from a batch of it (from 0) on."""
        self._sampler.epoch, self._sampler.first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[TrainingBatch]:
        return iter(self._loader)

    @property
    def near_classes(self) -> np.ndarray | None:
        """(C, count) positions of the classes near each, that PK batches draw from; None before a search."""
        return self._sampler.near_classes

    @near_classes.setter
    def near_classes(self, near: np.ndarray | None) -> None:
        self._sampler.near_classes = near
