"""Softmax over class centres, with and without a margin for the true class: what several proxy losses compute."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.engine.log_sums import compute_log_sum
from productrec.losses.engine.weighing import ThresholdWeighting, Weighed


@dataclass(frozen=True)
class MarginSoftmax(ThresholdWeighting):
    r"""Softmax over the cosine similarities to class centres, with a margin for the true class.

    .. math:: -\log \frac{e^{scale \, \phi(p)}}{e^{scale \, \phi(p)} + \sum_n e^{scale \, n}}

    with p the similarity to the true class's nearest centre, n those to the nearest centre of every other class, and
    :math:`\phi(p) = \cos(\arccos p + margin\_rad) - margin`. ``margin_rad`` is ArcFace's (Deng et al., CVPR 2019;
    with several centres a class: Deng et al., ECCV 2020), ``margin`` CosFace's (Wang et al., CVPR 2018); without either
    it is the normalised softmax (Zhai and Wu, BMVC 2019). Thresholds are margins of angle, one an anchor, in place of
    ``margin_rad``; they learn nothing.

    Where the angle with its margin would pass pi, :math:`\phi` goes on as :math:`p - margin\_rad \sin(margin\_rad)`, as
    in the authors' code, and stays monotone. Its slope is infinite at p = 1; there and at -1, within rounding, the sine
    counts as zero and its slope too.
    """

    scale: float = 20.0
    margin: float = 0.0
    margin_rad: float | Tensor = 0.0
    centres_per_class: int = 1

    @property
    def needs_unit_norm(self) -> bool:  # type: ignore[override]
        """Only then is a similarity a cosine, to which an angle can be added."""
        return isinstance(self.margin_rad, Tensor) or self.margin_rad > 0

    def __post_init__(self) -> None:
        """Refuse a scale that weighs nothing and an angle that turns a class around."""
        angle_fits = isinstance(self.margin_rad, Tensor) or 0 <= self.margin_rad < math.pi / 2
        if not self.scale > 0 or not angle_fits or self.centres_per_class < 1:
            raise RecipeError(
                "margin softmax: scale must be above 0, margin_rad from 0 to below pi / 2, centres_per_class at least "
                f"1; got {self.scale}, {self.margin_rad} and {self.centres_per_class}. Angles are in radians."
            )

    def weigh(self, positives: Tensor, negatives: Tensor, thresholds: Tensor | None = None) -> Weighed:
        """See `ThresholdWeighting.weigh`; the references are the centres, class by class."""
        if thresholds is not None:
            return replace(self, margin_rad=thresholds[:, None]).weigh(positives, negatives)
        nearest, own = positives.masked_fill(positives == torch.inf, -torch.inf).max(dim=1, keepdim=True)
        turned, slope = self._turn(nearest)
        rows, columns = negatives.shape
        chosen: Tensor | None = None
        others = negatives
        if self.centres_per_class > 1:
            others, chosen = negatives.view(rows, columns // self.centres_per_class, -1).max(dim=2)
        against = compute_log_sum(others, self.scale)
        exponents = against.values[:, None] - self.scale * turned
        wrong = exponents.sigmoid()
        pushed = against.shares.mul_(wrong * self.scale / against.totals)
        if chosen is not None:
            spread = negatives.zero_().view(rows, -1, self.centres_per_class)
            pushed = spread.scatter_(2, chosen[:, :, None], pushed[:, :, None]).view(rows, columns)
        pulled = torch.zeros_like(positives).scatter_(1, own, wrong * slope * -self.scale)
        return Weighed(functional.softplus(exponents)[:, 0], pulled, pushed)

    def _turn(self, similarities: Tensor) -> tuple[Tensor, Tensor]:
        """The true class's similarity with its margin, and the slope of that."""
        if not self.needs_unit_norm:
            return similarities - self.margin, torch.ones_like(similarities)
        angle = torch.as_tensor(self.margin_rad, dtype=similarities.dtype, device=similarities.device)
        cosine, sine = angle.cos(), angle.sin()
        squared = 1 - similarities * similarities
        apart = squared > 16 * torch.finfo(squared.dtype).eps
        height = torch.where(apart, squared, 0.0).sqrt()
        turned = similarities * cosine - height * sine
        slope = cosine + torch.where(apart, similarities / height.clamp(min=1e-12), 0.0) * sine
        inside = similarities > -cosine
        turned = torch.where(inside, turned, similarities - angle * sine)
        return turned - self.margin, torch.where(inside, slope, 1.0)
