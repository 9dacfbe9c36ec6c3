"""Smooth-AP: a smoothed average precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor


class SmoothAP(PairLoss):
    r"""Smooth-AP (Brown et al., ECCV 2020): 1 minus the average precision of an anchor, with smoothed ranks.

    .. math:: 1 - \operatorname{mean}_p \frac{A_p}{A_p + B_p}, \quad
              A_p = 1 + \sum_{p' \ne p} \sigma\Big(\frac{p' - p}{\tau}\Big), \quad
              B_p = \sum_n \sigma\Big(\frac{n - p}{\tau}\Big)

    An anchor without positives has no average precision and no loss. The anchor itself is no positive of its own, as in
    retrieval; the authors' code counts it.
    """

    formula = "1 - average precision, ranks smoothed by sigmoid((s - p) / t)"
    source = "Brown et al., ECCV 2020"
    few_columns = True

    temperature: PositiveFloat = setting(0.01, "differences of similarities are divided by it")

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        present = positives < float("inf")
        near = positives.masked_fill(~present, 0.0)[:, :, None]
        among = positives.masked_fill(~present, -float("inf"))[:, None]
        beside = ((among - near) / self.temperature).sigmoid()
        ahead = 1.0 + beside.sum(dim=2) - beside.diagonal(dim1=1, dim2=2)
        behind = ((negatives[:, None] - near) / self.temperature).sigmoid().sum(dim=2)
        precision = (ahead / (ahead + behind)).masked_fill(~present, 0.0).sum(dim=1)
        return (1.0 - precision / present.sum(dim=1).clamp(min=1)).masked_fill(~present.any(dim=1), 0.0)

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`; one positive after the other, in the same block of negatives."""
        import torch

        rate = 1.0 / self.temperature
        present = positives < torch.inf
        count = present.sum(dim=1).clamp_(min=1)
        among = positives.masked_fill(~present, -torch.inf)
        precision = negatives.new_zeros(len(negatives))
        pulled, pushed = torch.zeros_like(positives), torch.zeros_like(negatives)
        above = torch.empty_like(negatives)
        for column in range(positives.shape[1]):
            here = present[:, column]
            positive = among[:, column : column + 1].masked_fill(~here[:, None], 0.0)
            torch.sub(negatives, positive, out=above)
            above.mul_(rate).sigmoid_()
            beside = ((among - positive) * rate).sigmoid_()
            beside[:, column] = 0.0
            ahead, behind = beside.sum(dim=1) + 1.0, above.sum(dim=1)
            total = ahead + behind
            precision += torch.where(here, ahead / total, 0.0)
            share = torch.where(here, rate / (count * total * total), 0.0)[:, None]
            above.mul_(1.0 - above).mul_(share * ahead[:, None])
            beside.mul_(1.0 - beside).mul_(share * -behind[:, None])
            pushed += above
            pulled += beside
            pulled[:, column] -= above.sum(dim=1) + beside.sum(dim=1)
        return Weighed(torch.where(present.any(dim=1), 1.0 - precision / count, 0.0), pulled, pushed)
