"""Validation by titles: whether held-out images find their titles, and titles their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from productrec.errors import DataError
from productrec.metrics.cross_modal import compute_cross_modal
from productrec.models.recognizer import Recognizer
from productrec.runtime import autocast


@dataclass(frozen=True)
class TitleValidation:
    """The titles of N validation images, and what belongs together.

    ``ids``: (T, L) tokens, padded; ``lengths``: (T,); ``owners``: (T,) the image of each title; ``groups``: (N,) equal
    for images whose titles are each other's; ``batch_size``: titles at a time.
    """

    ids: Tensor
    lengths: Tensor
    owners: np.ndarray
    groups: np.ndarray
    batch_size: int

    def measure(
        self, network: nn.Module, images: np.ndarray, rows: Sequence[int], *, device: torch.device, dtype: torch.dtype
    ) -> dict[str, float]:
        """Figures of a network with a text tower.

        Args:
            network: a recognizer; left in the mode it was in.
            images: (K, D) its embeddings of the images that can be read.
            rows: (K,) which of the N they are.
            device: where to compute.
            dtype: of activations.

        Returns:
            ``image_to_title_recall@K`` and ``title_to_image_recall@K`` for 1, 5 and 10, and their mean,
            ``pair_recall``.

        Raises:
            DataError: fewer than two images with a title can be read.
        """
        assert isinstance(network, Recognizer) and network.text is not None, "a network that titles judge reads them"
        was_training = network.training
        network.eval()
        with torch.inference_mode(), autocast(device, dtype):
            starts = range(0, len(self.ids), self.batch_size)
            places = [slice(start, start + self.batch_size) for start in starts]
            parts = [network.text(self.ids[some].to(device), self.lengths[some]).cpu() for some in places]
        network.train(was_training)
        titles = torch.cat(parts).numpy()
        row_of = np.full(len(self.groups), -1, dtype=np.int64)
        row_of[list(rows)] = np.arange(len(rows))
        owners = row_of[self.owners]
        known = owners >= 0
        if len(set(owners[known].tolist())) < 2:
            raise DataError("validation: at least 2 images with a title must be readable to be told apart; fewer are.")
        found = compute_cross_modal(
            images, titles[known], owners[known], title_groups=self.groups[self.owners[known]]
        ).measure()
        recalls = {name: value for name, value in found.items() if "_recall@" in name}
        return {"pair_recall": found["recall_sum"] / len(recalls)} | recalls
