"""Jigsaw: images cut into regions that are shuffled nearby, so that a network must look at parts (DCL)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from productrec.errors import TrainingError

_STREAM = 0xDC1  # sets its draws apart from those of mixing


class Jigsaw(nn.Module):
    """Destruction and construction learning (Chen et al., CVPR 2019): shuffles regions, and its two auxiliary terms.

    Every image stands in the batch twice, whole and destroyed, and both are classified: what is left of a destroyed
    image is its parts, not its shape. The adversarial term tells whole from destroyed, which keeps what destruction
    itself draws apart from what tells classes (it is minimised, as in the paper's equation 6). The alignment term
    reads from the feature map where each region stood before (equation 9).

    Departures: regions are shuffled within rows and then within columns, which is a permutation for any draw; places
    are centres of regions in shares of the side, and their error is a mean, not a sum; nothing rectifies their map.
    """

    def __init__(
        self, feature_dim: int, *, parts: int, reach: int, adversarial_weight: float, alignment_weight: float, seed: int
    ) -> None:
        """``parts`` and ``reach``: see `shuffle_regions`; a term whose weight is 0 is left out."""
        super().__init__()
        self._parts, self._reach, self._seed = parts, reach, seed
        self._adversarial_weight, self._alignment_weight = adversarial_weight, alignment_weight
        self.tell = nn.Linear(feature_dim, 2) if adversarial_weight else None
        self.locate = nn.Conv2d(feature_dim, 2, 1) if alignment_weight else None

    def destroy(self, images: Tensor, step: int, rank: int = 0) -> tuple[Tensor, Tensor]:
        """Shuffle the regions of images (B, S, S, 3) by (seed, step, rank) alone; see `shuffle_regions`."""
        generator = np.random.default_rng([self._seed, step, rank, _STREAM])
        return shuffle_regions(images, generator, parts=self._parts, reach=self._reach)

    def forward(self, maps: Tensor, origins: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the two terms, and each apart (detached).

        Args:
            maps: (2 B, F, H, W) feature maps, of whole images and then of the same ones destroyed.
            origins: (B, parts ** 2) where each region of a destroyed image stood, as `destroy` gave them.

        Raises:
            TrainingError: the maps have no grid to find places in.
        """
        maps, count = maps.float(), len(origins)
        total, terms = maps.new_zeros(()), dict[str, Tensor]()
        if self.tell is not None:
            is_destroyed = torch.arange(2 * count, device=maps.device) >= count
            adversarial = F.cross_entropy(self.tell(maps.mean(dim=(2, 3))), is_destroyed.long())
            total = total + self._adversarial_weight * adversarial
            terms["jigsaw_adversarial"] = adversarial.detach()
        if self.locate is not None:
            if 1 in maps.shape[2:]:
                raise TrainingError(
                    "jigsaw: the backbone's feature map must be a grid for the alignment term; got "
                    f"{maps.shape[2]} x {maps.shape[3]}. Give a larger train.side_px, or "
                    "train.jigsaw.alignment_weight=0."
                )
            located = F.adaptive_avg_pool2d(self.locate(maps), self._parts).flatten(2)  # (2 B, 2, parts ** 2)
            in_place = torch.arange(self._parts**2, device=maps.device).expand(count, -1)
            wanted = torch.cat([in_place, origins])
            cells = torch.stack([wanted // self._parts, wanted % self._parts], dim=1)
            alignment = (located - (cells + 0.5) / self._parts).abs().mean()
            total = total + self._alignment_weight * alignment
            terms["jigsaw_alignment"] = alignment.detach()
        return total, terms


def shuffle_regions(images: Tensor, generator: np.random.Generator, *, parts: int, reach: int) -> tuple[Tensor, Tensor]:
    """Cut images into a grid of regions and shuffle them, each image in its own way.

    Args:
        images: (B, S, S, 3), left as they are; ``parts`` must divide S.
        generator: where randomness comes from.
        parts: regions along a side.
        reach: k, at least 1; a region moves fewer than 2 k places along its row, and as many along its column.

    Returns:
        Destroyed images, and for each place, row by row, which region of the whole image it shows (B, parts ** 2).
    """
    count, side = images.shape[:2]
    noise = generator.uniform(-reach, reach, size=(2, count, parts, parts))
    along = np.arange(parts)
    origins = np.broadcast_to(np.arange(parts**2).reshape(parts, parts), (count, parts, parts))
    origins = np.take_along_axis(origins, np.argsort(along + noise[0], axis=2), axis=2)
    origins = np.take_along_axis(origins, np.argsort(along[:, None] + noise[1], axis=1), axis=1)
    chosen = torch.from_numpy(origins.reshape(count, parts**2)).to(images.device)
    size = side // parts
    regions = images.reshape(count, parts, size, parts, size, 3).permute(0, 1, 3, 2, 4, 5)
    regions = regions.reshape(count, parts**2, size, size, 3)
    shuffled = regions[torch.arange(count, device=images.device)[:, None], chosen]
    shuffled = shuffled.reshape(count, parts, parts, size, size, 3).permute(0, 1, 3, 2, 4, 5)
    return shuffled.reshape(images.shape), chosen
