"""Triplet-centre loss: the own centre against the nearest other one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from productrec.losses.declared import ProxyLoss
from productrec.losses.engine.weighing import PairWeighting
from productrec.settings.fields import setting

if TYPE_CHECKING:
    from torch import Tensor

    from productrec.losses.centres.proxy_module import ProxyModule


class TripletCentre(ProxyLoss, PairWeighting):
    r"""Triplet-centre loss (He et al., CVPR 2018), as a mean over the batch.

    .. math:: [\max_n n - p + margin]_+

    with p the similarity to the own class's centre and n those to all others. The paper's distance is half the squared
    Euclidean one, which between unit vectors is 1 - s, so that margins are of the same unit; but it leaves features and
    centres at any length, where its margin of 5 belongs. Centres learn by the gradient of the loss, where the paper
    takes the mean gradient of each class. Its sum with a softmax loss is the classification term beside it.
    """

    formula = "[max_n - p + margin]+"
    source = "He et al., CVPR 2018"

    margin: float = setting(0.2, "by how much the own centre shall be more similar than any other")

    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> ProxyModule:
        """See `ProxyLoss.build`."""
        from productrec.losses.centres.proxy_module import ProxyModule

        return ProxyModule(self, embedding_dim, class_count)

    def compute(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """See `PairWeighting.compute`; the references are the centres, of which one is an anchor's own."""
        nearest = negatives.max(dim=1, keepdim=True).values
        return (nearest - positives + self.margin).clamp(min=0).sum(dim=1)
