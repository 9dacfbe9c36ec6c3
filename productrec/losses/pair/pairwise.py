"""Pair losses: what each of the field's losses does with the similarities of an anchor's pairs.

Each is a few lines for the pair-weighting engine: ``compute_pair_loss(embeddings, labels, Circle())``. In the formulas
``p`` runs over the similarities of an anchor's positives, ``n`` over those of its negatives. Losses that rank each
positive among the negatives are in `ranking`, those of Euclidean distances in `euclidean`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from productrec.losses.engine.diagnostics import PairDiagnostics, diagnose_pairs
from productrec.losses.engine.log_sums import compute_log_one_plus_sum, compute_log_sum
from productrec.losses.engine.pair_loss import Mining, PairLoss, Weighed, check_above_zero
from productrec.losses.engine.pair_weighting import compute_pair_loss

_TINY = 1e-30


class PairwiseLoss(nn.Module):
    """`compute_pair_loss` with its loss and its mining held; no parameters."""

    def __init__(self, loss: PairLoss, mining: Mining | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.mining = mining

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        references: Tensor | None = None,
        reference_labels: Tensor | None = None,
        own_rows: Tensor | None = None,
    ) -> Tensor:
        """Scalar loss of embeddings (N, D) and labels (N,), among themselves or against references (M, D)."""
        return compute_pair_loss(
            embeddings,
            labels,
            self.loss,
            mining=self.mining,
            references=references,
            reference_labels=reference_labels,
            own_rows=own_rows,
        )

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """Which pairs of a batch (N, D) with labels (N,) are active, and how far its classes stand apart."""
        return diagnose_pairs(embeddings, labels, self.loss, mining=self.mining)

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return f"{self.loss}, mining={self.mining}"


@dataclass(frozen=True)
class MultiSimilarity:
    r"""Multi-Similarity (Wang et al., CVPR 2019, equation (15)), to be used with `MultiSimilarityMining`.

    .. math:: \frac{1}{\alpha} \log\big(1 + \sum_p e^{-\alpha (p - base)}\big)
              + \frac{1}{\beta} \log\big(1 + \sum_n e^{\beta (n - base)}\big)
    """

    alpha: float = 2.0
    beta: float = 50.0
    base: float = 0.5

    def __post_init__(self) -> None:
        """Refuse exponents that weigh nothing."""
        check_above_zero(self, "alpha", "beta")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        pulled = compute_log_one_plus_sum(positives, -self.alpha, self.base)
        pushed = compute_log_one_plus_sum(negatives, self.beta, self.base)
        return Weighed(
            pulled.values / self.alpha + pushed.values / self.beta,
            pulled.shares.mul_(-pushed.totals / pulled.totals),
            pushed.shares,
            scales=1 / pushed.totals,
        )


@dataclass(frozen=True)
class Contrastive:
    r"""Contrastive loss on similarities, with a margin on either side (Hadsell et al., CVPR 2006).

    .. math:: \sum_p [positive\_margin - p]_+ + \sum_n [n - negative\_margin]_+
    """

    positive_margin: float = 1.0
    negative_margin: float = 0.5

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        pulled = positives.neg_().add_(self.positive_margin).clamp_(min=0)
        pushed = negatives.sub_(self.negative_margin).clamp_(min=0)
        losses = pulled.sum(dim=1) + pushed.sum(dim=1)
        return Weighed(losses, pulled.sign_().neg_(), pushed.sign_())


@dataclass(frozen=True)
class BinomialDeviance:
    r"""Binomial deviance (Yi et al., ICPR 2014), as means over an anchor's positives and over its negatives.

    .. math:: \operatorname{mean}_p \log(1 + e^{-\alpha (p - base)})
              + \operatorname{mean}_n \log(1 + e^{\beta (n - base)})
    """

    alpha: float = 2.0
    beta: float = 40.0
    base: float = 0.5

    def __post_init__(self) -> None:
        """Refuse exponents that weigh nothing."""
        check_above_zero(self, "alpha", "beta")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        positive_count = (positives < torch.inf).sum(dim=1, keepdim=True, dtype=positives.dtype).clamp_(min=1)
        negative_count = (negatives > -torch.inf).sum(dim=1, keepdim=True, dtype=negatives.dtype).clamp_(min=1)
        pulled = positives.sub_(self.base).mul_(-self.alpha)
        pushed = negatives.sub_(self.base).mul_(self.beta)
        losses = (functional.softplus(pulled) / positive_count).sum(dim=1)
        losses += (functional.softplus(pushed) / negative_count).sum(dim=1)
        return Weighed(
            losses,
            pulled.sigmoid_().mul_(-self.alpha / positive_count),
            pushed.sigmoid_().mul_(self.beta / negative_count),
        )


@dataclass(frozen=True)
class LiftedStructure:
    r"""Lifted structure (Song et al., CVPR 2016), generalised to all positives (Hermans et al. 2017), on similarities.

    .. math:: \Big[ \log \sum_p e^{-scale \, p} + \log \sum_n e^{scale (n + margin)} \Big]_+ / scale

    The paper's form is in `euclidean`.
    """

    scale: float = 1.0
    margin: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a scale that weighs nothing."""
        check_above_zero(self, "scale")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        pulled = compute_log_sum(positives, -self.scale)
        pushed = compute_log_sum(negatives, self.scale)
        losses = (pulled.values + pushed.values + self.scale * self.margin).clamp_(min=0)
        return Weighed(
            losses / self.scale,
            pulled.shares.mul_(-pushed.totals / pulled.totals),
            pushed.shares,
            scales=losses.sign()[:, None] / pushed.totals,
        )


@dataclass(frozen=True)
class NTXent:
    r"""Normalised temperature-scaled cross-entropy (InfoNCE), the mean over positive pairs (Chen et al., ICML 2020).

    .. math:: \sum_p -\log \frac{e^{p / \tau}}{e^{p / \tau} + \sum_n e^{n / \tau}}

    """

    temperature: float = 0.07

    def __post_init__(self) -> None:
        """Refuse a temperature of zero."""
        check_above_zero(self, "temperature")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        rate = 1.0 / self.temperature
        count = (positives < torch.inf).sum(dim=1)
        against = compute_log_sum(negatives, rate)
        exponents = against.values[:, None] - positives.mul_(rate)
        wrong = exponents.sigmoid()  # no weight where there is no positive, or no negative: -inf both
        all_wrong = wrong.sum(dim=1, keepdim=True).clamp_(min=_TINY)
        pulled = wrong.mul_(-against.totals / all_wrong)
        losses = functional.softplus(exponents).sum(dim=1)
        return Weighed(losses, pulled, against.shares, count, all_wrong * rate / against.totals)


@dataclass(frozen=True)
class NPair(NTXent):
    r"""N-pair loss (Sohn, NeurIPS 2016): NT-Xent at temperature 1, over all positives of an anchor.

    .. math:: \log\Big(1 + \sum_n e^{n - p}\Big)
    """

    temperature: float = 1.0


@dataclass(frozen=True)
class SupCon:
    r"""Supervised contrastive loss, the mean outside the logarithm (Khosla et al., NeurIPS 2020, equation (2)).

    .. math:: \operatorname{mean}_p -\log \frac{e^{p / \tau}}{\sum_{p'} e^{p' / \tau} + \sum_n e^{n / \tau}}

    An anchor without positives has no loss, and counts in the mean over anchors.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a temperature of zero."""
        check_above_zero(self, "temperature")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        rate = 1.0 / self.temperature
        present = positives < torch.inf
        count = present.sum(dim=1, keepdim=True, dtype=positives.dtype)
        lonely = count[:, 0] == 0
        scaled = positives.masked_fill(~present, -torch.inf).mul_(rate)
        mean = scaled.masked_fill(~present, 0.0).sum(dim=1) / count[:, 0].clamp(min=1)
        among, against = compute_log_sum(scaled), compute_log_sum(negatives, rate)
        total = torch.logaddexp(among.values, against.values)
        losses = (total - mean).masked_fill(lonely, 0.0)
        positive_part = (among.values - total).exp().masked_fill(lonely, 0.0)[:, None]
        negative_part = (against.values - total).exp().masked_fill(lonely, 0.0)[:, None]
        pulled = among.shares.mul_(positive_part / among.totals).sub_(present / count.clamp(min=1))
        return Weighed(losses, pulled.mul_(rate), against.shares.mul_(negative_part * rate / against.totals))


@dataclass(frozen=True)
class Circle:
    r"""Circle loss (Sun et al., CVPR 2020, equation (6)): each similarity is paced by how far it is from its optimum.

    .. math:: \log\Big(1 + \sum_n e^{\gamma [n + m]_+ (n - m)} \sum_p e^{-\gamma [1 + m - p]_+ (p - 1 + m)}\Big)

    The bracketed paces carry no gradient. ``margin`` 0.25 and ``gamma`` 256 are the paper's for faces; for retrieval it
    has 0.4 and 80.
    """

    margin: float = 0.4
    gamma: float = 80.0
    needs_unit_norm: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse a scale that weighs nothing."""
        check_above_zero(self, "gamma")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        # Not 0: times the infinity of an absent pair that would be NaN.
        positive_pace = (1 + self.margin - positives).clamp_(min=_TINY).mul_(self.gamma)
        negative_pace = (negatives + self.margin).clamp_(min=_TINY).mul_(self.gamma)
        pulled = compute_log_sum(positives.sub_(1 - self.margin).mul_(positive_pace), -1.0)
        pushed = compute_log_sum(negatives.sub_(self.margin).mul_(negative_pace))
        both = pulled.values + pushed.values
        return Weighed(
            functional.softplus(both),
            pulled.shares.mul_(positive_pace).mul_(-pushed.totals / pulled.totals),
            pushed.shares.mul_(negative_pace),
            scales=both.sigmoid()[:, None] / pushed.totals,
        )
