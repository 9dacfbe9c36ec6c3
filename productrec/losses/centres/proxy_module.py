"""Learned centres of classes, and the loss between them and a batch.

Proxy losses stand on the pair-weighting engine too, with centres as references (or, for Proxy-Anchor, as anchors), so
that no matrix of batch by classes is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.engine.batch import check_batch, check_label_range, choose_computing_dtype
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.diagnostics import PairDiagnostics, diagnose_pairs
from productrec.losses.engine.module import MetricModule
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.engine.weighing import PairWeighting


class ProxyModule(MetricModule):
    """A loss between embeddings and learned ``centres`` (C, K, D), of any length: they are brought to unit norm here.

    Args:
        loss: what is done with the similarities.
        embedding_dim: D.
        class_count: C.
        centres_per_class: K.
    """

    needs_positives = False  # a centre stands for a class

    def __init__(self, loss: PairWeighting, embedding_dim: int, class_count: int, centres_per_class: int = 1) -> None:
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

    def forward(self, embeddings: Tensor, labels: Tensor, keys: Tensor | None = None) -> Tensor:
        """Scalar loss of embeddings (B, D) and labels (B,), class positions from 0 to C - 1.

        Raises:
            TrainingError: shapes do not fit, or labels are out of range (on the CPU).
        """
        return compute_pair_loss(*self._pose(embeddings, labels))

    def iterate_centres(self) -> Iterator[nn.Parameter]:
        """See `MetricModule.iterate_centres`."""
        return iter((self.centres,))

    def get_centres(self) -> dict[str, Tensor]:
        """See `MetricModule.get_centres`."""
        return {"centres": self.state_dict()["centres"]}

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """Look at the pairs of embeddings (B, D) and centres, whose rows are C K, class by class."""
        return diagnose_pairs(*self._pose(embeddings, labels))

    def _pose(self, embeddings: Tensor, labels: Tensor) -> tuple[Comparison, PairWeighting]:
        """What the batch is compared with, and by which loss: what trains is what is diagnosed."""
        centres, classes = self._prepare(embeddings, labels)
        return Comparison(embeddings, labels, centres, classes), self.loss

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
