"""AdaCos: the centres, and the scale that each batch sets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from productrec.losses.centres.margin_softmax import MarginSoftmax
from productrec.losses.centres.proxy_module import ProxyModule
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.engine.weighing import PairWeighting


class AdaCosModule(ProxyModule):
    r"""AdaCos (Zhang et al., CVPR 2019): a normalised softmax that finds its own scale.

    It begins at :math:`\sqrt2 \log(C - 1)`; each training batch then sets it, by its median angle to the true class's
    centre and by how the other classes stand at the scale so far (equations (15) and (16)):

    .. math:: s' = \log\Big(\operatorname{mean}_i \sum_n e^{s n}\Big) \Big/ \cos\min(\pi / 4, \theta_{med})

    but never below 1. ``scale`` is part of the state dict.
    """

    scale: Tensor

    def __init__(self, embedding_dim: int, class_count: int) -> None:
        start = math.sqrt(2.0) * math.log(max(2, class_count - 1))
        super().__init__(MarginSoftmax(start), embedding_dim, class_count)
        self.register_buffer("scale", torch.tensor(start))

    def forward(self, embeddings: Tensor, labels: Tensor, keys: Tensor | None = None) -> Tensor:
        """See `MetricModule.forward`; in training the batch sets the scale first."""
        comparison, _ = super()._pose(embeddings, labels)
        centres = comparison.references
        assert centres is not None, "a proxy loss compares with its centres"
        if self.training and len(centres) > 1:
            with torch.autocast(embeddings.device.type, enabled=False):
                self.scale.copy_(self._find_scale(embeddings.detach().to(centres.dtype), labels, centres.detach()))
        return compute_pair_loss(comparison, self._weighting)

    @property
    def _weighting(self) -> MarginSoftmax:
        """By the current scale, which is not the first one."""
        return MarginSoftmax(float(self.scale))

    def _pose(self, embeddings: Tensor, labels: Tensor) -> tuple[Comparison, PairWeighting]:
        return super()._pose(embeddings, labels)[0], self._weighting

    def _find_scale(self, embeddings: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
        similarities = embeddings @ centres.T
        labels = labels.long()[:, None]
        angles = similarities.gather(1, labels).clamp(-1.0, 1.0).arccos()
        others = similarities.mul_(self.scale).scatter_(1, labels, -torch.inf).logsumexp(dim=1)
        middle = others.logsumexp(dim=0) - math.log(len(others))
        scale = (middle / angles.median().clamp(max=math.pi / 4).cos()).clamp(min=1.0)
        return torch.where(scale.isfinite(), scale, self.scale)  # of embeddings that are not; the loss will tell
