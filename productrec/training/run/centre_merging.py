"""Merging centres between epochs, judged by the validation images whose classes are trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import nn

from productrec.data.dataset import ViewBatch
from productrec.losses.centres.soft_triple import SoftTripleModule
from productrec.training.ranks.resources import Resources
from productrec.training.run.validation import gather_images, recognise_images
from productrec.training.tricks.merging import merge_learned_centres


@dataclass(frozen=True)
class CentreMerging:
    """Merges the centres of ``loss``; see `merge_learned_centres` for ``distance`` and ``tolerance``.

    ``loader``: plain views of this rank's slice of N images; ``labels``: (N,) their class positions.
    """

    loss: SoftTripleModule
    loader: Iterable[ViewBatch]
    labels: np.ndarray
    distance: float
    tolerance: float
    resources: Resources

    def merge(self, network: nn.Module) -> dict[str, float]:
        """Merge by the embeddings of a network, and give figures for the epoch; all ranks call it together."""
        resources = self.resources
        own = recognise_images(network, self.loader, device=resources.device, dtype=resources.dtype)
        everyone = gather_images(own, len(self.labels), resources.ranks)
        return merge_learned_centres(
            self.loss,
            everyone.embeddings,
            self.labels[everyone.rows],
            distance=self.distance,
            tolerance=self.tolerance,
            ranks=resources.ranks,
        )
