"""Softmax over class centres, with and without a margin for the true class: the classification-like proxy losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.engine.log_sums import compute_log_sum
from productrec.losses.engine.pair_loss import Weighed
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.proxy.proxy import Comparison, ProxyLoss


@dataclass(frozen=True)
class MarginSoftmax:
    r"""Softmax over the cosine similarities to class centres, with a margin for the true class.

    .. math:: -\log \frac{e^{scale \, \phi(p)}}{e^{scale \, \phi(p)} + \sum_n e^{scale \, n}}

    with p the similarity to the true class's nearest centre, n those to the nearest centre of every other class, and
    :math:`\phi(p) = \cos(\arccos p + margin\_rad) - margin`. ``margin_rad`` is ArcFace's (Deng et al., CVPR 2019;
    with several centres a class: Deng et al., ECCV 2020), ``margin`` CosFace's (Wang et al., CVPR 2018); without either
    it is the normalised softmax (Zhai and Wu, BMVC 2019). ``margin_rad`` may be a tensor (N,), one an anchor.

    Where the angle with its margin would pass pi, :math:`\phi` goes on as :math:`p - margin\_rad \sin(margin\_rad)`, as
    in the authors' code, and stays monotone. Its slope is infinite at p = 1; there and at -1, within rounding, the sine
    counts as zero and its slope too.
    """

    scale: float = 20.0
    margin: float = 0.0
    margin_rad: float | Tensor = 0.0
    centres_per_class: int = 1

    @property
    def needs_unit_norm(self) -> bool:
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

    def for_anchors(self, start: int, stop: int) -> MarginSoftmax:
        """The loss of a block of anchors, with their own margins."""
        if not isinstance(self.margin_rad, Tensor):
            return self
        return replace(self, margin_rad=self.margin_rad[start:stop, None])

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`; the references are the centres, class by class."""
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


class NormalisedSoftmaxLoss(ProxyLoss):
    """Normalised softmax (Zhai and Wu, BMVC 2019)."""

    def __init__(self, embedding_dim: int, class_count: int, *, temperature: float = 0.05) -> None:
        if not temperature > 0:
            raise RecipeError(f"normalised softmax: temperature must be above 0; got {temperature}. 0.05 is common.")
        super().__init__(MarginSoftmax(1.0 / temperature), embedding_dim, class_count)


class CosFaceLoss(ProxyLoss):
    """CosFace (Wang et al., CVPR 2018)."""

    def __init__(self, embedding_dim: int, class_count: int, *, scale: float = 64.0, margin: float = 0.35) -> None:
        super().__init__(MarginSoftmax(scale, margin), embedding_dim, class_count)


class AdaCosLoss(ProxyLoss):
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

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """See `ProxyLoss.forward`; in training the batch sets the scale first."""
        posed = super()._pose(embeddings, labels)
        centres = posed.references
        if self.training and len(centres) > 1:
            with torch.autocast(embeddings.device.type, enabled=False):
                self.scale.copy_(self._find_scale(embeddings.detach().to(centres.dtype), labels, centres.detach()))
        return compute_pair_loss(**self._scale(posed)._asdict())

    def _pose(self, embeddings: Tensor, labels: Tensor) -> Comparison:
        return self._scale(super()._pose(embeddings, labels))

    def _scale(self, posed: Comparison) -> Comparison:
        """By the current scale, which is not the first one."""
        return posed._replace(loss=MarginSoftmax(float(self.scale)))

    def _find_scale(self, embeddings: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
        similarities = embeddings @ centres.T
        labels = labels.long()[:, None]
        angles = similarities.gather(1, labels).clamp(-1.0, 1.0).arccos()
        others = similarities.mul_(self.scale).scatter_(1, labels, -torch.inf).logsumexp(dim=1)
        middle = others.logsumexp(dim=0) - math.log(len(others))
        found = (middle / angles.median().clamp(max=math.pi / 4).cos()).clamp(min=1.0)
        return torch.where(found.isfinite(), found, self.scale)  # of embeddings that are not; the loss will tell


class ArcFaceLoss(ProxyLoss):
    r"""ArcFace (Deng et al., CVPR 2019); with several centres a class, sub-centre ArcFace (Deng et al., ECCV 2020).

    With ``class_sizes`` (C,), the training images of each class, and a ``margin_power`` :math:`\lambda` above 0, the
    margin is dynamic (Ha et al. 2020, third place of Google Landmark Recognition): small classes get a larger one,

    .. math:: margin\_rad_c = least\_margin\_rad + (margin\_rad - least\_margin\_rad) \, n_c^{-\lambda}

    (the authors: 0.05, 0.5 and a power of 1/4).
    """

    class_margins: Tensor | None

    def __init__(
        self,
        embedding_dim: int,
        class_count: int,
        centres_per_class: int = 1,
        *,
        scale: float = 64.0,
        margin_rad: float = 0.5,
        margin_power: float = 0.0,
        least_margin_rad: float = 0.05,
        class_sizes: Sequence[int] | None = None,
    ) -> None:
        loss = MarginSoftmax(scale, 0.0, margin_rad, centres_per_class)
        super().__init__(loss, embedding_dim, class_count, centres_per_class)
        self.register_buffer("class_margins", None)
        if margin_power > 0:
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
            shares = torch.tensor([max(1, size) for size in class_sizes], dtype=torch.float32).pow(-margin_power)
            self.class_margins = least_margin_rad + (margin_rad - least_margin_rad) * shares

    def _pose(self, embeddings: Tensor, labels: Tensor) -> Comparison:
        """Each anchor has its class's margin."""
        posed = super()._pose(embeddings, labels)
        if self.class_margins is None:
            return posed
        loss = replace(cast(MarginSoftmax, self.loss), margin_rad=self.class_margins[labels.long()])
        return posed._replace(loss=loss)


class ProxyNCAPlusPlusLoss(ProxyLoss):
    """Proxy-NCA++ (Teh et al., ECCV 2020): the true class is in the denominator, at a low temperature.

    The temperature divides squared distances, 2 - 2 s, as in the paper.
    """

    def __init__(self, embedding_dim: int, class_count: int, *, temperature: float = 1 / 9) -> None:
        if not temperature > 0:
            raise RecipeError(f"Proxy-NCA++: temperature must be above 0; got {temperature}. The paper has 1/9.")
        super().__init__(MarginSoftmax(2.0 / temperature), embedding_dim, class_count)
