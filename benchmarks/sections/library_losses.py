"""Two losses of pytorch-metric-learning at their defaults, declared as productrec's own losses are.

So any recipe can name them, as ``sections.library_losses:LibrarySoftTriple``, where code from outside is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from productrec.losses.declared import ProxyLoss
from productrec.losses.engine.module import MetricModule


class LibraryMultiSimilarity(ProxyLoss):
    """Multi-Similarity after its miner; it has no centres, but is built as losses with centres are."""

    formula = source = "pytorch-metric-learning"

    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> MetricModule:
        """See `ProxyLoss.build`."""
        from pytorch_metric_learning import losses, miners

        return _Library(losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner())


class LibrarySoftTriple(ProxyLoss):
    """SoftTriple without its regulariser, which the library leaves out by default."""

    formula = source = "pytorch-metric-learning"

    def build(self, embedding_dim: int, class_count: int, class_sizes: Sequence[int] | None = None) -> MetricModule:
        """See `ProxyLoss.build`."""
        from pytorch_metric_learning import losses

        return _Library(losses.SoftTripleLoss(class_count, embedding_dim))


class _Library(MetricModule):
    """A loss of the library, after its miner where it has one; what it learns are its centres."""

    def __init__(self, loss: nn.Module, miner: nn.Module | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.miner = miner
        self.needs_positives = miner is not None

    def forward(self, embeddings: Tensor, labels: Tensor, keys: Tensor | None = None) -> Tensor:
        """See `MetricModule.forward`."""
        mined = () if self.miner is None else (self.miner(embeddings, labels),)
        loss: Tensor = self.loss(embeddings, labels, *mined)
        return loss

    def iterate_centres(self) -> Iterator[nn.Parameter]:
        """See `MetricModule.iterate_centres`."""
        return self.loss.parameters()
