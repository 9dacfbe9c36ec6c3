"""A loss over pairs on a learned affine of the similarity.

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
    """A loss of logits, with learned ``log_scale`` (log a) and ``bias`` (b).

    Between unit vectors the squared distance is :math:`2 - 2 s`, so an affine of the one is an affine of the other.

    Args:
        loss: of the logits.
        scale: a at the start, above 0.
        bias: b at the start.
        mining: which pairs are weighed at all.
    """

    def __init__(self, loss: PairWeighting, scale: float, bias: float, mining: Mining | None = None) -> None:
        super().__init__(loss, mining)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def compare(self, comparison: Comparison) -> Tensor:
        """See `PairModule.compare`."""
        return super().compare(self._fold(comparison))

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """See `MetricModule.diagnose`."""
        seen = diagnose_pairs(self._fold(Comparison(embeddings, labels)), self.loss, mining=self.mining)
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

    def _fold(self, comparison: Comparison) -> Comparison:
        """Rows whose products are the logits: (N, D + 1) anchors and (M, D + 1) references."""
        embeddings, references, own_rows = comparison.embeddings, comparison.references, comparison.own_rows
        if references is None:
            references, own_rows = embeddings, torch.arange(len(embeddings), device=embeddings.device)
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = embeddings.float() if embeddings.dtype != torch.float64 else embeddings
            scale, bias = self.log_scale.to(rows.dtype).exp(), self.bias.to(rows.dtype)
            anchors = torch.cat([rows * scale, bias.expand(len(rows), 1)], dim=1)
            others = torch.cat([references.to(rows.dtype), rows.new_ones((len(references), 1))], dim=1)
        return Comparison(anchors, comparison.labels, others, comparison.compared_labels, own_rows)
