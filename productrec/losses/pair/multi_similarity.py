"""Multi-Similarity loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor


class MultiSimilarity(PairLoss):
    r"""Multi-Similarity (Wang et al., CVPR 2019, equation (15)), to be used with `MultiSimilarityMining`.

    .. math:: \frac{1}{\alpha} \log\big(1 + \sum_p e^{-\alpha (p - base)}\big)
              + \frac{1}{\beta} \log\big(1 + \sum_n e^{\beta (n - base)}\big)
    """

    formula = "log(1 + sum_p e^(-alpha (p - base))) / alpha + log(1 + sum_n e^(beta (n - base))) / beta"
    source = "Wang et al., CVPR 2019"
    mined_by = "multi_similarity"

    alpha: PositiveFloat = setting(2.0, "sharpness for positives")
    beta: PositiveFloat = setting(50.0, "sharpness for negatives; 50 in the paper, 40 in the authors' configuration")
    base: float = setting(0.5, "lambda, the similarity both terms pivot on; 1 in the paper's text, 0.5 in practice")

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        pulled = (-self.alpha * (positives - self.base)).exp().sum(dim=1).log1p()
        pushed = (self.beta * (negatives - self.base)).exp().sum(dim=1).log1p()
        return pulled / self.alpha + pushed / self.beta

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`."""
        from productrec.losses.engine.log_sums import compute_log_one_plus_sum

        pulled = compute_log_one_plus_sum(positives, -self.alpha, self.base)
        pushed = compute_log_one_plus_sum(negatives, self.beta, self.base)
        return Weighed(
            pulled.values / self.alpha + pushed.values / self.beta,
            pulled.shares.mul_(-pushed.totals / pulled.totals),
            pushed.shares,
            scales=1 / pushed.totals,
        )
