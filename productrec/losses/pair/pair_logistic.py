"""Logistic loss of each pair, on a learned affine of its similarity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.engine.diagnostics import PairDiagnostics, diagnose_pairs
from productrec.losses.engine.pair_loss import Mining, Weighed
from productrec.losses.pair.pairwise import PairwiseLoss


@dataclass(frozen=True)
class Logistic:
    r"""Logistic loss of each pair; learned by `PairLogisticLoss`, whose products are the logits already.

    .. math:: \sum_p \log(1 + e^{-(scale \, p + bias)}) + \sum_n \log(1 + e^{scale \, n + bias})
    """

    scale: float = 1.0
    bias: float = 0.0

    def weigh(self, positives: Tensor, negatives: Tensor) -> Weighed:
        """See `PairLoss.weigh`."""
        if (self.scale, self.bias) != (1.0, 0.0):
            positives.mul_(self.scale).add_(self.bias)
            negatives.mul_(self.scale).add_(self.bias)
        losses = functional.softplus(-positives).sum(dim=1) + functional.softplus(negatives).sum(dim=1)
        scales = losses.new_full((len(losses), 1), self.scale)
        return Weighed(losses, positives.neg_().sigmoid_().neg_(), negatives.sigmoid_(), scales=scales)


class PairLogisticLoss(PairwiseLoss):
    r"""Logistic loss on a learned affine of the similarity (Zhai et al., ICCV 2023, "sigmoid loss").

    .. math:: \sum_p \log(1 + e^{-(a p + b)}) + \sum_n \log(1 + e^{a n + b})

    with learned ``log_scale`` (log a) and ``bias`` (b). Between unit vectors the squared distance is :math:`2 - 2 s`,
    so an affine of the one is an affine of the other. The affine is folded into the embeddings, so that its gradient
    comes through them: :math:`a s + b` is the product of :math:`(a e, b)` with :math:`(r, 1)`.

    Args:
        scale: a at the start.
        bias: b at the start; below 0, because most pairs are negatives.
    """

    def __init__(self, scale: float = 10.0, bias: float = -10.0, *, mining: Mining | None = None) -> None:
        if not scale > 0:
            raise RecipeError(f"pair logistic loss: scale must be above 0; got {scale}. The paper starts at 10.")
        super().__init__(Logistic(), mining)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        references: Tensor | None = None,
        reference_labels: Tensor | None = None,
        own_rows: Tensor | None = None,
    ) -> Tensor:
        """See `PairwiseLoss.forward`."""
        if references is None:
            references, reference_labels = embeddings, labels
            own_rows = torch.arange(len(labels), device=labels.device)
        rows, others = self._fold(embeddings, references)
        return super().forward(rows, labels, others, reference_labels, own_rows)

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """See `PairwiseLoss.diagnose`."""
        rows, others = self._fold(embeddings, embeddings)
        own_rows = torch.arange(len(labels), device=labels.device)
        seen = diagnose_pairs(
            rows,
            labels,
            self.loss,
            mining=self.mining,
            references=others,
            reference_labels=labels,
            own_rows=own_rows,
        )
        scale, bias = self.log_scale.exp().item(), self.bias.item()

        def undo(logit: float) -> float:
            return (logit - bias) / scale

        hardest = [
            None if pair is None else pair._replace(similarity=undo(pair.similarity))
            for pair in (seen.hardest_positive, seen.hardest_negative)
        ]
        return PairDiagnostics(
            seen.active_share, undo(seen.positive_similarity), undo(seen.negative_similarity), *hardest
        )

    def _fold(self, embeddings: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
        """Rows whose products are the logits, (N, D + 1) and (M, D + 1)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = embeddings.float() if embeddings.dtype != torch.float64 else embeddings
            scale, bias = self.log_scale.to(rows.dtype).exp(), self.bias.to(rows.dtype)
            logits_of = torch.cat([rows * scale, bias.expand(len(rows), 1)], dim=1)
            others = torch.cat([references.to(rows.dtype), rows.new_ones((len(references), 1))], dim=1)
        return logits_of, others
