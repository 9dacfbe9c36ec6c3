"""Triplet loss on similarities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import setting

if TYPE_CHECKING:
    from torch import Tensor


class Triplet(PairLoss):
    r"""Triplet loss on similarities (Schroff et al., CVPR 2015; batch-all and soft margin: Hermans et al. 2017).

    .. math:: \sum_p \sum_n [n - p + margin]_+ \quad\text{or, with a soft margin,}\quad
              \sum_p \sum_n \log(1 + e^{n - p})

    ``average`` says over what: ``active`` triplets (those with a loss), ``all`` of them. ``negatives`` says which stand
    in a triplet: ``all``, or ``semi_hard``, those less similar than the positive but inside the margin. For the hardest
    triplet of each anchor add `HardestMining`, for the easiest positive `EasyPositiveMining`.
    """

    formula = "mean over triplets of [n - p + margin]+"
    source = "Schroff et al., CVPR 2015; Hermans et al. 2017"
    few_columns = True

    margin: float = setting(0.1, "by how much a positive shall be more similar than a negative")
    soft: bool = setting(False, "a soft margin, log(1 + exp), in place of the hinge")
    negatives: Literal["all", "semi_hard"] = setting("all", "which negatives stand in a triplet")
    average: Literal["active", "all"] = setting("active", "over which triplets the mean is taken")

    @model_validator(mode="after")
    def _check_band(self) -> Triplet:
        if self.soft and self.negatives == "semi_hard":
            raise ValueError("a soft margin has no semi-hard band; leave out one of the two.")
        return self

    def compute(self, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """See `PairWeighting.compute`."""
        from torch.nn.functional import softplus

        near, far = positives[:, :, None], negatives[:, None]
        present = (near < float("inf")) & (far > -float("inf"))
        gap = (far - near).masked_fill(~present, -float("inf"))
        if self.negatives == "semi_hard":  # at or above the positive there is no semi-hard negative
            gap = gap.masked_fill(far >= near, -float("inf"))
        losses = softplus(gap) if self.soft else (gap + self.margin).clamp(min=0)
        counted = present if self.average == "all" else losses > 0
        return losses.sum(dim=(1, 2)), counted.sum(dim=(1, 2))

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`; one positive after the other, in the same block of negatives."""
        import torch
        from torch.nn.functional import softplus

        losses = negatives.new_zeros(len(negatives))
        counts = torch.zeros_like(losses)
        pulled = torch.zeros_like(positives)
        pushed: Tensor | None = None
        known = (negatives > -torch.inf).sum(dim=1) if self.average == "all" else None
        gap, active = torch.empty_like(negatives), torch.empty_like(negatives)
        for column in range(positives.shape[1]):
            positive = positives[:, column : column + 1]
            torch.sub(negatives, positive - (0.0 if self.soft else self.margin), out=gap)
            if self.soft:
                losses += softplus(gap).sum(dim=1)
                torch.sigmoid(gap, out=active)
            else:
                if self.negatives == "semi_hard":  # at or above the positive there is no semi-hard negative
                    gap.masked_fill_(negatives >= positive, 0.0)
                gap.clamp_(min=0)
                losses += gap.sum(dim=1)
                torch.sign(gap, out=active)
            weight = active.sum(dim=1)
            pulled[:, column] = -weight
            if known is not None:
                counts += known * (positive[:, 0] < torch.inf)
            else:
                counts += (active > 0).sum(dim=1) if self.soft else weight
            if pushed is None:
                pushed = active.clone() if positives.shape[1] > 1 else active
            else:
                pushed += active
        assert pushed is not None, "there is at least one column for a positive"
        return Weighed(losses, pulled, pushed, counts)
