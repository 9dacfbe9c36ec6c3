"""Lifted structure, generalised to all positives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor


class LiftedStructure(PairLoss):
    r"""Lifted structure (Song et al., CVPR 2016), generalised to all positives (Hermans et al. 2017), on similarities.

    .. math:: \Big[ \log \sum_p e^{-scale \, p} + \log \sum_n e^{scale (n + margin)} \Big]_+ / scale

    The paper's form is `original_lifted_structure`.
    """

    formula = "[log sum_p e^(-scale p) + log sum_n e^(scale (n + margin))]+ / scale"
    source = "Song et al., CVPR 2016; Hermans et al. 2017"

    scale: PositiveFloat = setting(1.0, "sharpness")
    margin: float = setting(1.0, "added to similarities of negatives")

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        pulled = (-self.scale * positives).logsumexp(dim=1)
        pushed = (self.scale * (negatives + self.margin)).logsumexp(dim=1)
        return (pulled + pushed).clamp(min=0) / self.scale

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`."""
        from productrec.losses.engine.log_sums import compute_log_sum

        pulled = compute_log_sum(positives, -self.scale)
        pushed = compute_log_sum(negatives, self.scale)
        losses = (pulled.values + pushed.values + self.scale * self.margin).clamp_(min=0)
        return Weighed(
            losses / self.scale,
            pulled.shares.mul_(-pushed.totals / pulled.totals),
            pushed.shares,
            scales=losses.sign()[:, None] / pushed.totals,
        )
