"""Sum of hinges over all triplets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.losses.pair.triplet import Triplet
from productrec.settings.fields import setting

if TYPE_CHECKING:
    from torch import Tensor


class SumOfHinges(PairLoss):
    r"""Sum of hinges: every triplet counts, and the sum is divided by anchors (Kiros et al. 2014; VSE++'s "sum").

    .. math:: \sum_p \sum_n [n - p + margin]_+
    """

    formula = "sum_p sum_n [n - p + margin]+"
    source = "Kiros et al. 2014"
    few_columns = True

    margin: float = setting(0.2, "by how much a positive shall be more similar than a negative")

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        gaps = negatives[:, None] - positives[:, :, None] + self.margin
        return gaps.clamp(min=0).sum(dim=(1, 2))

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`."""
        return Triplet(margin=self.margin).weigh(positives, negatives)._replace(counts=None)
