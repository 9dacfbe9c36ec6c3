"""Normalised softmax over class centres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from productrec.losses.declared import ProxyLoss
from productrec.settings.fields import PositiveFloat, setting

if TYPE_CHECKING:
    from productrec.losses.centres.proxy_module import ProxyModule


class NormalisedSoftmax(ProxyLoss):
    """Normalised softmax (Zhai and Wu, BMVC 2019)."""

    formula = "-log e^(p/t) / (e^(p/t) + sum_n e^(n/t))"
    source = "Zhai and Wu, BMVC 2019"

    temperature: PositiveFloat = setting(0.05, "similarities are divided by it")

    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> ProxyModule:
        """See `ProxyLoss.build`."""
        from productrec.losses.centres.margin_softmax import MarginSoftmax
        from productrec.losses.centres.proxy_module import ProxyModule

        return ProxyModule(MarginSoftmax(1.0 / self.temperature), embedding_dim, class_count)
