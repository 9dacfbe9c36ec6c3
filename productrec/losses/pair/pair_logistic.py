"""Logistic loss of each pair, on a learned affine of its similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from productrec.losses.declared import PairLoss
from productrec.losses.engine.weighing import Mining, Weighed
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from torch import Tensor

    from productrec.losses.engine.pair_module import PairModule


class PairLogistic(PairLoss):
    r"""Logistic loss on an affine of the similarity (Zhai et al., ICCV 2023, SigLIP), which its module learns.

    .. math:: \sum_p \log(1 + e^{-(a p + b)}) + \sum_n \log(1 + e^{a n + b})
    """

    formula = "sum_p log(1 + e^(-(a p + b))) + sum_n log(1 + e^(a n + b)), learned a and b"
    source = "Zhai et al., ICCV 2023"
    is_symmetric = True

    scale: PositiveFloat = setting(10.0, "a, the factor of similarities, at the start")
    bias: float = setting(-10.0, "b, added to scaled similarities, at the start; below 0, as most pairs are negatives")
    learned: bool = setting(True, "scale and bias are learned, as in the paper; else they stay as they are")

    def build(self, mining: Mining | None, class_count: int) -> PairModule:
        """See `PairLoss.build`."""
        from productrec.losses.engine.affine_module import AffinePairModule

        if not self.learned:
            return super().build(mining, class_count)
        return AffinePairModule(self.model_copy(update={"scale": 1.0, "bias": 0.0}), self.scale, self.bias, mining)

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`."""
        from torch.nn.functional import softplus

        near, far = self.scale * positives + self.bias, self.scale * negatives + self.bias
        return softplus(-near).sum(dim=1) + softplus(far).sum(dim=1)

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairWeighting.weigh`."""
        from torch.nn.functional import softplus

        if (self.scale, self.bias) != (1.0, 0.0):
            positives.mul_(self.scale).add_(self.bias)
            negatives.mul_(self.scale).add_(self.bias)
        losses = softplus(-positives).sum(dim=1) + softplus(negatives).sum(dim=1)
        scales = losses.new_full((len(losses), 1), self.scale)
        return Weighed(losses, positives.neg_().sigmoid_().neg_(), negatives.sigmoid_(), scales=scales)
