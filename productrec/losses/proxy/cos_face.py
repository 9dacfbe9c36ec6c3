"""CosFace: a softmax over class centres with a margin of similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from productrec.losses.declared import ProxyLoss
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from productrec.losses.centres.proxy_module import ProxyModule


class CosFace(ProxyLoss):
    """CosFace (Wang et al., CVPR 2018)."""

    formula = "normalised softmax, scale (p - margin) in place of scale p"
    source = "Wang et al., CVPR 2018"

    scale: PositiveFloat = setting(64.0, "inverse temperature")
    margin: float = setting(0.35, "similarity taken off the true class")

    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> ProxyModule:
        """See `ProxyLoss.build`."""
        from productrec.losses.centres.margin_softmax import MarginSoftmax
        from productrec.losses.centres.proxy_module import ProxyModule

        return ProxyModule(MarginSoftmax(self.scale, self.margin), embedding_dim, class_count)
