"""ArcFace: a softmax over class centres with a margin of angle; sub-centre ArcFace with several centres a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from productrec.losses.declared import ProxyLoss
from productrec.settings.fields import NonNegative, Positive, PositiveFloat, setting

if TYPE_CHECKING:
    from productrec.losses.centres.proxy_module import ProxyModule

_Angle = Annotated[float, Field(ge=0, lt=1.57)]


class ArcFace(ProxyLoss):
    """ArcFace (Deng et al., CVPR 2019); with several centres a class sub-centre ArcFace (Deng et al., ECCV 2020)."""

    formula = (
        "normalised softmax, scale cos(arccos p + margin_rad) in place of scale p; nearest of several centres; with "
        "margin_power > 0 the margin is smaller for classes of many images"
    )
    source = "Deng et al., CVPR 2019 and ECCV 2020"

    centres_per_class: Positive = setting(1, "K, centres of each class; 3 in the sub-centre paper")
    scale: PositiveFloat = setting(64.0, "inverse temperature")
    margin_rad: _Angle = setting(0.5, "angle added to the true class's")
    margin_power: NonNegative = setting(
        0.0, "above 0 the margin shrinks with the class's training images n, by n^-power; 0.25 is common"
    )
    least_margin_rad: _Angle = setting(0.05, "margin of a class of very many images, where it shrinks")

    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> ProxyModule:
        """See `ProxyLoss.build`."""
        from productrec.losses.centres.arc_face_module import ArcFaceModule

        return ArcFaceModule(self, embedding_dim, class_count, class_sizes)
