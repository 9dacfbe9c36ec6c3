"""The plan: what is done when in a training, and which validation figure decides."""

from __future__ import annotations

from dataclasses import dataclass

from productrec.metrics.figures import is_better
from productrec.training.step.trainer import Progress


@dataclass(frozen=True)
class Plan:
    """What is done when.

    ``epochs``: in all; ``validate_every``, ``mine_every``, ``merge_every``: epochs; ``keep_best_by``: the figure that
    decides the best checkpoint, lower is better for those that end in ``error``; ``validate_raw``: whether the network
    as it is trained is validated beside its average; ``freeze_epochs``: first epochs in which the backbone does not
    learn; ``freeze_norms``: whether its norms keep their statistics in all of them; ``soup``: newest epochs whose
    weights are averaged at the end, 0 for none; ``patience``: validations without a better one after which training
    ends, 0 for never; ``deadline``: of `time.monotonic`, when all is done; ``batch_multiple``: what a batch size is a
    multiple of, for the one that is advised where memory runs out.
    """

    epochs: int
    keep_best_by: str
    validate_every: int = 1
    validate_raw: bool = False
    mine_every: int = 1
    merge_every: int = 1
    freeze_epochs: int = 0
    freeze_norms: bool = False
    soup: int = 0
    patience: int = 0
    deadline: float | None = None
    batch_multiple: int = 2

    def validates_after(self, epoch: int) -> bool:
        """Whether validation is due after an epoch (from 0), where there are images for it."""
        return (epoch + 1) % self.validate_every == 0 or epoch + 1 == self.epochs

    def mines_before(self, epoch: int) -> bool:
        """Whether near classes are searched before an epoch (from 0), where they are wanted."""
        return epoch > 0 and epoch % self.mine_every == 0

    def merges_before(self, epoch: int) -> bool:
        """Whether centres are merged before an epoch (from 0), where they are to be."""
        return epoch > 0 and epoch % self.merge_every == 0

    def is_frozen_in(self, epoch: int) -> bool:
        """Whether the backbone stays as it is in an epoch (from 0)."""
        return epoch < self.freeze_epochs

    def is_better(self, value: float, than: float) -> bool:
        """Whether one value of the deciding figure is better than another."""
        return is_better(self.keep_best_by, value, than)

    def is_patience_out(self, progress: Progress) -> bool:
        """Whether no validation was better for too long, told from the progress alone, so that a resume agrees."""
        if not self.patience or progress.batch or progress.improved_epoch is None:
            return False
        return (progress.epoch - 1 - progress.improved_epoch) // self.validate_every >= self.patience
