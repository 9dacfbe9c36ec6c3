"""FastAP: average precision from soft histograms of distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Weighed
from productrec.settings.fields import Positive, setting

if TYPE_CHECKING:
    from torch import Tensor


class FastAP(PairLoss):
    r"""FastAP (Cakir et al., CVPR 2019): 1 minus the average precision of an anchor, by a histogram of its distances.

    .. math:: 1 - \frac{1}{|p|} \sum_{l = 0}^{L} \frac{h^+_l H^+_l}{H_l}

    over squared distances 2 - 2 s from 0 to 4: a pair counts in the two nearest of L + 1 bin centres, linearly;
    :math:`h^+_l` counts positives, :math:`H^+_l` those up to bin l, and :math:`H_l` all pairs up to it. The mean is
    over anchors that have positives, as in the authors' code.
    """

    formula = "1 - sum over bins of positives * positives so far / pairs so far / positives, d^2 = 2 - 2 s"
    source = "Cakir et al., CVPR 2019"
    needs_unit_norm = True

    bins: Positive = setting(10, "L, into how many parts squared distances from 0 to 4 are divided")

    def compute(self, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """See `PairWeighting.compute`."""
        present = positives < float("inf")
        near = self._accumulate(positives.masked_fill(~present, -float("inf")))
        total = near + self._accumulate(negatives)
        fractions = (near / total.masked_fill(total == 0, 1.0)) * near.diff(dim=1, prepend=near[:, :1] * 0)
        count = present.sum(dim=1)
        losses = (1 - fractions.sum(dim=1) / count.clamp(min=1)).masked_fill(count == 0, 0.0)
        return losses, count > 0

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`; every pair moves what has been counted up to one bin alone, its own."""
        import torch

        present = positives < torch.inf
        count = present.sum(dim=1, dtype=positives.dtype)
        positives.masked_fill_(~present, -torch.inf)
        near = self._accumulate(positives)
        total = near + self._accumulate(negatives)
        total.masked_fill_(total == 0, 1.0)
        precision, fresh = near / total, near.diff(dim=1, prepend=torch.zeros_like(near[:, :1]))
        losses = (1 - (precision * fresh).sum(dim=1) / count.clamp(min=1)).masked_fill(count == 0, 0.0)
        # Of the loss by what is counted up to a bin; by the last one of all for what is absent, which is none.
        rate = (-self.bins / 2 / count.clamp(min=1))[:, None]
        by_total = -fresh * precision / total
        later = torch.nn.functional.pad(precision[:, 1:], (0, 1))
        by_near = by_total + fresh / total + precision - later
        tables = [torch.nn.functional.pad(slopes * rate, (0, 1)) for slopes in (by_near, by_total)]
        pulled, pushed = (
            table.gather(1, similarities.sub_(1.0).mul_(-self.bins / 2).clamp_(0, self.bins + 1).long())
            for table, similarities in zip(tables, (positives, negatives), strict=True)
        )
        return Weighed(losses, pulled, pushed, count > 0)

    def _accumulate(self, similarities: Tensor) -> Tensor:
        """How many of (b, K) lie up to each bin centre, (b, L + 1): one fades out from its bin's centre to the next."""
        import torch

        positions = (1.0 - similarities) * (self.bins / 2)
        counted = [(edge - positions).clamp(0.0, 1.0).sum(dim=1) for edge in range(1, self.bins + 2)]
        return torch.stack(counted, dim=1)
