"""A loss over pairs with learned thresholds: one of each class, or one of all."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from productrec.losses.engine.batch import check_label_range
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.diagnostics import PairDiagnostics, diagnose_pairs
from productrec.losses.engine.pair_module import PairModule
from productrec.losses.engine.weighing import Mining, ThresholdWeighting


class ThresholdPairModule(PairModule):
    """A loss with learned ``thresholds`` (C,), of which each anchor has its class's, or (1,), the same for all.

    They learn at the heads' rate.

    Args:
        loss: that takes a threshold an anchor.
        start: what they begin with.
        count: C, or 1 for all.
        mining: which pairs are weighed at all.
    """

    def __init__(self, loss: ThresholdWeighting, start: float, count: int, mining: Mining | None = None) -> None:
        super().__init__(loss, mining)
        self.thresholds = nn.Parameter(torch.full((count,), float(start)))

    def compare(self, comparison: Comparison, *, both_ways: bool = False) -> Tensor:
        """See `PairModule.compare`; labels are class positions, 0 to C - 1."""
        there = super().compare(self._add_thresholds(comparison))
        return there + self.compare(comparison.swap()) if both_ways else there

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """See `MetricModule.diagnose`."""
        return diagnose_pairs(self._add_thresholds(Comparison(embeddings, labels)), self.loss, mining=self.mining)

    def _add_thresholds(self, comparison: Comparison) -> Comparison:
        labels = comparison.labels
        if len(self.thresholds) == 1:
            return replace(comparison, thresholds=self.thresholds.expand(len(labels)))
        check_label_range("thresholds of classes", labels, len(self.thresholds))
        return replace(comparison, thresholds=self.thresholds[labels.long()])

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return f"{super().extra_repr()}, thresholds={tuple(self.thresholds.shape)}"
