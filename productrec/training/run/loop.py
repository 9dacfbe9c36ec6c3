"""The training loop: steps, epochs, and a stop that loses nothing."""

from __future__ import annotations

import signal
from typing import NamedTuple

from torch import Tensor

from productrec.data.dataset import TrainingBatch
from productrec.data.title_batches import RowTitles
from productrec.errors import Interrupted
from productrec.runtime import StopRequest
from productrec.training.run.endings import Ending, explain_broken
from productrec.training.run.plan import Plan
from productrec.training.run.resume import LAST
from productrec.training.run.session import Session
from productrec.training.step.fitting import explain_out_of_memory, is_out_of_memory
from productrec.training.step.trainer import Trainer

_INTERRUPTED, _TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def run_training(session: Session, stop: StopRequest) -> Ending:
    """Run the epochs that are left. All ranks run this together.

    Args:
        session: the training; ``session.trainer.progress`` says where to begin.
        stop: when its ``wanted`` is set, the state is saved after the step and the loop ends.

    Raises:
        Interrupted: a stop was asked for; the last checkpoint continues at the next batch.
        DataError: a training image cannot be read.
        TrainingError: loss or gradient was not finite too often in a row, or a batch does not fit the memory.
    """
    trainer, plan = session.trainer, session.plan
    progress = trainer.progress
    while progress.epoch < plan.epochs:
        if plan.is_patience_out(progress):
            return Ending.NO_BETTER
        session.begin_epoch()
        for batch in session.batches:
            if batch.broken and trainer.ranks.size == 1:
                raise explain_broken(batch)
            with session.clock.measure("step"):
                losses = take_step(trainer, batch, plan, session.titles)
            session.finish_step(batch, losses)
            agreed = _agree(session, stop, other=bool(batch.broken))
            if agreed.other:  # after the step, which the other ranks could not do alone; it is not saved
                raise explain_broken(batch)
            if agreed.is_stopped or agreed.is_late:
                session.save(LAST)
            if agreed.is_stopped:
                raise Interrupted(
                    f"stopped in epoch {progress.epoch + 1} after batch {progress.batch}; the state is saved.",
                    agreed.exit_code,
                )
            if agreed.is_late:
                session.leave_usable(progress.epoch, stop)
                return Ending.OUT_OF_TIME
        finished = progress.epoch
        session.finish_epoch(stop)
        if progress.epoch == plan.epochs:
            break
        agreed = _agree(session, stop, other=session.should_stop(finished, session.figures))
        if agreed.is_stopped:
            raise Interrupted(f"stopped after epoch {progress.epoch}; the state is saved.", agreed.exit_code)
        if agreed.other:
            return Ending.NO_BETTER
        if agreed.is_late:
            session.leave_usable(finished, stop)
            return Ending.OUT_OF_TIME
    return Ending.FINISHED


def take_step(trainer: Trainer, batch: TrainingBatch, plan: Plan, titles: RowTitles | None = None) -> dict[str, Tensor]:
    """One step, and what it gives; ``titles`` are those of the rows that batches are made of.

    Raises:
        TrainingError: the batch does not fit the device's memory; the message names what does.
    """
    try:
        picked = None if titles is None else titles.pick(batch.rows, trainer.progress.epoch)
        return trainer.run_step(batch.images, batch.labels, picked)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Past the except block, which would hold all that the step had made.
    raise explain_out_of_memory(trainer, batch.images, batch.labels, multiple_of=plan.batch_multiple)


class _Agreed(NamedTuple):
    """What any rank met, and so all act on: a stop, the end of the time, and another reason."""

    is_stopped: bool
    exit_code: int
    is_late: bool
    other: bool


def _agree(session: Session, stop: StopRequest, *, other: bool) -> _Agreed:
    """One message between the ranks, so that they all go on, or all end for the same reason."""
    is_terminated = stop.wanted and stop.exit_code == _TERMINATED
    flags = [stop.wanted, is_terminated, session.is_too_late(), other]
    is_stopped, is_terminated, is_late, other = session.trainer.ranks.agree(flags, session.trainer.device)
    return _Agreed(is_stopped, _TERMINATED if is_terminated else _INTERRUPTED, is_late, other)
