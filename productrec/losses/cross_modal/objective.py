"""The cross-modal objective: the pairs of a batch with their warm-up, the memory, and what is logged."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from productrec.losses.cross_modal.batch import CrossModalBatch
from productrec.losses.cross_modal.information import compute_information_bound
from productrec.losses.cross_modal.loss import CrossModalLoss
from productrec.losses.cross_modal.memory import CrossModalMemory
from productrec.losses.cross_modal.warm_up import WarmUp

# Of the bound on the mutual information, for a loss without a temperature.
_TEMPERATURE = 0.07


class CrossModalTerms(NamedTuple):
    """``total``: scalar with its graph; ``terms``: each part unweighted and detached, those alone that there were.

    ``pairs``: both directions of the batch; ``memory``: of the batch against the memory;
    ``information_bound``: nats, see `compute_information_bound`.
    """

    total: Tensor
    terms: dict[str, Tensor]


class CrossModalObjective(nn.Module):
    """``pairs + memory weight * memory``.

    Args:
        loss: of the pairs of a batch, and of a batch against the memory.
        warm_up: another loss that it begins with.
        memory: of both towers.
        log_information: whether the bound on the mutual information is computed.
    """

    def __init__(
        self,
        loss: CrossModalLoss,
        *,
        warm_up: WarmUp | None = None,
        memory: CrossModalMemory | None = None,
        log_information: bool = True,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.warm_up, self.memory = warm_up, memory
        self._log_information = log_information

    def forward(self, images: Tensor, titles: Tensor, image_groups: Tensor, title_groups: Tensor) -> CrossModalTerms:
        """The total and its terms; in training the batch enters the memory and counts for the warm-up.

        Arguments as `CrossModalBatch`. For a memory the groups must mean the same in every batch.

        Raises:
            TrainingError: the batch does not fit together, or not into the memory.
        """
        batch = CrossModalBatch(images, titles, image_groups, title_groups)
        pairs = self.loss.compare(batch) if self.warm_up is None else self.warm_up.compare(batch, self.loss)
        total, terms = pairs, {"pairs": pairs.detach()}
        if self.memory is not None:
            against = self.memory.compare(batch, self.loss)
            if against is not None:
                total, terms["memory"] = total + self.memory.weight * against, against.detach()
        if not batch.has_both:
            return CrossModalTerms(total, terms)
        if self._log_information:
            terms["information_bound"] = compute_information_bound(batch, temperature=self._find_temperature())
        return CrossModalTerms(total, terms)

    def _find_temperature(self) -> float | Tensor:
        temperature = self.loss.temperature
        return _TEMPERATURE if temperature is None else temperature

    def list_statistics(self) -> list[Tensor]:
        """Buffers that a forward pass may move, but for what `forget_last` puts right: none."""
        return []

    def forget_last(self) -> None:
        """Undo what the last batch left in the memory and in the count of the warm-up: its step is not taken."""
        for part in (self.warm_up, self.memory):
            if part is not None:
                part.forget_last()
