"""ArcFace: the centres, and a margin for each class where margins differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from productrec.errors import RecipeError
from productrec.losses.centres.margin_softmax import MarginSoftmax
from productrec.losses.centres.proxy_module import ProxyModule
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.weighing import PairWeighting
from productrec.losses.proxy.arc_face import ArcFace


class ArcFaceModule(ProxyModule):
    r"""ArcFace (Deng et al., CVPR 2019); with several centres a class, sub-centre ArcFace (Deng et al., ECCV 2020).

    With ``class_sizes`` (C,), the training images of each class, and a ``margin_power`` :math:`\lambda` above 0, the
    margin is dynamic (Ha et al. 2020, third place of Google Landmark Recognition): small classes get a larger one,

    .. math:: margin\_rad_c = least\_margin\_rad + (margin\_rad - least\_margin\_rad) \, n_c^{-\lambda}

    (the authors: 0.05, 0.5 and a power of 1/4).
    """

    class_margins: Tensor | None
    loss: MarginSoftmax

    def __init__(
        self, loss: ArcFace, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None
    ) -> None:
        softmax = MarginSoftmax(loss.scale, 0.0, loss.margin_rad, loss.centres_per_class)
        super().__init__(softmax, embedding_dim, class_count, loss.centres_per_class)
        margin_rad, least_margin_rad = loss.margin_rad, loss.least_margin_rad
        self.register_buffer("class_margins", None)
        if loss.margin_power > 0:
            if class_sizes is None or len(class_sizes) != class_count:
                raise RecipeError(
                    f"ArcFace: margin_power needs the training images of each of {class_count} classes; "
                    f"got {'none' if class_sizes is None else len(class_sizes)}."
                )
            if not 0 <= least_margin_rad <= margin_rad:
                raise RecipeError(
                    "ArcFace: least_margin_rad must be from 0 to margin_rad; "
                    f"got {least_margin_rad} and {margin_rad}. Angles are in radians."
                )
            shares = torch.tensor([max(1, size) for size in class_sizes], dtype=torch.float32).pow(-loss.margin_power)
            self.class_margins = least_margin_rad + (margin_rad - least_margin_rad) * shares

    def _pose(self, embeddings: Tensor, labels: Tensor) -> tuple[Comparison, PairWeighting]:
        """Each anchor has its class's margin."""
        comparison, loss = super()._pose(embeddings, labels)
        if self.class_margins is None:
            return comparison, loss
        return replace(comparison, thresholds=self.class_margins[labels.long()]), loss
