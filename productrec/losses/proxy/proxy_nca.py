"""Proxy-NCA: the true class is not in the denominator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from productrec.losses.declared import ProxyLoss
from productrec.losses.engine.weighing import PairWeighting, Weighed
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor

    from productrec.losses.centres.proxy_module import ProxyModule


class ProxyNCA(ProxyLoss, PairWeighting):
    r"""Proxy-NCA (Movshovitz-Attias et al., ICCV 2017).

    .. math:: -scale \, p + \log \sum_n e^{scale \, n}

    With unit vectors, ``scale`` 2 is the paper's squared Euclidean distance.
    """

    formula = "-scale p + log sum_n e^(scale n)"
    source = "Movshovitz-Attias et al., ICCV 2017"

    scale: PositiveFloat = setting(2.0, "of similarities; 2 is the paper's squared distance")

    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> ProxyModule:
        """See `ProxyLoss.build`."""
        from productrec.losses.centres.proxy_module import ProxyModule

        return ProxyModule(self, embedding_dim, class_count)

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`; the references are the centres."""
        against = (self.scale * negatives).logsumexp(dim=1)
        nearest = positives.masked_fill(positives == float("inf"), 0.0).sum(dim=1)
        # With a single class there is nothing to tell apart: no loss.
        return (against - self.scale * nearest).masked_fill(against == -float("inf"), 0.0)

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`."""
        from productrec.losses.engine.log_sums import compute_log_sum

        against = compute_log_sum(negatives, self.scale)
        active = (against.values > -float("inf"))[:, None]
        present = (positives < float("inf")) & active
        nearest = positives.masked_fill(~present, 0.0)
        losses = (against.values - self.scale * nearest.sum(dim=1)).masked_fill(~active[:, 0], 0.0)
        return Weighed(losses, present.to(losses.dtype) * -self.scale, against.shares.mul_(self.scale / against.totals))
