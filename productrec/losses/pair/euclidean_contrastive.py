"""Contrastive loss on Euclidean distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import NonNegative, PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor


class EuclideanContrastive(PairLoss):
    r"""Contrastive loss on distances d (Hadsell et al., CVPR 2006), with a second margin for positives.

    .. math:: \sum_p [d_p - positive\_margin]_+^{power} + \sum_n [negative\_margin - d_n]_+^{power}

    With ``positive_margin`` 0 it is the original of one margin. Where two embeddings coincide to rounding, the
    distance has no slope.
    """

    formula = "sum_p [d_p - positive_margin]+^power + sum_n [negative_margin - d_n]+^power, d = sqrt(2 - 2 s)"
    source = "Hadsell et al., CVPR 2006"
    needs_unit_norm = True
    is_symmetric = True

    positive_margin: NonNegative = setting(0.0, "positives beyond this distance are pulled")
    negative_margin: PositiveFloat = setting(1.0, "negatives within this distance are pushed; at most 2")
    power: Literal[1, 2] = setting(2, "of the hinges; 2 in the paper")

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        from productrec.losses.engine.distances import compute_distances

        pulled = (compute_distances(positives) - self.positive_margin).clamp(min=0)
        pushed = (self.negative_margin - compute_distances(negatives)).clamp(min=0)
        return pulled.pow(self.power).sum(dim=1) + pushed.pow(self.power).sum(dim=1)

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`."""
        from productrec.losses.engine.distances import measure_distances, measure_slopes

        pulled = measure_distances(positives).sub_(self.positive_margin).clamp_(min=0)
        pushed = measure_distances(negatives).neg_().add_(self.negative_margin).clamp_(min=0)
        near_slopes, far_slopes = measure_slopes(positives), measure_slopes(negatives)
        if self.power == 1:
            losses = pulled.sum(dim=1) + pushed.sum(dim=1)
            return Weighed(losses, near_slopes.mul_(pulled.sign_()).neg_(), far_slopes.mul_(pushed.sign_()))
        losses = pulled.square().sum(dim=1) + pushed.square().sum(dim=1)
        scales = losses.new_full((len(losses), 1), 2.0)
        return Weighed(losses, near_slopes.mul_(pulled).neg_(), far_slopes.mul_(pushed), scales=scales)
