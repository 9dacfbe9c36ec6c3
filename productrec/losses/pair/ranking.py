"""Losses that rank each positive of an anchor among its negatives: triplets, hinges, and average precision.

They go through the positives one by one, in the same block of negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.engine.pair_loss import Weighed, check_above_zero


@dataclass(frozen=True)
class Triplet:
    r"""Triplet loss on similarities (Schroff et al., CVPR 2015; batch-all and soft margin: Hermans et al. 2017).

    .. math:: \sum_p \sum_n [n - p + margin]_+ \quad\text{or, with a soft margin,}\quad
              \sum_p \sum_n \log(1 + e^{n - p})

    ``average`` says over what: ``active`` triplets (those with a loss), ``all`` of them. ``negatives`` says which stand
    in a triplet: ``all``, or ``semi_hard``, those less similar than the positive but inside the margin. For the hardest
    triplet of each anchor add `HardestMining`, for the easiest positive `EasyPositiveMining`.
    """

    margin: float = 0.1
    soft: bool = False
    negatives: Literal["all", "semi_hard"] = "all"
    average: Literal["active", "all"] = "active"
    goes_by_positive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse a soft margin with a band that only a hard one has."""
        if self.soft and self.negatives == "semi_hard":
            raise RecipeError("triplet loss: a soft margin has no semi-hard band; leave out one of the two.")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        losses = negatives.new_zeros(len(negatives))
        counts = torch.zeros_like(losses)
        pulled = torch.zeros_like(positives)
        pushed: Tensor | None = None
        known = (negatives > -torch.inf).sum(dim=1) if self.average == "all" else None
        gap, active = torch.empty_like(negatives), torch.empty_like(negatives)
        for place in range(positives.shape[1]):
            positive = positives[:, place : place + 1]
            torch.sub(negatives, positive - (0.0 if self.soft else self.margin), out=gap)
            if self.soft:
                losses += functional.softplus(gap).sum(dim=1)
                torch.sigmoid(gap, out=active)
            else:
                if self.negatives == "semi_hard":  # at or above the positive there is no semi-hard negative
                    gap.masked_fill_(negatives >= positive, 0.0)
                gap.clamp_(min=0)
                losses += gap.sum(dim=1)
                torch.sign(gap, out=active)
            weight = active.sum(dim=1)
            pulled[:, place] = -weight
            if known is not None:
                counts += known * (positive[:, 0] < torch.inf)
            else:
                counts += (active > 0).sum(dim=1) if self.soft else weight
            if pushed is None:
                pushed = active.clone() if positives.shape[1] > 1 else active
            else:
                pushed += active
        assert pushed is not None, "there is at least one place for a positive"
        return Weighed(losses, pulled, pushed, counts)


@dataclass(frozen=True)
class SumOfHinges:
    r"""Sum of hinges: every triplet counts, and the sum is divided by anchors (Kiros et al. 2014; VSE++'s "sum").

    .. math:: \sum_p \sum_n [n - p + margin]_+
    """

    margin: float = 0.2
    goes_by_positive: ClassVar[bool] = True

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        return Triplet(self.margin).weigh(positives, negatives)._replace(counts=None)


@dataclass(frozen=True)
class MaxOfHinges:
    r"""Max of hinges: each positive against the hardest negative alone (VSE++, Faghri et al., BMVC 2018).

    .. math:: \sum_p [\max_n n - p + margin]_+
    """

    margin: float = 0.2

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        hardest, place = negatives.max(dim=1, keepdim=True)
        gaps = (hardest + self.margin - positives).clamp_(min=0)
        active = gaps.sign()
        pushed = negatives.zero_().scatter_(1, place, active.sum(dim=1, keepdim=True))
        return Weighed(gaps.sum(dim=1), active.neg_(), pushed)


@dataclass(frozen=True)
class SmoothAP:
    r"""Smooth-AP (Brown et al., ECCV 2020): 1 minus the average precision of an anchor, with smoothed ranks.

    .. math:: 1 - \operatorname{mean}_p \frac{A_p}{A_p + B_p}, \quad
              A_p = 1 + \sum_{p' \ne p} \sigma\Big(\frac{p' - p}{\tau}\Big), \quad
              B_p = \sum_n \sigma\Big(\frac{n - p}{\tau}\Big)

    An anchor without positives has no average precision and no loss. The anchor itself is no positive of its own, as in
    retrieval; the authors' code counts it.
    """

    temperature: float = 0.01
    goes_by_positive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse a temperature of zero."""
        check_above_zero(self, "temperature")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        rate = 1.0 / self.temperature
        present = positives < torch.inf
        count = present.sum(dim=1).clamp_(min=1)
        among = positives.masked_fill(~present, -torch.inf)
        found = negatives.new_zeros(len(negatives))
        pulled, pushed = torch.zeros_like(positives), torch.zeros_like(negatives)
        above = torch.empty_like(negatives)
        for place in range(positives.shape[1]):
            here = present[:, place]
            positive = among[:, place : place + 1].masked_fill(~here[:, None], 0.0)
            torch.sub(negatives, positive, out=above)
            above.mul_(rate).sigmoid_()
            beside = ((among - positive) * rate).sigmoid_()
            beside[:, place] = 0.0
            ahead, behind = beside.sum(dim=1) + 1.0, above.sum(dim=1)
            total = ahead + behind
            found += torch.where(here, ahead / total, 0.0)
            share = torch.where(here, rate / (count * total * total), 0.0)[:, None]
            above.mul_(1.0 - above).mul_(share * ahead[:, None])
            beside.mul_(1.0 - beside).mul_(share * -behind[:, None])
            pushed += above
            pulled += beside
            pulled[:, place] -= above.sum(dim=1) + beside.sum(dim=1)
        return Weighed(torch.where(present.any(dim=1), 1.0 - found / count, 0.0), pulled, pushed)
