"""Resources: what a process has to compute with, in training and in prediction alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from productrec.training.ranks.group import Ranks


@dataclass(frozen=True)
class Resources:
    """A ``device``, the ``dtype`` of activations, loader processes (``workers``), and the ``ranks`` this is one of."""

    device: torch.device
    dtype: torch.dtype
    workers: int
    ranks: Ranks

    @property
    def is_on_gpu(self) -> bool:
        """Whether the device is an NVIDIA or AMD GPU, for which batches are put into pinned memory."""
        return self.device.type == "cuda"
