"""Centres as prototypes: classes told by their learned centres, and centres that came together made one.

SoftTriple's regulariser pulls the centres of a class together until as few are left apart as its looks need (Qian et
al., ICCV 2019, section 3.3). Merging makes that number real.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import ArtifactError

# Mean directions shorter than this are noise: what they are made of points everywhere.
_LEAST_MEAN = 1e-3
_BLOCK_SIMILARITIES = 1 << 24


class Prototypes(NamedTuple):
    """Unit centres of classes that may have different numbers of them.

    ``centres``: (C, K, D), zeros where there is none; ``sizes``: (C, K), how many centres each was merged from, 0 where
    there is none, at least one of a class above 0.
    """

    centres: Tensor
    sizes: Tensor

    @property
    def counts(self) -> Tensor:
        """Centres of each class, (C,)."""
        return (self.sizes > 0).sum(dim=1)


def merge_centres(centres: Tensor, distance: float, sizes: Tensor | None = None) -> Prototypes:
    """Make one of the centres of a class that are joined by steps of at most ``distance``.

    Args:
        centres: (C, K, D), of any length above 0.
        distance: between unit centres, from 0 to 2; a cosine similarity s is the distance sqrt(2 - 2 s). 0 merges those
            alone that coincide.
        sizes: (C, K), how many each was merged from already, 0 for one that is no more; None for 1 each.

    Returns:
        The merged centres: each the direction of the mean of those it was made of, in the place of the first of them.
        Centres whose directions cancel out, such as opposite ones, have no mean and stay as they are.

    Raises:
        ArtifactError: the shape or the distance does not fit.
    """
    if centres.ndim != 3 or 0 in centres.shape or not 0 <= distance <= 2:
        raise ArtifactError(
            "merge centres: centres must have shape (C, K, D) and the distance be from 0 to 2; "
            f"got {tuple(centres.shape)} and {distance}."
        )
    units = functional.normalize(centres.detach().double(), dim=2)
    per_class = units.shape[1]
    masses = torch.ones_like(units[..., 0]) if sizes is None else sizes.detach().double()
    is_there = masses > 0
    joined = (torch.cdist(units, units) <= distance) & is_there[:, :, None] & is_there[:, None]
    joined |= torch.eye(per_class, dtype=torch.bool, device=joined.device)
    for _ in range(math.ceil(math.log2(max(2, per_class)))):  # who is joined over any number of steps
        joined = (joined.double() @ joined.double()) > 0
    group = joined.int().argmax(dim=2)  # the first centre that one is joined to
    sums, totals = _add_up(units, masses, group)
    cancelled = (sums.norm(dim=2) < _LEAST_MEAN * totals).gather(1, group)
    group = torch.where(cancelled, torch.arange(per_class, device=group.device), group)
    sums, totals = _add_up(units, masses, group)
    return Prototypes(functional.normalize(sums, dim=2).to(centres.dtype), totals.to(centres.dtype))


def _add_up(units: Tensor, masses: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (C, K, D) of unit centres, weighted, and of their masses (C, K), each in the place of its group's first."""
    weighted = units * masses[:, :, None]
    sums = torch.zeros_like(units).scatter_add_(1, group[:, :, None].expand_as(units), weighted)
    return sums, torch.zeros_like(masses).scatter_add_(1, group, masses)


def pack_prototypes(prototypes: Prototypes) -> Prototypes:
    """The same with what there is moved to the front: K is the most that any class has."""
    order = (prototypes.sizes == 0).int().argsort(dim=1, stable=True)[:, : int(prototypes.counts.max())]
    centres = prototypes.centres.gather(1, order[:, :, None].expand(-1, -1, prototypes.centres.shape[2]))
    return Prototypes(centres, prototypes.sizes.gather(1, order))


def compute_prototype_similarities(embeddings: Tensor, prototypes: Prototypes, gamma: float = 0.0) -> Tensor:
    """Similarity (N, C) of embeddings (N, D) to classes: relaxed over a class's centres as in SoftTriple.

    A centre that was merged from several counts as so many: where they coincided, the similarity is what it was.

    Args:
        embeddings: unit rows.
        prototypes: of C classes.
        gamma: smoothing over the centres of a class, in similarity; 0 takes the nearest.
    """
    centres, sizes = prototypes
    similarities = torch.einsum("nd,ckd->nck", embeddings.to(centres.dtype), centres)
    if gamma == 0:
        return similarities.masked_fill(sizes == 0, -torch.inf).amax(dim=2)
    shares = (similarities / gamma + sizes.log()).softmax(dim=2)
    return (shares * similarities).sum(dim=2)


def find_nearest_classes(embeddings: Tensor, prototypes: Prototypes, gamma: float = 0.0) -> Tensor:
    """The most similar class of each embedding, (N,), in blocks; arguments as for `compute_prototype_similarities`."""
    rows = max(1, _BLOCK_SIMILARITIES // prototypes.sizes.numel())
    blocks = torch.split(embeddings, rows)
    return torch.cat([compute_prototype_similarities(block, prototypes, gamma).argmax(dim=1) for block in blocks])
