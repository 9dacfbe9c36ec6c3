"""Margin loss: positives and negatives on either side of a learned distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Mining, ThresholdWeighting, Weighed
from productrec.settings.fields import NonNegative, PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor

    from productrec.losses.engine.pair_module import PairModule


class Margin(PairLoss, ThresholdWeighting):
    r"""Margin loss (Wu et al., ICCV 2017, "Sampling Matters"), to be used with `DistanceWeightedMining`.

    .. math:: \sum_p [\alpha + (d_p - \beta)]_+ + \sum_n [\alpha - (d_n - \beta)]_+ + \nu \, \beta \, |p|

    with Euclidean distances d of unit vectors, and the anchor's boundary :math:`\beta`, which its module learns; the
    mean is over active pairs (those with a loss). As in the authors' code :math:`\nu \beta` counts once for each
    positive pair, has no count of its own, and is left out where the boundary is fixed. Of the paper's sum of a
    boundary of all, of classes and of images, it is one of the first two. Where two embeddings coincide to rounding,
    the distance has no slope.
    """

    formula = "mean over active pairs of [d_p - beta + alpha]+ and [beta - d_n + alpha]+, d = sqrt(2 - 2 s)"
    source = "Wu et al., ICCV 2017"
    mined_by = "distance_weighted"
    needs_unit_norm = True

    alpha: PositiveFloat = setting(0.2, "distance that pairs shall keep from the boundary on their side")
    beta: PositiveFloat = setting(1.2, "distance of the boundary between positives and negatives, at the start")
    nu: NonNegative = setting(0.0, "weight of the boundary itself; above 0 it shrinks")
    beta_of: Literal["class", "all", "fixed"] = setting(
        "class", "a boundary is learned for each class, or one for all of them, or it stays as it is (fixed)"
    )

    def build(self, mining: Mining | None, class_count: int) -> PairModule:
        """See `PairLoss.build`."""
        from productrec.losses.engine.threshold_module import ThresholdPairModule

        if self.beta_of == "fixed":
            return super().build(mining, class_count)
        return ThresholdPairModule(self, self.beta, class_count if self.beta_of == "class" else 1, mining)

    def compute(self, positives: Tensor, negatives: Tensor, thresholds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `ThresholdWeighting.compute`."""
        from productrec.losses.engine.distances import compute_distances

        present = positives < float("inf")
        beta = self.beta if thresholds is None else thresholds[:, None]
        pulled = (compute_distances(positives) - beta + self.alpha).clamp(min=0).masked_fill(~present, 0.0)
        pushed = (beta - compute_distances(negatives) + self.alpha).clamp(min=0)
        losses = pulled.sum(dim=1) + pushed.sum(dim=1)
        if thresholds is not None:
            losses = losses + self.nu * thresholds * present.sum(dim=1)
        return losses, (pulled > 0).sum(dim=1) + (pushed > 0).sum(dim=1)

    def weigh(self, positives: Tensor, negatives: Tensor, thresholds: Tensor | None = None) -> Weighed:
        """See `ThresholdWeighting.weigh`."""
        from productrec.losses.engine.distances import measure_distances, measure_slopes

        present = positives < float("inf")
        beta = self.beta if thresholds is None else thresholds[:, None]
        # An absent positive has distance 0, and a boundary may fall below alpha.
        pulled = measure_distances(positives).sub_(beta - self.alpha).clamp_(min=0).mul_(present)
        pushed = measure_distances(negatives).neg_().add_(beta + self.alpha).clamp_(min=0)
        losses = pulled.sum(dim=1) + pushed.sum(dim=1)
        wrong, near = pulled.sign_(), pushed.sign_()
        pulled_count, pushed_count = wrong.sum(dim=1), near.sum(dim=1)
        moved: Tensor | None = None
        if thresholds is not None:
            positive_count = present.sum(dim=1)
            losses += self.nu * thresholds * positive_count
            moved = pushed_count - pulled_count + self.nu * positive_count
        return Weighed(
            losses,
            measure_slopes(positives).mul_(wrong).neg_(),
            measure_slopes(negatives).mul_(near),
            pulled_count + pushed_count,
            thresholds=moved,
        )
