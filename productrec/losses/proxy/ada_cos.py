"""AdaCos: a softmax over class centres that finds its own scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from productrec.losses.declared import ProxyLoss

if TYPE_CHECKING:
    from productrec.losses.centres.proxy_module import ProxyModule


class AdaCos(ProxyLoss):
    """AdaCos (Zhang et al., CVPR 2019); it has no settings."""

    formula = "normalised softmax whose scale follows the median angle of the batch"
    source = "Zhang et al., CVPR 2019"

    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> ProxyModule:
        """See `ProxyLoss.build`."""
        from productrec.losses.centres.ada_cos_module import AdaCosModule

        return AdaCosModule(embedding_dim, class_count)
