"""A loss over pairs as a module, with its mining held."""

from __future__ import annotations

from torch import Tensor

from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.diagnostics import PairDiagnostics, diagnose_pairs
from productrec.losses.engine.module import MetricModule
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.engine.weighing import Mining, PairWeighting


class PairModule(MetricModule):
    """`compute_pair_loss` with its loss and its mining held; no parameters."""

    def __init__(self, loss: PairWeighting, mining: Mining | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.mining = mining

    def forward(self, embeddings: Tensor, labels: Tensor, keys: Tensor | None = None) -> Tensor:
        """Scalar loss of embeddings (N, D) and labels (N,) among themselves."""
        return self.compare(Comparison(embeddings, labels))

    def compare(self, comparison: Comparison, *, both_ways: bool = False) -> Tensor:
        """Scalar loss of a comparison, in one direction or in both added up, see `compute_pair_loss`."""
        return compute_pair_loss(comparison, self.loss, mining=self.mining, both_ways=both_ways)

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """See `MetricModule.diagnose`."""
        return diagnose_pairs(Comparison(embeddings, labels), self.loss, mining=self.mining)

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return f"{self.loss!r}, mining={self.mining!r}"
