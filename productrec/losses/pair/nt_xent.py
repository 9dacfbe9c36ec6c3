"""NT-Xent loss, or InfoNCE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Mining, Weighed
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor

    from productrec.losses.engine.pair_module import PairModule

_TINY = 1e-30
# CLIP's: logits are at most a hundred times a similarity.
_MOST_SCALE = 100.0


class NTXent(PairLoss):
    r"""Normalised temperature-scaled cross-entropy (InfoNCE), the mean over positive pairs (Chen et al., ICML 2020).

    .. math:: \sum_p -\log \frac{e^{p / \tau}}{e^{p / \tau} + \sum_n e^{n / \tau}}

    The temperature may be learned, by its logarithm and never below 0.01, as in CLIP (Radford et al., ICML 2021).
    """

    formula = "mean over positives of -log e^(p/t) / (e^(p/t) + sum_n e^(n/t))"
    source = "Chen et al., ICML 2020"

    temperature: PositiveFloat = setting(0.07, "similarities are divided by it")
    learn_temperature: bool = setting(False, "the temperature is learned, from its setting on, and stays at least 0.01")

    def build(self, mining: Mining | None, class_count: int) -> PairModule:
        """See `PairLoss.build`."""
        from productrec.losses.engine.affine_module import AffinePairModule

        if not self.learn_temperature:
            return super().build(mining, class_count)
        of_logits = self.model_copy(update={"temperature": 1.0})
        return AffinePairModule(of_logits, 1 / self.temperature, None, mining, most_scale=_MOST_SCALE)

    def compute(self, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """See `PairWeighting.compute`."""
        from torch.nn.functional import softplus

        against = (negatives / self.temperature).logsumexp(dim=1, keepdim=True)
        losses = softplus(against - positives / self.temperature).sum(dim=1)
        return losses, (positives < float("inf")).sum(dim=1)

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`."""
        from torch.nn.functional import softplus

        from productrec.losses.engine.log_sums import compute_log_sum

        rate = 1.0 / self.temperature
        count = (positives < float("inf")).sum(dim=1)
        against = compute_log_sum(negatives, rate)
        exponents = against.values[:, None] - positives.mul_(rate)
        wrong = exponents.sigmoid()  # no weight where there is no positive, or no negative: -inf both
        all_wrong = wrong.sum(dim=1, keepdim=True).clamp_(min=_TINY)
        pulled = wrong.mul_(-against.totals / all_wrong)
        losses = softplus(exponents).sum(dim=1)
        return Weighed(losses, pulled, against.shares, count, all_wrong * rate / against.totals)
