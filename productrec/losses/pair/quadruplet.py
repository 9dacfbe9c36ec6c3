"""Quadruplet loss: a positive pair also against a negative pair of other anchors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Mining, ThresholdWeighting
from productrec.settings.fields import setting

if TYPE_CHECKING:
    from torch import Tensor

    from productrec.losses.engine.comparison import Comparison


class Quadruplet(PairLoss, ThresholdWeighting):
    r"""Quadruplet loss on similarities (Chen et al., CVPR 2017), each positive pair against the hardest of either kind.

    .. math:: \operatorname{mean}_{(i, p)} [\max_n S_{in} - S_{ip} + margin]_+ + [T_i - S_{ip} + other\_margin]_+, \quad
              T_i = \max_{l, k} S_{lk}

    over all positive pairs; n is of another class than i, and in the most similar negative pair (l, k) of the batch
    neither is of the class of i. Where there is no such pair (fewer than three classes) the second term is 0.

    It departs from the paper in three points. There both terms sum over all negatives: over all quadruplets that would
    need every similarity of the batch at once, while the hardest pair that leaves out a class is one of three pairs
    found in one walk. Its similarity is a threshold of the anchor, by which value and gradient are exact;
    `compute_pair_weights` holds the weights of the anchor's own pairs alone. The paper learns its metric, here it is
    the similarity of the embeddings (half a squared distance between unit vectors is 1 minus it). And its margins
    follow the mean distances of positives and negatives, the second with half the weight of the first; here they are
    settings, the second one half by default.
    """

    formula = "mean over positives of [max_n - p + margin]+ + [hardest negative pair of others - p + other_margin]+"
    source = "Chen et al., CVPR 2017"

    margin: float = setting(0.2, "by how much a positive shall be more similar than the anchor's negatives")
    other_margin: float = setting(
        0.1, "by how much a positive shall be more similar than negative pairs without the anchor's class"
    )

    def complete(self, comparison: Comparison, mining: Mining | None) -> Comparison:
        """See `PairWeighting.complete`; mining leaves out no pair of others."""
        from productrec.losses.engine.other_pairs import add_hardest_other_pairs

        return comparison if comparison.thresholds is not None else add_hardest_other_pairs(comparison)

    def compute(self, positives: Tensor, negatives: Tensor, thresholds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `ThresholdWeighting.compute`; a threshold is the most similar negative pair of others."""
        hardest = negatives.max(dim=1, keepdim=True).values
        gaps = (hardest - positives + self.margin).clamp(min=0)
        if thresholds is not None:
            gaps = gaps + (thresholds[:, None] - positives + self.other_margin).clamp(min=0)
        return gaps.sum(dim=1), (positives < float("inf")).sum(dim=1)
