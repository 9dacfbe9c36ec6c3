"""Max of hinges: the hardest negative alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.settings.fields import setting

if TYPE_CHECKING:
    from torch import Tensor


class MaxOfHinges(PairLoss):
    r"""Max of hinges: each positive against the hardest negative alone (VSE++, Faghri et al., BMVC 2018).

    .. math:: \sum_p [\max_n n - p + margin]_+
    """

    formula = "sum_p [max_n - p + margin]+"
    source = "Faghri et al., BMVC 2018 (VSE++)"

    margin: float = setting(0.2, "by how much a positive shall be more similar than a negative")

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        hardest = negatives.max(dim=1, keepdim=True).values
        return (hardest - positives + self.margin).clamp(min=0).sum(dim=1)
