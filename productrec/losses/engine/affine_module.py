"""A loss over pairs on a learned affine of the similarity, or on a learned multiple of it.

The affine is folded into the embeddings, so that its gradient comes through them: a s + b is the product of (a e, b)
with (r, 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.diagnostics import PairDiagnostics, diagnose_pairs
from productrec.losses.engine.pair_module import PairModule
from productrec.losses.engine.weighing import Mining, PairWeighting


class AffinePairModule(PairModule):
    """A loss of logits, with learned ``log_scale`` (log a) and ``bias`` (b, where there is one).

    Between unit vectors the squared distance is :math:`2 - 2 s`, so an affine of the one is an affine of the other.

    Args:
        loss: of the logits.
        scale: a at the start, above 0.
        bias: b at the start; None for logits without.
        mining: which pairs are weighed at all.
        most_scale: a is brought back to this before a training batch is looked at, as CLIP does after each step.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        loss: PairWeighting,
        scale: float,
        bias: float | None,
        mining: Mining | None = None,
        *,
        most_scale: float = math.inf,
    ) -> None:
        super().__init__(loss, mining)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.register_parameter("bias", None if bias is None else nn.Parameter(torch.tensor(float(bias))))
        self._most_log_scale = math.log(most_scale)

    def compare(self, comparison: Comparison, *, both_ways: bool = False) -> Tensor:
        """See `PairModule.compare`."""
        return super().compare(self._fold(comparison), both_ways=both_ways)

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """See `MetricModule.diagnose`."""
        seen = diagnose_pairs(self._fold(Comparison(embeddings, labels)), self.loss, mining=self.mining)
        scale = self.log_scale.exp().item()
        bias = 0.0 if self.bias is None else self.bias.item()

        def undo(logit: float) -> float:
            return (logit - bias) / scale

        hardest = [
            None if pair is None else pair._replace(similarity=undo(pair.similarity))
            for pair in (seen.hardest_positive, seen.hardest_negative)
        ]
        return PairDiagnostics(
            seen.active_share, undo(seen.positive_similarity), undo(seen.negative_similarity), *hardest
        )

    def _fold(self, comparison: Comparison) -> Comparison:
        """Rows whose products are the logits: (N, D + 1) anchors and (M, D + 1) references, or D without a bias."""
        embeddings, references, own_rows = comparison.embeddings, comparison.references, comparison.own_rows
        if references is None:
            references, own_rows = embeddings, torch.arange(len(embeddings), device=embeddings.device)
        if self.training and self._most_log_scale < math.inf:
            with torch.no_grad():
                self.log_scale.clamp_(max=self._most_log_scale)
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = embeddings.float() if embeddings.dtype != torch.float64 else embeddings
            anchors, others = rows * self.log_scale.to(rows.dtype).exp(), references.to(rows.dtype)
            if self.bias is not None:
                anchors = torch.cat([anchors, self.bias.to(rows.dtype).expand(len(rows), 1)], dim=1)
                others = torch.cat([others, rows.new_ones((len(references), 1))], dim=1)
        return Comparison(anchors, comparison.labels, others, comparison.compared_labels, own_rows)
