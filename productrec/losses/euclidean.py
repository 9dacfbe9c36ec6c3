"""Losses of Euclidean distances between unit vectors, where the distance of a pair is the root of 2 - 2 s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from productrec.errors import RecipeError
from productrec.losses.log_sums import compute_log_sum
from productrec.losses.pair_weighting import Weighed


@dataclass(frozen=True)
class EuclideanContrastive:
    r"""Contrastive loss on distances d (Hadsell et al., CVPR 2006), with a second margin for positives.

    .. math:: \sum_p [d_p - positive\_margin]_+^{power} + \sum_n [negative\_margin - d_n]_+^{power}

    With ``positive_margin`` 0 it is the original of one margin. Where two embeddings coincide to rounding, the
    distance has no slope.
    """

    positive_margin: float = 0.0
    negative_margin: float = 1.0
    power: int = 2
    needs_unit_norm: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse powers other than the two in use."""
        if self.power not in (1, 2):
            raise RecipeError(f"Euclidean contrastive loss: power must be 1 or 2; got {self.power}.")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        near, near_slopes = measure_distances(positives)
        far, far_slopes = measure_distances(negatives)
        pulled = near.sub_(self.positive_margin).clamp_(min=0)
        pushed = far.neg_().add_(self.negative_margin).clamp_(min=0)
        if self.power == 1:
            losses = pulled.sum(dim=1) + pushed.sum(dim=1)
            return Weighed(losses, near_slopes.mul_(pulled.sign_()), far_slopes.mul_(pushed.sign_()).neg_())
        losses = pulled.square().sum(dim=1) + pushed.square().sum(dim=1)
        return Weighed(losses, near_slopes.mul_(pulled).mul_(2.0), far_slopes.mul_(pushed).mul_(-2.0))


@dataclass(frozen=True)
class OriginalLiftedStructure:
    r"""Lifted structure as in the paper (Song et al., CVPR 2016): a positive pair against the negatives of both.

    .. math:: \operatorname{mean}_{(i, j)} \tfrac12 \Big[ d_{ij} +
              \log\Big( \sum_k e^{margin - d_{ik}} + \sum_l e^{margin - d_{jl}} \Big) \Big]_+^2

    over positive pairs, with k over the negatives of i and l over those of j. The engine goes through the batch twice.
    """

    margin: float = 1.0
    needs_unit_norm: ClassVar[bool] = True

    def summarise(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `RelatedPairLoss.summarise`."""
        return compute_log_sum(measure_distances(negatives)[0], -1.0).values + self.margin

    def weigh_related(self, positives: Tensor, negatives: Tensor, own: Tensor, others: Tensor) -> Weighed:
        """See `RelatedPairLoss.weigh_related`."""
        present = positives < torch.inf
        near, near_slopes = measure_distances(positives)
        far, far_slopes = measure_distances(negatives)
        both = torch.logaddexp(own[:, None], others)
        gaps = (near + both).clamp_(min=0).masked_fill_(~present | (both == -torch.inf), 0.0)
        # A row's negatives stand in the pair (i, j) and in (j, i), which is as large.
        share = torch.where(gaps > 0, (own[:, None] - both).exp() * gaps, 0.0).sum(dim=1, keepdim=True) * 2.0
        against = compute_log_sum(far, -1.0)
        pushed = far_slopes.mul_(against.shares).mul_(-share / against.totals)
        return Weighed(gaps.square().sum(dim=1) / 2, near_slopes.mul_(gaps), pushed, present.sum(dim=1))


def measure_distances(similarities: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of (b, K) similarities of unit vectors, and their slopes by similarity; absent pairs have slope 0.

    A negative that is absent is infinitely far, a positive infinitely near, which counts as distance 0.
    """
    squared = 2.0 - 2.0 * similarities
    apart = squared > 16.0 * torch.finfo(squared.dtype).eps
    distances = squared.masked_fill_(~apart, 0.0).sqrt_()
    return distances, torch.where(apart, -1.0 / distances, 0.0)
