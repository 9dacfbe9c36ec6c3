"""Cross-batch memory of both towers: images meet remembered titles, and titles remembered images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from productrec.errors import RecipeError, TrainingError
from productrec.losses.cross_modal.batch import CrossModalBatch
from productrec.losses.cross_modal.loss import CrossModalLoss
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.ring import RingPlaces


class CrossModalMemory(nn.Module):
    """The last embeddings of either tower, as references of the other one's.

    Cross-batch memory (Wang et al., CVPR 2020) with a ring of images and one of titles. The batch is put in before it
    is compared, as there, so that an anchor meets the positives of its own batch among the remembered ones, once more
    and without gradient; it never meets its own tower. A remembered row of the anchor's group is a positive, whatever
    batch it is from, so groups must mean the same in every batch (a product's number in the table, not its place in
    the batch). Before ``start_step`` batches there is no memory.

    Both rings, how far they are filled and the count of batches are part of the state dict. Only training batches
    enter.

    Args:
        rows: embeddings remembered of each tower; at least a batch.
        embedding_dim: D.
        start_step: batches seen before the first is remembered.
        weight: of the term against the memory.
    """

    images: Tensor
    titles: Tensor
    image_groups: Tensor
    title_groups: Tensor

    def __init__(self, *, rows: int, embedding_dim: int, start_step: int = 1000, weight: float = 1.0) -> None:
        super().__init__()
        if rows < 1 or start_step < 0 or not weight > 0:
            raise RecipeError(
                "memory: rows must be at least 1, start_step at least 0 and weight above 0; got "
                f"{rows}, {start_step} and {weight}."
            )
        self.start_step, self.weight = start_step, weight
        for name in ("images", "titles"):
            self.register_buffer(name, torch.zeros(rows, embedding_dim))
        for name in ("image_groups", "title_groups"):
            self.register_buffer(name, torch.zeros(rows, dtype=torch.int64))
        self._steps = self._steps_before = 0
        self._of_images, self._of_titles = RingPlaces(rows), RingPlaces(rows)

    def compare(self, batch: CrossModalBatch, loss: CrossModalLoss) -> Tensor | None:
        """Scalar loss of a training batch against the memory, both directions; None before the start, in evaluation,
        and where there is nothing to compare.

        Raises:
            TrainingError: the batch does not fit the memory.
        """
        if not self.training:
            return None
        self._steps_before = self._steps
        self._of_images.begin()
        self._of_titles.begin()
        self._steps += 1
        if self._steps <= self.start_step:
            return None
        self._remember(batch)
        ways = []
        if len(batch.images) and self._of_titles.filled:
            known = slice(0, self._of_titles.filled)
            ways.append(Comparison(batch.images, batch.image_groups, self.titles[known], self.title_groups[known]))
        if len(batch.titles) and self._of_images.filled:
            known = slice(0, self._of_images.filled)
            ways.append(Comparison(batch.titles, batch.title_groups, self.images[known], self.image_groups[known]))
        losses = [loss.compare_one_way(way) for way in ways]
        return sum(losses[1:], losses[0]) if losses else None

    def forget_last(self) -> None:
        """Put back what the newest batch was written over: its step is not taken."""
        self._steps = self._steps_before
        self._of_images.undo(self.images, self.image_groups)
        self._of_titles.undo(self.titles, self.title_groups)

    def _remember(self, batch: CrossModalBatch) -> None:
        rows, dim = self.images.shape
        for name, embeddings in (("images", batch.images), ("titles", batch.titles)):
            if len(embeddings) > rows or embeddings.shape[1] != dim:
                raise TrainingError(
                    f"memory: {name} of a batch must be at most {rows} embeddings of {dim} dimensions; got "
                    f"{tuple(embeddings.shape)}. Raise the memory's rows above the batch size."
                )
        self._of_images.write([(self.images, batch.images.detach()), (self.image_groups, batch.image_groups)])
        self._of_titles.write([(self.titles, batch.titles.detach()), (self.title_groups, batch.title_groups)])

    def get_extra_state(self) -> dict[str, Any]:
        """The counters, for the state dict."""
        return {
            "steps": self._steps,
            "images": (self._of_images.next, self._of_images.filled),
            "titles": (self._of_titles.next, self._of_titles.filled),
        }

    def set_extra_state(self, state: Any) -> None:
        """Take up the counters of a state dict."""
        self._steps = self._steps_before = state["steps"]
        self._of_images.set(*state["images"])
        self._of_titles.set(*state["titles"])

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return f"memory={tuple(self.images.shape)} of either, start_step={self.start_step}, weight={self.weight}"
