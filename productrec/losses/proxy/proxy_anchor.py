"""Proxy-Anchor: centres are the anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from productrec.losses.declared import ProxyLoss
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from productrec.losses.centres.proxy_module import ProxyModule


class ProxyAnchor(ProxyLoss):
    """Proxy-Anchor (Kim et al., CVPR 2020)."""

    formula = "of a centre: log(1 + sum_p e^(-alpha (p - margin))) + log(1 + sum_n e^(alpha (n + margin)))"
    source = "Kim et al., CVPR 2020"

    alpha: PositiveFloat = setting(32.0, "sharpness")
    margin: float = setting(0.1, "similarity margin")

    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> ProxyModule:
        """See `ProxyLoss.build`."""
        from productrec.losses.centres.proxy_anchor_module import ProxyAnchorModule

        return ProxyAnchorModule(self.alpha, self.margin, embedding_dim, class_count)
