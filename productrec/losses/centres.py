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


class Prototypes(NamedTuple):
    """Unit centres of classes that may have different numbers of them.

    ``centres``: (C, K, D), zeros where a class has fewer than K; ``counts``: (C,), at least 1.
    """

    centres: Tensor
    counts: Tensor


def merge_centres(centres: Tensor, distance: float) -> Prototypes:
    """Make one of the centres of a class that are joined by steps of at most ``distance``.

    Args:
        centres: (C, K, D), of any length above 0.
        distance: between unit centres, from 0 to 2; a cosine similarity s is the distance sqrt(2 - 2 s).

    Returns:
        The merged centres: each the direction of the mean of those it was made of; K is the most any class has left.

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
    joined = torch.cdist(units, units) <= distance
    joined |= torch.eye(per_class, dtype=torch.bool, device=joined.device)
    for _ in range(math.ceil(math.log2(max(2, per_class)))):  # who is joined over any number of steps
        joined = (joined.double() @ joined.double()) > 0
    group = joined.int().argmax(dim=2)  # the first centre that one is joined to
    is_first = group == torch.arange(per_class, device=group.device)
    place = (is_first.long().cumsum(dim=1) - 1).gather(1, group)
    counts = is_first.sum(dim=1)
    sums = torch.zeros_like(units).scatter_add_(1, place[:, :, None].expand_as(units), units)
    merged = functional.normalize(sums, dim=2)[:, : int(counts.max())]
    return Prototypes(merged.to(centres.dtype), counts)


def compute_prototype_similarities(embeddings: Tensor, prototypes: Prototypes, gamma: float = 0.0) -> Tensor:
    """Similarity (N, C) of embeddings (N, D) to classes: relaxed over a class's centres as in SoftTriple.

    Args:
        embeddings: unit rows.
        prototypes: of C classes.
        gamma: smoothing over the centres of a class, in similarity; 0 takes the nearest.
    """
    centres, counts = prototypes
    similarities = torch.einsum("nd,ckd->nck", embeddings.to(centres.dtype), centres)
    absent = torch.arange(centres.shape[1], device=counts.device) >= counts[:, None]
    if gamma == 0:
        return similarities.masked_fill(absent, -torch.inf).amax(dim=2)
    shares = (similarities / gamma).masked_fill(absent, -torch.inf).softmax(dim=2)
    return (shares * similarities).sum(dim=2)
