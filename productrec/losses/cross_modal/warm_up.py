"""Warm-up: training begins with one loss and goes over to another."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from productrec.errors import RecipeError
from productrec.losses.cross_modal.batch import CrossModalBatch
from productrec.losses.cross_modal.loss import CrossModalLoss

_TINY = 1e-12


class WarmUp(nn.Module):
    """A loss that the first batches are trained with in place of another, or beside it.

    The hardest negative of a network that knows nothing is a poor guide. VSE++ (Faghri et al., BMVC 2018) says that its
    max of hinges is slow at first; what has been published as a cure is to train with the sum of hinges for an epoch
    and with the max from then on (Chen et al., CVPR 2021): ``switch``. ``mix`` is the same without the jump, and ours:
    the other loss's share grows from 0 by equal steps and is 1 after ``steps`` batches. Until then two losses are
    computed.

    The first loss is brought to the value of the other one, batch by batch. A sum over a batch's negatives is as many
    times a maximum as there are hinges that are not met, and Adam, which divides by the gradients of the last thousand
    steps, would leave the maximum as many times too small a rate (benchmarks/RESULTS.md).

    The count of training batches is part of the state dict.

    Args:
        first: the loss at the start.
        steps: training batches until the other loss stands alone, at least 1.
        how: ``mix`` or ``switch``.
    """

    def __init__(self, first: CrossModalLoss, steps: int, how: Literal["mix", "switch"] = "mix") -> None:
        super().__init__()
        if steps < 1 or how not in ("mix", "switch"):
            raise RecipeError(f"warm-up: steps must be at least 1, by mix or switch; got {steps} and {how!r}.")
        self.first = first
        self.steps, self.how = steps, how
        self._taken = self._before = 0

    @property
    def share(self) -> float:
        """Share of the loss that training goes over to, in the next batch."""
        done = min(1.0, self._taken / self.steps)
        return done if self.how == "mix" else float(done >= 1)

    def compare(self, batch: CrossModalBatch, loss: CrossModalLoss) -> Tensor:
        """Scalar loss of a batch, by both as their shares are; in evaluation by ``loss`` alone."""
        if not self.training:
            return loss.compare(batch)
        share, self._before = self.share, self._taken
        self._taken += 1
        then = loss.compare(batch)
        if share == 1:
            return then
        first = self.first.compare(batch)
        scaled = first * (then.detach() / first.detach().clamp(min=_TINY))
        return scaled if share == 0 else share * then + (1 - share) * scaled

    def forget_last(self) -> None:
        """Count the newest batch as not seen."""
        self._taken = self._before

    def get_extra_state(self) -> dict[str, int]:
        """The count, for the state dict."""
        return {"taken": self._taken}

    def set_extra_state(self, state: Any) -> None:
        """Take up the count of a state dict."""
        self._taken = self._before = state["taken"]

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return f"steps={self.steps}, how={self.how!r}"
