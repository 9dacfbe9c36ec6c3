"""The training loop: steps, epochs, validation, checkpoints, and a stop that loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor, distributed, nn

from productrec.console import warn
from productrec.data.dataset import TrainingBatch
from productrec.data.samplers import EpochSampler
from productrec.errors import DataError, Interrupted, TrainingError, describe_offenders
from productrec.runtime import StopRequest
from productrec.training.fitting import explain_out_of_memory, is_out_of_memory
from productrec.training.ranks import Ranks
from productrec.training.trainer import Trainer

_MOST_SKIPPED = 10  # steps in a row that may be skipped
_PEER_WORDS = ("gloo", "NCCL", "onnection closed by peer", "imed out waiting")
_COLLAPSED = 0.95  # mean similarity of a batch's embeddings


class Ending(Enum):
    """Why a training ended: all epochs are done, patience ran out, or time did, and then it can be resumed."""

    FINISHED = "finished"
    NO_BETTER = "no better"
    OUT_OF_TIME = "out of time"


@dataclass(frozen=True)
class Plan:
    """What is done when.

    ``epochs``: in all; ``validate_every`` and ``mine_every``: epochs; ``keep_best_by``: the figure that decides the
    best checkpoint, lower is better for those that end in ``error``; ``patience``: validations without a better one
    after which training ends, 0 for never; ``log_every``: steps; ``deadline``: of `time.monotonic`;
    ``batch_multiple``: what a batch size is a multiple of, for the one that is advised where memory runs out.
    """

    epochs: int
    keep_best_by: str
    validate_every: int = 1
    mine_every: int = 1
    patience: int = 0
    log_every: int = 20
    deadline: float | None = None
    batch_multiple: int = 2


def run_training(
    trainer: Trainer,
    loader: Iterable[TrainingBatch],
    sampler: EpochSampler,
    plan: Plan,
    *,
    validate: Callable[[], dict[str, float]] | None,
    save: Callable[[str, dict[str, float]], None],
    on_step: Callable[[int, int, dict[str, float]], None],
    on_epoch: Callable[[int, dict[str, float]], None],
    stop: StopRequest,
    mine: Callable[[nn.Module], np.ndarray] | None = None,
    on_epoch_start: Callable[[int], None] = lambda epoch: None,
    describe_rows: Callable[[list[int]], str] = str,
    should_stop: Callable[[int, dict[str, float]], bool] = lambda epoch, figures: False,
) -> Ending:
    """Run the epochs that are left. All ranks run this together.

    Args:
        trainer: the model and its state; ``trainer.progress`` says where to begin.
        loader: gives the batches of ``sampler``, whose epoch and first batch are set here.
        plan: what is done when.
        validate: figures of the networks on validation images, or None where there are none.
        save: called with ``"best"`` or ``"last"`` and the newest figures.
        on_step: called with epoch, images in the step, and the newest figures every ``log_every`` steps (else empty).
        on_epoch: called with the epoch and its figures.
        stop: when its ``wanted`` is set, the state is saved after the step and the loop ends.
        mine: near classes, for the sampler, of a network; called before every ``mine_every``-th epoch but the first.
        on_epoch_start: called with every epoch before its first step, also when it is resumed in its middle.
        describe_rows: names the images of a batch, by their rows.
        should_stop: whether to end after an epoch with these figures, as if patience had run out.

    Raises:
        Interrupted: a stop was asked for; the last checkpoint continues at the next batch.
        DataError: a training image cannot be read.
        TrainingError: loss or gradient was not finite too often in a row.
    """
    progress, tally = trainer.progress, trainer.tally
    sign = -1.0 if plan.keep_best_by.endswith("error") else 1.0
    figures: dict[str, float] = {}

    def judge(finished: int) -> None:
        assert validate is not None
        figures.update(validate())
        measured = figures[plan.keep_best_by]
        if progress.best is None or sign * measured >= sign * progress.best:
            progress.best, progress.best_epoch = measured, finished
            save("best", figures)

    while progress.epoch < plan.epochs:
        if _is_hopeless(trainer, plan):
            return Ending.NO_BETTER
        sampler.epoch, sampler.first_batch = progress.epoch, progress.batch
        if mine is not None and not progress.batch and progress.epoch and progress.epoch % plan.mine_every == 0:
            sampler.near_classes = mine(trainer.evaluated)
        trainer.recognizer.train()
        trainer.objective.train()
        on_epoch_start(progress.epoch)  # after train(), which would wake what is frozen
        for batch in loader:
            if batch.broken and trainer.ranks.size == 1:
                raise _explain_broken(batch)
            losses = take_step(trainer, batch, plan)
            progress.batch += 1
            if progress.skipped_in_a_row >= _MOST_SKIPPED:
                raise _explain_not_finite(trainer, describe_rows(batch.rows.tolist()))
            if trainer.objective.metric is not None and len(torch.unique(batch.labels)) == len(batch.labels):
                tally.count("batches_without_positives")
            # Reading a loss waits for the device, so it is done once in a while; at places a resume comes to as well.
            shown: dict[str, float] = {}
            if progress.batch % plan.log_every == 0 or progress.batch == len(sampler):
                shown = {name: float(value) for name, value in losses.items()} | _look(trainer)
                shown["learning_rate_factor"] = trainer.get_rate_factor(progress.step - 1)
            on_step(progress.epoch, len(batch.labels), shown)
            is_late = plan.deadline is not None and time.monotonic() > plan.deadline
            flags = [stop.wanted, is_late, bool(batch.broken)]
            is_stopped, is_late, is_broken = trainer.ranks.agree(flags, trainer.device)
            if is_broken:  # after the step, which the other ranks could not do alone; it is not saved
                raise _explain_broken(batch)
            if (is_stopped or is_late) and progress.batch < len(sampler):
                save("last", figures)
                if is_stopped:
                    raise Interrupted(
                        f"stopped in epoch {progress.epoch + 1} after batch {progress.batch}; the state is saved.",
                        exit_code=stop.exit_code,
                    )
                if progress.best is None and validate is not None:
                    judge(progress.epoch)
                elif validate is None:
                    save("best", figures)
                return Ending.OUT_OF_TIME
        figures = tally.take() | {"learning_rate_factor": trainer.get_rate_factor(max(0, progress.step - 1))}
        finished = progress.epoch
        progress.epoch, progress.batch = finished + 1, 0
        if validate is not None and (progress.epoch % plan.validate_every == 0 or progress.epoch == plan.epochs):
            judge(finished)
        elif validate is None:
            save("best", figures)
        on_epoch(finished, figures)  # before the checkpoint: a resume drops lines that it writes again, it adds none
        save("last", figures)
        is_late = plan.deadline is not None and time.monotonic() > plan.deadline
        is_hopeless = should_stop(finished, figures)
        flags = [stop.wanted, is_late, is_hopeless]
        is_stopped, is_late, is_hopeless = trainer.ranks.agree(flags, trainer.device)
        if is_stopped and progress.epoch < plan.epochs:
            raise Interrupted(f"stopped after epoch {progress.epoch}; the state is saved.", exit_code=stop.exit_code)
        if is_hopeless and progress.epoch < plan.epochs:
            return Ending.NO_BETTER
        if is_late and progress.epoch < plan.epochs:
            if progress.best is None and validate is not None:
                judge(finished)
            return Ending.OUT_OF_TIME
    return Ending.FINISHED


def take_step(trainer: Trainer, batch: TrainingBatch, plan: Plan) -> dict[str, Tensor]:
    """One step, and what it gives.

    Raises:
        TrainingError: the batch does not fit the device's memory; the message names what does.
    """
    try:
        return trainer.run_step(batch.images, batch.labels)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Past the except block, which would hold all that the step had made.
    raise explain_out_of_memory(trainer, batch.images, multiple_of=plan.batch_multiple)


def _is_hopeless(trainer: Trainer, plan: Plan) -> bool:
    """Whether patience ran out, told from the progress alone, so that a resume comes to the same."""
    progress = trainer.progress
    if not plan.patience or progress.batch or progress.best_epoch is None:
        return False
    return (progress.epoch - 1 - progress.best_epoch) // plan.validate_every >= plan.patience


def _look(trainer: Trainer) -> dict[str, float]:
    """How the newest embeddings stand, for a person to see while it happens."""
    health = trainer.measure_health()
    if health is None:
        return {}
    figures = {"embedding_similarity": health.mean_similarity}
    if health.pairs is not None:
        figures["active_pairs"] = health.pairs.active_share
    for name, value in figures.items():
        trainer.tally.note(name, value)
    if health.mean_similarity > _COLLAPSED and trainer.ranks.is_first:
        warn(
            f"step {trainer.progress.step}: the embeddings of a batch are nearly one point (mean similarity "
            f"{health.mean_similarity:.3f}). Lower train.learning_rate or loss.metric_weight if it stays so."
        )
    return figures


def _explain_broken(batch: TrainingBatch) -> DataError:
    if not batch.broken:
        return DataError("training: another process met an image that cannot be read; its own message says which.")
    return DataError(
        f"training: {len(batch.broken)} images of a batch cannot be read, the first: {batch.broken[0]} "
        "Ingest again, so that broken images are left out."
    )


def _explain_not_finite(trainer: Trainer, images: str) -> TrainingError:
    return TrainingError(
        f"training: loss and gradient must be finite; in {_MOST_SKIPPED} steps in a row, up to step "
        f"{trainer.progress.step}, one was not. None of these steps was taken. The last batch: {images}. "
        "Lower train.learning_rate or raise train.warmup_epochs; --resume goes on from the last checkpoint."
    )


def describe_images(ids: list[str], rows: list[int]) -> str:
    """The images of a batch by their ids."""
    return describe_offenders([ids[row] for row in rows])


def explain_death(error: RuntimeError, stop: StopRequest, ranks: Ranks) -> Exception:
    """What to raise for an error of `run_training` that may be another process's death: torch raises it anywhere."""
    if is_out_of_memory(error):
        return TrainingError(
            "training: out of memory outside of a step, as in validation. Lower predict.batch_size or train.batch_size."
        )
    if "DataLoader worker" not in str(error):
        is_peer = isinstance(error, distributed.DistError) or any(word in str(error) for word in _PEER_WORDS)
        if ranks.size == 1 or not is_peer:
            return error
        return TrainingError(
            f"training: another of the {ranks.size} processes ended or hangs ({str(error).splitlines()[0][:200]}); its "
            "own message says why. --resume goes on from the last checkpoint."
        )
    if not stop.wanted:
        time.sleep(0.5)  # a signal to the whole group may reach this process after it has killed the other
    if stop.wanted:
        return Interrupted(
            "stopped together with its loader processes; a resume begins at the last saved epoch.",
            exit_code=stop.exit_code,
        )
    return TrainingError(
        f"training: a loader process died ({str(error).splitlines()[0]}). It may have run out of memory: lower "
        "train.workers, or give the container more shared memory (--shm-size). --resume goes on."
    )
