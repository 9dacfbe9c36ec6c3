"""Proxy losses: each class has learned centres, and an embedding's pairs are those with the centres.

They stand on the pair-weighting engine too, with centres as references (or, for Proxy-Anchor, as anchors), so that no
matrix of batch by classes is kept for the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.engine.batch import check_batch, check_label_range, choose_computing_dtype
from productrec.losses.engine.diagnostics import PairDiagnostics, diagnose_pairs
from productrec.losses.engine.log_sums import compute_log_one_plus_sum, compute_log_sum
from productrec.losses.engine.pair_loss import PairLoss, Weighed
from productrec.losses.engine.pair_weighting import compute_pair_loss


@dataclass(frozen=True)
class ProxyNCA:
    r"""Proxy-NCA (Movshovitz-Attias et al., ICCV 2017): the true class is not in the denominator.

    .. math:: -scale \, p + \log \sum_n e^{scale \, n}

    With unit vectors, ``scale`` 2 is the paper's squared Euclidean distance.
    """

    scale: float = 2.0

    def __post_init__(self) -> None:
        """Refuse a scale that weighs nothing."""
        if not self.scale > 0:
            raise RecipeError(f"Proxy-NCA: scale must be above 0; got {self.scale}. The paper's distance is 2.")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        against = compute_log_sum(negatives, self.scale)
        # With a single class there is nothing to tell apart: no loss, and no weight.
        active = (against.values > -torch.inf)[:, None]
        present = (positives < torch.inf) & active
        nearest = positives.masked_fill(~present, 0.0)
        losses = (against.values - self.scale * nearest.sum(dim=1)).masked_fill(~active[:, 0], 0.0)
        return Weighed(losses, present.to(losses.dtype) * -self.scale, against.shares.mul_(self.scale / against.totals))


@dataclass(frozen=True)
class ProxyAnchor:
    r"""Proxy-Anchor (Kim et al., CVPR 2020): centres are the anchors, the batch holds their positives and negatives.

    .. math:: \frac{1}{|P^+|} \sum_{c \in P^+} \log\Big(1 + \sum_p e^{-alpha (p - margin)}\Big)
              + \frac{1}{C} \sum_c \log\Big(1 + \sum_n e^{alpha (n + margin)}\Big)

    with :math:`P^+` the classes in the batch; ``positive_share`` is C over their number, and set by the module.
    """

    alpha: float = 32.0
    margin: float = 0.1
    positive_share: float | Tensor = 1.0

    def __post_init__(self) -> None:
        """Refuse an exponent that weighs nothing."""
        if not self.alpha > 0:
            raise RecipeError(f"Proxy-Anchor: alpha must be above 0; got {self.alpha}. The paper has 32.")

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`; anchors are centres."""
        pulled = compute_log_one_plus_sum(positives, -self.alpha, self.margin)
        pushed = compute_log_one_plus_sum(negatives, self.alpha, -self.margin)
        return Weighed(
            pulled.values * self.positive_share + pushed.values,
            pulled.shares.mul_(-self.positive_share * pushed.totals / pulled.totals),
            pushed.shares,
            scales=self.alpha / pushed.totals,
        )


class Comparison(NamedTuple):
    """Arguments of `compute_pair_loss`, and of `diagnose_pairs`."""

    embeddings: Tensor
    labels: Tensor
    loss: PairLoss
    references: Tensor
    reference_labels: Tensor


class ProxyLoss(nn.Module):
    """A loss between embeddings and learned ``centres`` (C, K, D), of any length: they are brought to unit norm here.

    Args:
        loss: what is done with the similarities.
        embedding_dim: D.
        class_count: C.
        centres_per_class: K.
    """

    def __init__(self, loss: PairLoss, embedding_dim: int, class_count: int, centres_per_class: int = 1) -> None:
        super().__init__()
        if min(embedding_dim, class_count, centres_per_class) < 1:
            raise RecipeError(
                "proxy loss: embedding_dim, class_count and centres_per_class must be at least 1; "
                f"got {embedding_dim}, {class_count} and {centres_per_class}."
            )
        self.loss = loss
        self.centres = nn.Parameter(torch.empty(class_count, centres_per_class, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the centres anew from torch's global generator: directions evenly, of about unit length."""
        nn.init.normal_(self.centres, std=self.centres.shape[2] ** -0.5)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of embeddings (B, D) and labels (B,), class positions from 0 to C - 1.

        Raises:
            TrainingError: shapes do not fit, or labels are out of range (on the CPU).
        """
        return compute_pair_loss(**self._pose(embeddings, labels)._asdict())

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """Look at the pairs of embeddings (B, D) and centres, whose rows are C K, class by class."""
        return diagnose_pairs(**self._pose(embeddings, labels)._asdict())

    def _pose(self, embeddings: Tensor, labels: Tensor) -> Comparison:
        """What the batch is compared with, and by which loss: what trains is what is diagnosed."""
        centres, classes = self._prepare(embeddings, labels)
        return Comparison(embeddings, labels, self.loss, centres, classes)

    def _prepare(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Check the batch; unit centres (C K, D) in the computing type, and the class of each."""
        check_batch("proxy loss", embeddings, labels)
        class_count, centres_per_class, _ = self.centres.shape
        check_label_range("proxy loss", labels, class_count)
        with torch.autocast(embeddings.device.type, enabled=False):
            dtype = choose_computing_dtype(embeddings, self.centres)
            centres = functional.normalize(self.centres.to(dtype).flatten(0, 1), dim=1)
        return centres, torch.arange(class_count, device=labels.device).repeat_interleave(centres_per_class)

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return f"{self.loss}, centres={tuple(self.centres.shape)}"


class ProxyNCALoss(ProxyLoss):
    """Proxy-NCA (Movshovitz-Attias et al., ICCV 2017)."""

    def __init__(self, embedding_dim: int, class_count: int, *, scale: float = 2.0) -> None:
        super().__init__(ProxyNCA(scale), embedding_dim, class_count)


class ProxyAnchorLoss(ProxyLoss):
    """Proxy-Anchor (Kim et al., CVPR 2020)."""

    loss: ProxyAnchor

    def __init__(self, embedding_dim: int, class_count: int, *, alpha: float = 32.0, margin: float = 0.1) -> None:
        super().__init__(ProxyAnchor(alpha, margin), embedding_dim, class_count)

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """See `ProxyLoss.diagnose`; in a pair, the anchor is a centre and the reference an image of the batch."""
        return super().diagnose(embeddings, labels)

    def _pose(self, embeddings: Tensor, labels: Tensor) -> Comparison:
        """Centres are the anchors here."""
        centres, classes = self._prepare(embeddings, labels)
        present = centres.new_zeros(len(classes)).index_fill_(0, labels.long(), 1.0).sum()
        loss = replace(self.loss, positive_share=len(classes) / present)
        return Comparison(centres, classes, loss, embeddings, labels)
