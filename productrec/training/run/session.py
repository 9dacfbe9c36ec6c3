"""The session: everything around the steps of one training, epoch by epoch; the loop says when."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from productrec.console import say
from productrec.data.dataset import TrainingBatch
from productrec.data.title_batches import RowTitles
from productrec.errors import DataError, Interrupted, TrainingError
from productrec.runtime import StopRequest
from productrec.training.run.batches import Batches
from productrec.training.run.centre_merging import CentreMerging
from productrec.training.run.clock import Clock, Work
from productrec.training.run.endings import describe_images, explain_not_finite
from productrec.training.run.plan import Plan
from productrec.training.run.reporter import Reporter
from productrec.training.run.resume import LAST
from productrec.training.run.run_checkpoints import BEST, RunCheckpoints
from productrec.training.run.soup import average_weights
from productrec.training.run.validation import Validation
from productrec.training.run.watch import Watch
from productrec.training.step.trainer import Trainer

_MOST_SKIPPED = 10  # steps in a row that may be skipped
_SHOW_EVERY = 20  # steps, and at an epoch's last


class NearClassSearch(Protocol):
    """Finds the classes that a network puts near each other."""

    def find(self, network: nn.Module) -> np.ndarray:
        """(C, count) class positions, the nearest first; all ranks call it together."""
        ...


@dataclass
class Session:
    """One training: its parts, and what is done with them at each epoch's start, after each step, at each epoch's end.

    All ranks call every method together, and in the same order: they talk to each other in most of them.

    ``batches``: what is trained on; ``image_ids``: (N,) of its rows; ``validation``: None where there are no images for
    it; ``titles``: of its rows, where there is a text tower; ``near_classes``, ``merging``: None where the recipe wants
    none; ``should_stop``: asked after every epoch, with its figures, whether to end there, as if patience had run out;
    ``figures``: those of the newest finished epoch.
    """

    trainer: Trainer
    batches: Batches
    plan: Plan
    checkpoints: RunCheckpoints
    reporter: Reporter
    image_ids: list[str]
    validation: Validation | None = None
    titles: RowTitles | None = None
    near_classes: NearClassSearch | None = None
    merging: CentreMerging | None = None
    should_stop: Callable[[int, dict[str, float]], bool] = lambda epoch, figures: False
    figures: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = Clock(self.plan.deadline)
        self._watch = Watch(self.trainer)
        self._skipped_rows: list[int] = []  # of the newest steps that were skipped, one after the other

    def begin_epoch(self) -> None:
        """Before an epoch's first step, also when it is resumed in its middle: search, merge, freeze, as is planned."""
        trainer, plan, epoch = self.trainer, self.plan, self.trainer.progress.epoch
        self.batches.start(epoch, trainer.progress.batch)
        is_new = trainer.progress.batch == 0
        if self.near_classes is not None and is_new and plan.mines_before(epoch):
            self.batches.near_classes = self.near_classes.find(trainer.evaluated)
        if self.merging is not None and is_new and plan.merges_before(epoch):
            for name, value in self.merging.merge(trainer.evaluated).items():
                trainer.tally.note(name, value)
        trainer.set_modes(is_frozen=plan.is_frozen_in(epoch), freeze_norms=plan.freeze_norms)

    def finish_step(self, batch: TrainingBatch, losses: dict[str, Tensor]) -> None:
        """After a step on ``batch`` that gave ``losses``: count it, and show it once in a while.

        Raises:
            TrainingError: too many steps in a row were skipped.
        """
        trainer, progress = self.trainer, self.trainer.progress
        if progress.first_loss is None:
            progress.first_loss = float(losses["loss"])
        progress.batch += 1
        self._skipped_rows = [*self._skipped_rows, *batch.rows.tolist()] if progress.skipped_in_a_row else []
        if progress.skipped_in_a_row >= _MOST_SKIPPED:
            raise self._explain_not_finite()
        if trainer.lacks_positives(batch.labels):
            trainer.tally.count("batches_without_positives")
        # Reading a loss waits for the device, so it is done once in a while; at batches a resume comes to as well.
        shown: dict[str, float] = {}
        if progress.batch % _SHOW_EVERY == 0 or progress.batch == len(self.batches):
            shown = {name: float(value) for name, value in losses.items()} | self._watch.look()
            shown["learning_rate_factor"] = trainer.get_rate_factor(progress.step - 1)
        self.reporter.show_step(progress, len(batch.labels), shown)

    def finish_epoch(self, stop: StopRequest) -> None:
        """After an epoch's last step: validate where that is due, keep the best, report, and save.

        Raises:
            Interrupted: a stop was wanted in validation; the state is saved, and a resume validates.
        """
        trainer, progress = self.trainer, self.trainer.progress
        finished, measured = progress.epoch, dict[str, float]()
        is_validated = self.validation is not None and self.plan.validates_after(finished)
        if is_validated:
            try:
                measured = self.validate(stop)
            except Interrupted as error:
                self.save(LAST)
                raise Interrupted(
                    f"stopped while epoch {finished + 1} was validated; the state is saved.", error.exit_code
                ) from None
        self.figures = trainer.take_figures() | measured
        self.figures["learning_rate_factor"] = trainer.get_rate_factor(max(0, progress.step - 1))
        progress.epoch, progress.batch = finished + 1, 0
        if is_validated:
            self._keep_if_best(finished)
        elif self.validation is None:
            self.save(BEST)
        # Before the checkpoint: a resume drops lines that it writes again, it adds none.
        self.reporter.report_epoch(progress, finished, self.figures)
        if self.plan.soup:
            self.checkpoints.save_recent(finished, trainer, self.batches, self.figures, keep=self.plan.soup)
        self.save(LAST)

    def validate(self, stop: StopRequest) -> dict[str, float]:
        """Figures of the network that is kept, and, as ``raw_NAME``, of the one that is trained beside an average.

        Raises:
            Interrupted: a stop is wanted.
            TrainingError: what the network says is not finite.
        """
        assert self.validation is not None
        with self.clock.measure("validate"):
            try:
                figures = self.validation.measure(self.trainer.evaluated, stop)
                if self.trainer.average is not None and self.plan.validate_raw:
                    raw = self.validation.measure(self.trainer.raw, stop)
                    figures |= {f"raw_{name}": value for name, value in raw.items()}
            except DataError as error:
                if "must be finite" not in str(error):
                    raise
                raise TrainingError(
                    "training: what the network says of validation images must be finite; it no longer is. Train anew "
                    "with a lower train.learning_rate or a longer train.warmup_epochs, under another name (name=...)."
                ) from error
        return figures

    def save(self, name: str) -> None:
        """Save the checkpoint of that name, with the newest finished epoch's figures."""
        with self.clock.measure("save"):
            self.checkpoints.save(name, self.trainer, self.batches, self.figures)

    def is_too_late(self) -> bool:
        """Whether no time is left for what comes next, and then for what leaves a usable model."""
        progress = self.trainer.progress
        # Next comes another step, or the epoch's end, which a stop at the last batch leaves to the resume.
        is_last = progress.batch == len(self.batches)
        works: list[Work] = ["save"] if is_last else ["step", "save"]
        is_due = is_last and self.plan.validates_after(progress.epoch)
        if self.validation is not None and (progress.best is None or is_due):
            works += ["validate", "save"]
        return self.clock.is_too_late_for(*works)

    def leave_usable(self, epoch: int, stop: StopRequest) -> None:
        """Where time ran out in or after an epoch: see that there is a best checkpoint."""
        if self.validation is None:
            self.save(BEST)
        elif self.trainer.progress.best is None:
            self.figures.update(self.validate(stop))
            self._keep_if_best(epoch)

    def try_soup(self) -> dict[str, float] | None:
        """Average the weights of the newest epochs; what validates better than the best checkpoint becomes it.

        Returns:
            Its figures, kept or not; None where none is planned, or no epoch was validated.
        """
        trainer, name = self.trainer, self.plan.keep_best_by
        if not self.plan.soup or self.validation is None or trainer.progress.best is None:
            return None
        recent = self.checkpoints.list_recent(self.plan.soup)
        averaged = trainer.ranks.broadcast(average_weights(recent) if trainer.ranks.is_first else None)
        network = copy.deepcopy(trainer.evaluated)
        network.load_state_dict(averaged)
        figures = self.validation.measure(network)
        is_better = self.plan.is_better(figures[name], trainer.progress.best)
        if is_better:
            self.checkpoints.save(BEST, trainer, self.batches, figures, network)
        if trainer.ranks.is_first:
            say(
                f"average of {len(recent)} epochs: {name} {figures[name]:.4f}, best epoch {trainer.progress.best:.4f}; "
                f"{'kept' if is_better else 'not kept'}"
            )
        return figures

    def _keep_if_best(self, epoch: int) -> None:
        progress, value = self.trainer.progress, self.figures[self.plan.keep_best_by]
        if progress.best is None or self.plan.is_better(value, progress.best):
            progress.improved_epoch = epoch
        elif value != progress.best:  # of equals the newest is kept
            return
        progress.best, progress.best_epoch = value, epoch
        self.save(BEST)

    def _explain_not_finite(self) -> TrainingError:
        rows = [row for own in self.trainer.ranks.gather_objects(self._skipped_rows) for row in own]
        images = [self.image_ids[row] for row in dict.fromkeys(rows)]
        listed = self.checkpoints.run_folder / "not_finite.txt"
        return explain_not_finite(
            describe_images(images, listed), step=self.trainer.progress.step, skipped=_MOST_SKIPPED
        )
