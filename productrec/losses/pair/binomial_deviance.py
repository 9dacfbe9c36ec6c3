"""Binomial deviance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor


class BinomialDeviance(PairLoss):
    r"""Binomial deviance (Yi et al., ICPR 2014), as means over an anchor's positives and over its negatives.

    .. math:: \operatorname{mean}_p \log(1 + e^{-\alpha (p - base)})
              + \operatorname{mean}_n \log(1 + e^{\beta (n - base)})
    """

    formula = "mean_p log(1 + e^(-alpha (p - base))) + mean_n log(1 + e^(beta (n - base)))"
    source = "Yi et al., ICPR 2014"

    alpha: PositiveFloat = setting(2.0, "sharpness for positives")
    beta: PositiveFloat = setting(40.0, "sharpness for negatives")
    base: float = setting(0.5, "similarity that both terms pivot on")

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        from torch.nn.functional import softplus

        near = softplus(-self.alpha * (positives - self.base)).sum(dim=1)
        far = softplus(self.beta * (negatives - self.base)).sum(dim=1)
        positive_count = (positives < float("inf")).sum(dim=1).clamp(min=1)
        negative_count = (negatives > -float("inf")).sum(dim=1).clamp(min=1)
        return near / positive_count + far / negative_count

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`."""
        from torch.nn.functional import softplus

        positive_count = (positives < float("inf")).sum(dim=1, keepdim=True, dtype=positives.dtype).clamp_(min=1)
        negative_count = (negatives > -float("inf")).sum(dim=1, keepdim=True, dtype=negatives.dtype).clamp_(min=1)
        pulled = positives.sub_(self.base).mul_(-self.alpha)
        pushed = negatives.sub_(self.base).mul_(self.beta)
        losses = (softplus(pulled) / positive_count).sum(dim=1)
        losses += (softplus(pushed) / negative_count).sum(dim=1)
        return Weighed(
            losses,
            pulled.sigmoid_().mul_(-self.alpha / positive_count),
            pushed.sigmoid_().mul_(self.beta / negative_count),
        )
