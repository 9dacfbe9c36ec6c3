"""Losses of Euclidean distances between unit vectors, where the distance of a pair is the root of 2 - 2 s."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from productrec.errors import RecipeError
from productrec.losses.engine.log_sums import compute_log_sum
from productrec.losses.engine.pair_loss import Weighed

_LOG2_E = math.log2(math.e)


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
        pulled = measure_distances(positives).sub_(self.positive_margin).clamp_(min=0)
        pushed = measure_distances(negatives).neg_().add_(self.negative_margin).clamp_(min=0)
        near_slopes, far_slopes = measure_slopes(positives), measure_slopes(negatives)
        if self.power == 1:
            losses = pulled.sum(dim=1) + pushed.sum(dim=1)
            return Weighed(losses, near_slopes.mul_(pulled.sign_()).neg_(), far_slopes.mul_(pushed.sign_()))
        losses = pulled.square().sum(dim=1) + pushed.square().sum(dim=1)
        scales = losses.new_full((len(losses), 1), 2.0)
        return Weighed(losses, near_slopes.mul_(pulled).neg_(), far_slopes.mul_(pushed), scales=scales)


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
        return compute_log_sum(measure_distances(negatives), -1.0).values + self.margin

    def weigh_related(self, positives: Tensor, negatives: Tensor, own: Tensor, others: Tensor) -> Weighed:
        """See `RelatedPairLoss.weigh_related`."""
        present = positives < torch.inf
        near = measure_distances(positives)
        both = torch.logaddexp(own[:, None], others)
        gaps = (near + both).clamp_(min=0).masked_fill_(~present | (both == -torch.inf), 0.0)
        # A row's negatives stand in the pair (i, j) and in (j, i), which is as large.
        share = torch.where(gaps > 0, (own[:, None] - both).exp() * gaps, 0.0).sum(dim=1, keepdim=True) * 2.0
        # The summary is the logarithm of the sum, so that shares need no sum again.
        shift = (self.margin - own).clamp(max=torch.finfo(own.dtype).max / 4)[:, None]
        shares = measure_distances(negatives).mul_(-_LOG2_E).add_(shift * _LOG2_E).exp2_()
        pushed = measure_slopes(negatives).mul_(shares).mul_(share)
        pulled = measure_slopes(positives).mul_(gaps).neg_()
        return Weighed(gaps.square().sum(dim=1) / 2, pulled, pushed, present.sum(dim=1))


def measure_distances(similarities: Tensor) -> Tensor:
    """Distances of (b, K) similarities of unit vectors: 0 where they coincide to rounding, and for absent positives.

    An absent negative is infinitely far. By thresholds: on a CPU a comparison and a choice cost several times as much.
    """
    squared = torch.rsub(similarities, 2.0, alpha=2.0)
    return torch.threshold_(squared, 16.0 * torch.finfo(squared.dtype).eps, 0.0).sqrt_()


def measure_slopes(similarities: Tensor) -> Tensor:
    """How fast a distance falls as (b, K) similarities rise, 1 / d, in their place; 0 where it is 0 or infinite."""
    squared = similarities.mul_(-2.0).add_(2.0)
    return torch.threshold_(squared, 16.0 * torch.finfo(squared.dtype).eps, torch.inf).rsqrt_()
