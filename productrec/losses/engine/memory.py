"""Memory: pairs across batches, from a ring buffer of what the network said lately."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from productrec.errors import RecipeError, TrainingError
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.diagnostics import PairDiagnostics
from productrec.losses.engine.module import MetricModule
from productrec.losses.engine.pair_module import PairModule
from productrec.losses.engine.ring import RingPlaces


class CrossBatchMemory(MetricModule):
    """A pair loss over the batch, plus the same loss of the batch against the last ``rows`` embeddings.

    Source: Wang et al., *Cross-Batch Memory for Embedding Learning*, CVPR 2020 (XBM). Embeddings drift slowly once
    training has settled, so those of past batches serve as references, without gradient; before ``start_step`` batches
    there is no memory. The batch is put in before it is compared, as in the paper; each row knows its place, so no
    row is its own positive, while an older embedding of the same image is one.

    The buffer, how far it is filled and the count of batches are part of the state dict. Only training batches enter.

    With a ``momentum`` above 0 it is MoCo's queue (He et al., CVPR 2020) with labels: what is remembered, and compared
    with, are keys, which a moving average of the network gives for the same images; they drift less. Whoever trains
    keeps that average and hands its keys over. As there, an image's own key is a positive of it: another network said
    it, so that it is no copy, and with one image a class it is the only positive there is.

    Args:
        loss: of pairs.
        rows: M, embeddings remembered; at least a batch.
        embedding_dim: D.
        start_step: batches seen before the first is remembered.
        weight: of the term against the memory.
        momentum: decay per step of the momentum encoder; 0 for none.
    """

    embeddings: Tensor
    labels: Tensor

    def __init__(
        self,
        loss: PairModule,
        *,
        rows: int,
        embedding_dim: int,
        start_step: int = 1000,
        weight: float = 1.0,
        momentum: float = 0.0,
    ) -> None:
        super().__init__()
        if rows < 1 or start_step < 0 or not weight > 0 or not 0 <= momentum < 1:
            raise RecipeError(
                "memory: rows must be at least 1, start_step at least 0, weight above 0 and momentum from 0 to below "
                f"1; got {rows}, {start_step}, {weight} and {momentum}."
            )
        self.momentum = momentum
        self.needs_positives = not momentum  # where an image's own key is one
        self.loss = loss
        self.start_step = start_step
        self.weight = weight
        self.register_buffer("embeddings", torch.zeros(rows, embedding_dim))
        self.register_buffer("labels", torch.zeros(rows, dtype=torch.int64))
        self._steps = self._steps_before = 0
        self._places = RingPlaces(rows)

    def forward(self, embeddings: Tensor, labels: Tensor, keys: Tensor | None = None) -> Tensor:
        """Scalar loss of embeddings (N, D) and labels (N,).

        Args:
            embeddings: of the batch.
            labels: of the batch.
            keys: (N, D) what the momentum encoder says of the same images, in training.

        Raises:
            TrainingError: the batch does not fit the memory, or keys are missing.
        """
        loss: Tensor = self.loss(embeddings, labels)
        if not self.training:
            return loss
        if (keys is None) == (self.momentum > 0):
            raise TrainingError(
                f"memory: with momentum {self.momentum} it must {'be given' if self.momentum else 'not be given'} keys."
            )
        self._steps_before = self._steps
        self._places.begin()
        self._steps += 1
        if self._steps <= self.start_step:
            return loss
        slots = self._remember((embeddings if keys is None else keys).detach(), labels)
        own_rows = slots if keys is None else None
        known = slice(0, self._places.filled)
        comparison = Comparison(embeddings, labels, self.embeddings[known], self.labels[known], own_rows)
        against = self.loss.compare(comparison)
        return loss + self.weight * against

    def list_statistics(self) -> list[Tensor]:
        """None: what a batch left in the memory is put right by `forget_last`."""
        return []

    def forget_last(self) -> None:
        """Put back what the newest batch was written over: its step is not taken."""
        self._steps = self._steps_before
        self._places.undo(self.embeddings, self.labels)

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics:
        """Look at the pairs of a batch (N, D) with labels (N,), without the memory."""
        return self.loss.diagnose(embeddings, labels)

    def _remember(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        rows, count = len(self.embeddings), len(embeddings)
        if count > rows or embeddings.shape[1] != self.embeddings.shape[1]:
            raise TrainingError(
                f"memory: a batch must be at most {rows} embeddings of {self.embeddings.shape[1]} dimensions; "
                f"got {tuple(embeddings.shape)}. Raise loss.memory.rows above the batch size."
            )
        return self._places.write([(self.embeddings, embeddings), (self.labels, labels)])

    def get_extra_state(self) -> dict[str, int]:
        """The counters, for the state dict."""
        return {"steps": self._steps, "next": self._places.next, "filled": self._places.filled}

    def set_extra_state(self, state: Any) -> None:
        """Take up the counters of a state dict."""
        self._steps = self._steps_before = state["steps"]
        self._places.set(state["next"], state["filled"])

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        rows = f"memory={tuple(self.embeddings.shape)}, start_step={self.start_step}"
        return f"{rows}, weight={self.weight}, momentum={self.momentum}"
