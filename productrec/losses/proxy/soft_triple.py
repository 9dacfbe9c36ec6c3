"""SoftTriple: several centres a class, relaxed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from productrec.losses.declared import ProxyLoss
from productrec.settings.fields import Count, Fraction, NonNegative, Positive, PositiveFloat, setting

if TYPE_CHECKING:
    from productrec.losses.centres.soft_triple import SoftTripleModule


class SoftTriple(ProxyLoss):
    """SoftTriple loss (Qian et al., ICCV 2019)."""

    formula = "-log softmax_y(scale (sum_k softmax_k(x w / gamma) x w - margin [y])) + tau mean centre distance"
    source = "Qian et al., ICCV 2019"

    centres_per_class: Positive = setting(10, "K, centres of each class")
    scale: PositiveFloat = setting(20.0, "lambda, inverse temperature of the softmax over classes")
    gamma: PositiveFloat = setting(0.1, "entropy weight: temperature of the softmax over centres")
    margin: NonNegative = setting(0.01, "similarity margin of the true class")
    tau: NonNegative = setting(0.2, "weight of the regulariser that merges centres")
    merge_every_epochs: Count = setting(0, "epochs between two merges of centres that came together; 0: never")
    merge_distance: Annotated[float, Field(ge=0, le=2)] = setting(
        0.2, "centres of a class joined by steps of at most this become one"
    )
    merge_tolerance: Fraction = setting(
        0.0, "fall of top-1 accuracy by centres, on validation images, above which a merge is taken back"
    )

    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> SoftTripleModule:
        """See `ProxyLoss.build`."""
        from productrec.losses.centres.soft_triple import SoftTripleModule

        return SoftTripleModule(self, embedding_dim, class_count)
