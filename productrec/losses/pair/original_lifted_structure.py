"""Lifted structure as in the paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from productrec.losses.declared import RelatedPairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import setting

if TYPE_CHECKING:
    from torch import Tensor

_LOG2_E = math.log2(math.e)


class OriginalLiftedStructure(RelatedPairLoss):
    r"""Lifted structure as in the paper (Song et al., CVPR 2016): a positive pair against the negatives of both.

    .. math:: \operatorname{mean}_{(i, j)} \tfrac12 \Big[ d_{ij} +
              \log\Big( \sum_k e^{margin - d_{ik}} + \sum_l e^{margin - d_{jl}} \Big) \Big]_+^2

    over positive pairs, with k over the negatives of i and l over those of j. The engine goes through the batch twice.
    """

    formula = "mean over positive pairs of [d + log(sum of e^(margin - d) over the negatives of both)]+^2 / 2"
    source = "Song et al., CVPR 2016"
    needs_unit_norm = True

    margin: float = setting(1.0, "distance that negatives shall have")

    def summarise(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `RelatedPairWeighting.summarise`."""
        from productrec.losses.engine.distances import measure_distances
        from productrec.losses.engine.log_sums import compute_log_sum

        return compute_log_sum(measure_distances(negatives), -1.0).values + self.margin

    def weigh_related(self, positives: Tensor, negatives: Tensor, own: Tensor, others: Tensor) -> Weighed:
        """See `RelatedPairWeighting.weigh_related`."""
        import torch

        from productrec.losses.engine.distances import measure_distances, measure_slopes

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
