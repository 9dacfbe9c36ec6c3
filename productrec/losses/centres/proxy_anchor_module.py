"""Proxy-Anchor: the centres are compared with the batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from productrec.losses.centres.proxy_module import ProxyModule
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.diagnostics import PairDiagnostics
from productrec.losses.engine.log_sums import compute_log_one_plus_sum
from productrec.losses.engine.weighing import PairWeighting, Weighed


@dataclass(frozen=True)
class AnchoredCentres(PairWeighting):
    r"""Proxy-Anchor (Kim et al., CVPR 2020): centres are the anchors, the batch holds their positives and negatives.

    .. math:: \frac{1}{|P^+|} \sum_{c \in P^+} \log\Big(1 + \sum_p e^{-alpha (p - margin)}\Big)
              + \frac{1}{C} \sum_c \log\Big(1 + \sum_n e^{alpha (n + margin)}\Big)

    with :math:`P^+` the classes in the batch; ``positive_share`` is C over their number, and set by the module.
    """

    alpha: float
    margin: float
    positive_share: float | Tensor = 1.0

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`; anchors are centres."""
        pulled = (-self.alpha * (positives - self.margin)).exp().sum(dim=1).log1p()
        return pulled * self.positive_share + (self.alpha * (negatives + self.margin)).exp().sum(dim=1).log1p()

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`; anchors are centres."""
        pulled = compute_log_one_plus_sum(positives, -self.alpha, self.margin)
        pushed = compute_log_one_plus_sum(negatives, self.alpha, -self.margin)
        return Weighed(
            pulled.values * self.positive_share + pushed.values,
            pulled.shares.mul_(-self.positive_share * pushed.totals / pulled.totals),
            pushed.shares,
            scales=self.alpha / pushed.totals,
        )


class ProxyAnchorModule(ProxyModule):
    """Centres as anchors, and their share among the classes of each batch."""

    loss: AnchoredCentres

    def __init__(self, alpha: float, margin: float, embedding_dim: int, class_count: int) -> None:
        super().__init__(AnchoredCentres(alpha, margin), embedding_dim, class_count)

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """See `MetricModule.diagnose`; in a pair, the anchor is a centre and the reference an image of the batch."""
        return super().diagnose(embeddings, labels)

    def _pose(self, embeddings: Tensor, labels: Tensor) -> tuple[Comparison, PairWeighting]:
        centres, classes = self._prepare(embeddings, labels)
        present = centres.new_zeros(len(classes)).index_fill_(0, labels.long(), 1.0).sum()
        loss = replace(self.loss, positive_share=len(classes) / present)
        return Comparison(centres, classes, embeddings, labels), loss
