"""Norm of hinges: the family between their sum and their maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import setting

if TYPE_CHECKING:
    from torch import Tensor


class NormOfHinges(PairLoss):
    r"""Norm of hinges: each positive against all negatives, the harder the more, in the norm of power 1 / temperature.

    .. math:: \sum_p \Big( \sum_n [n - p + margin]_+^{1 / \tau} \Big)^{\tau}

    At temperature 1 it is the sum of hinges; towards 0 it becomes the max of hinges, from which it differs by a factor
    of at most :math:`N^\tau` for N negatives. In between a negative's weight is its share of the norm to the power
    :math:`1 / \tau - 1`, so that no weight is above 1 and equally hard negatives share one.
    """

    formula = "sum_p (sum_n ([n - p + margin]+)^(1/t))^t; t = 1: sum_of_hinges, t to 0: max_of_hinges"
    source = "between Kiros et al. 2014 and Faghri et al., BMVC 2018; the norm is ours"
    few_columns = True

    margin: float = setting(0.2, "by how much a positive shall be more similar than a negative")
    temperature: float = setting(0.25, "above 0: near the max of hinges, to 1: the sum of hinges", gt=0, le=1)

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        import torch

        hinges = (negatives[:, None] - positives[:, :, None] + self.margin).clamp(min=0)
        largest = hinges.detach().amax(dim=2, keepdim=True)
        # Over the largest, so that no power overflows or vanishes whole; where it is 0 there is no loss.
        shares = hinges / torch.where(largest == 0, 1.0, largest)
        is_right = shares == 0
        sums = torch.where(is_right, 1.0, shares).pow(1 / self.temperature).masked_fill(is_right, 0.0).sum(dim=2)
        return (largest[:, :, 0] * torch.where(sums == 0, 1.0, sums).pow(self.temperature)).sum(dim=1)

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`; one positive after the other, in the same block of negatives."""
        import torch

        power = 1 / self.temperature
        losses = negatives.new_zeros(len(negatives))
        pulled, pushed = torch.zeros_like(positives), torch.zeros_like(negatives)
        shares = torch.empty_like(negatives)
        for column in range(positives.shape[1]):
            torch.sub(negatives, positives[:, column : column + 1] - self.margin, out=shares)
            largest = shares.clamp_(min=0).amax(dim=1, keepdim=True)
            is_right = largest == 0  # and not a NaN, which spoils the loss where everyone sees it
            shares.div_(torch.where(is_right, 1.0, largest))
            active = shares.sign()
            weights = shares.pow(power - 1).mul_(active)  # 0 to the power 0 is 1
            sums = (weights * shares).sum(dim=1, keepdim=True)
            norms = torch.where(is_right, 1.0, sums).pow(self.temperature)
            losses += (largest * norms)[:, 0]
            weights.mul_(norms.pow(1 - power))
            pulled[:, column] = -weights.sum(dim=1)
            pushed += weights
        return Weighed(losses, pulled, pushed)
