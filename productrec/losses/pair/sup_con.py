"""Supervised contrastive loss, in both forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor


class SupCon(PairLoss):
    r"""Supervised contrastive loss (Khosla et al., NeurIPS 2020); the mean outside the logarithm, equation (2):

    .. math:: \operatorname{mean}_p -\log \frac{e^{p / \tau}}{\sum_{p'} e^{p' / \tau} + \sum_n e^{n / \tau}}

    or inside of it, equation (3):

    .. math:: -\log \operatorname{mean}_p \frac{e^{p / \tau}}{\sum_{p'} e^{p' / \tau} + \sum_n e^{n / \tau}}

    An anchor without positives has no loss, and counts in the mean over anchors.
    """

    formula = "mean_p -log e^(p/t) / (sum_p e^(p/t) + sum_n e^(n/t)); inside: -log mean_p of the same fraction"
    source = "Khosla et al., NeurIPS 2020"

    temperature: PositiveFloat = setting(0.1, "similarities are divided by it")
    mean: Literal["outside", "inside"] = setting(
        "outside", "where the mean over positives stands: outside of the logarithm, which the paper prefers, or inside"
    )

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        present = positives < float("inf")
        count = present.sum(dim=1, dtype=positives.dtype).clamp(min=1)
        scaled = positives.masked_fill(~present, -float("inf")) / self.temperature
        among, against = scaled.logsumexp(dim=1), (negatives / self.temperature).logsumexp(dim=1)
        inside, outside = among - count.log(), scaled.masked_fill(~present, 0.0).sum(dim=1) / count
        pulled = outside if self.mean == "outside" else inside
        return (among.logaddexp(against) - pulled).masked_fill(~present.any(dim=1), 0.0)

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`."""
        import torch

        from productrec.losses.engine.log_sums import compute_log_sum

        rate = 1.0 / self.temperature
        present = positives < torch.inf
        count = present.sum(dim=1, keepdim=True, dtype=positives.dtype)
        lonely = count[:, 0] == 0
        scaled = positives.masked_fill(~present, -torch.inf).mul_(rate)
        mean = scaled.masked_fill(~present, 0.0).sum(dim=1) / count[:, 0].clamp(min=1)
        among, against = compute_log_sum(scaled), compute_log_sum(negatives, rate)
        total = torch.logaddexp(among.values, against.values)
        positive_part = (among.values - total).exp().masked_fill(lonely, 0.0)[:, None]
        negative_part = (against.values - total).exp().masked_fill(lonely, 0.0)[:, None]
        if self.mean == "outside":
            losses = (total - mean).masked_fill(lonely, 0.0)
            pulled = among.shares.mul_(positive_part / among.totals).sub_(present / count.clamp(min=1))
        else:
            losses = (total - among.values + count[:, 0].clamp(min=1).log()).masked_fill(lonely, 0.0)
            pulled = among.shares.mul_(-negative_part / among.totals)
        return Weighed(losses, pulled.mul_(rate), against.shares.mul_(negative_part * rate / against.totals))
