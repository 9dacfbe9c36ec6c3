"""Contrastive loss on similarities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import setting

if TYPE_CHECKING:
    from torch import Tensor


class Contrastive(PairLoss):
    r"""Contrastive loss on similarities, with a margin on either side (Hadsell et al., CVPR 2006).

    .. math:: \sum_p [positive\_margin - p]_+ + \sum_n [n - negative\_margin]_+
    """

    formula = "sum_p [positive_margin - p]+ + sum_n [n - negative_margin]+"
    source = "Hadsell et al., CVPR 2006"
    is_symmetric = True

    positive_margin: float = setting(1.0, "positives below this similarity are pulled")
    negative_margin: float = setting(0.5, "negatives above this similarity are pushed")

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        pulled = (self.positive_margin - positives).clamp(min=0).sum(dim=1)
        return pulled + (negatives - self.negative_margin).clamp(min=0).sum(dim=1)

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`."""
        pulled = positives.neg_().add_(self.positive_margin).clamp_(min=0)
        pushed = negatives.sub_(self.negative_margin).clamp_(min=0)
        losses = pulled.sum(dim=1) + pushed.sum(dim=1)
        return Weighed(losses, pulled.sign_().neg_(), pushed.sign_())
