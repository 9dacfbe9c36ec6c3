"""What training asks of a metric loss: a module with a few things that it may have, and that most have not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor, nn

from productrec.losses.engine.diagnostics import PairDiagnostics


class MetricModule(nn.Module, ABC):
    """A metric loss as training uses it; a loss says otherwise where it differs from what stands here.

    ``momentum``: decay per step of the momentum encoder whose keys it wants; 0 for none. ``needs_positives``: whether
    an image without another of its class teaches nothing.
    """

    momentum: float = 0.0
    needs_positives: bool = True

    @abstractmethod
    def forward(self, embeddings: Tensor, labels: Tensor, keys: Tensor | None = None) -> Tensor:
        """Scalar loss of embeddings (N, D) and labels (N,).

        Args:
            embeddings: of the batch.
            labels: class positions, integers.
            keys: (N, D) what the momentum encoder says of the same images, where there is one.
        """

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics | None:
        """Which pairs of a batch (N, D) with labels (N,) are active; None where the loss looks at none."""
        return None

    def iterate_centres(self) -> Iterator[nn.Parameter]:
        """Parameters that learn at the centres' rate."""
        return iter(())

    def get_centres(self) -> dict[str, Tensor]:
        """What a checkpoint keeps for prototypes: ``centres`` (C, K, D), and ``sizes`` (C, K) where some are merged."""
        return {}

    def list_statistics(self) -> list[Tensor]:
        """Buffers that a forward pass may move, to be put back where its step is not taken."""
        return list(self.buffers())

    def forget_last(self) -> None:
        """Undo what the last batch left in a memory: its step is not taken."""
