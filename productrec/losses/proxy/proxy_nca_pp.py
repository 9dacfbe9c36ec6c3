"""Proxy-NCA++: Proxy-NCA with the true class in the denominator, at a low temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from productrec.losses.declared import ProxyLoss
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from productrec.losses.centres.proxy_module import ProxyModule


class ProxyNCAPlusPlus(ProxyLoss):
    """Proxy-NCA++ (Teh et al., ECCV 2020); the temperature divides squared distances, 2 - 2 s, as in the paper."""

    formula = "-log e^(2 p/t) / (e^(2 p/t) + sum_n e^(2 n/t))"
    source = "Teh et al., ECCV 2020"

    temperature: PositiveFloat = setting(1 / 9, "squared distances are divided by it; 1/9 in the paper")

    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> ProxyModule:
        """See `ProxyLoss.build`."""
        from productrec.losses.centres.margin_softmax import MarginSoftmax
        from productrec.losses.centres.proxy_module import ProxyModule

        return ProxyModule(MarginSoftmax(2.0 / self.temperature), embedding_dim, class_count)
