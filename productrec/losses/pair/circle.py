"""Circle loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-30


class Circle(PairLoss):
    r"""Circle loss (Sun et al., CVPR 2020, equation (6)): each similarity is paced by how far it is from its optimum.

    .. math:: \log\Big(1 + \sum_n e^{\gamma [n + m]_+ (n - m)} \sum_p e^{-\gamma [1 + m - p]_+ (p - 1 + m)}\Big)

    The bracketed paces carry no gradient. ``margin`` 0.25 and ``gamma`` 256 are the paper's for faces; for retrieval it
    has 0.4 and 80.
    """

    formula = "log(1 + sum_n e^(gamma [n + m]+ (n - m)) sum_p e^(-gamma [1 + m - p]+ (p - 1 + m)))"
    source = "Sun et al., CVPR 2020"
    needs_unit_norm = True

    margin: float = setting(0.4, "m; 0.25 for faces and 0.4 for retrieval in the paper")
    gamma: PositiveFloat = setting(80.0, "scale; 256 for faces and 80 for retrieval in the paper")

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        from torch.nn.functional import softplus

        # Not 0: times the infinity of an absent pair that would be NaN.
        positive_pace = (1 + self.margin - positives.detach()).clamp(min=_TINY)
        negative_pace = (negatives.detach() + self.margin).clamp(min=_TINY)
        pulled = (-self.gamma * positive_pace * (positives - 1 + self.margin)).logsumexp(dim=1)
        pushed = (self.gamma * negative_pace * (negatives - self.margin)).logsumexp(dim=1)
        return softplus(pulled + pushed)

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`."""
        from torch.nn.functional import softplus

        from productrec.losses.engine.log_sums import compute_log_sum

        positive_pace = (1 + self.margin - positives).clamp_(min=_TINY).mul_(self.gamma)
        negative_pace = (negatives + self.margin).clamp_(min=_TINY).mul_(self.gamma)
        pulled = compute_log_sum(positives.sub_(1 - self.margin).mul_(positive_pace), -1.0)
        pushed = compute_log_sum(negatives.sub_(self.margin).mul_(negative_pace))
        both = pulled.values + pushed.values
        return Weighed(
            softplus(both),
            pulled.shares.mul_(positive_pace).mul_(-pushed.totals / pulled.totals),
            pushed.shares.mul_(negative_pace),
            scales=both.sigmoid()[:, None] / pushed.totals,
        )
