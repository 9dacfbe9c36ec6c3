"""The training loop: steps, epochs, validation, checkpoints, and a stop that loses nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from torch import Tensor, distributed, nn

from productrec.artifacts import write_text
from productrec.console import warn
from productrec.data.dataset import TrainingBatch
from productrec.data.samplers import EpochSampler
from productrec.errors import DataError, Interrupted, ProcessLost, TrainingError, describe_offenders
from productrec.runtime import StopRequest
from productrec.training.ranks.group import Ranks
from productrec.training.step.fitting import explain_out_of_memory, is_out_of_memory
from productrec.training.step.trainer import Progress, Trainer

_MOST_SKIPPED = 10  # steps in a row that may be skipped
_PEER_WORDS = ("gloo", "NCCL", "onnection closed by peer", "imed out waiting")
_COLLAPSED = 0.95  # mean similarity of a batch's embeddings
_IDLE_PAIRS, _IDLE_LOOKS = 1e-3, 10  # share of active pairs, and how many looks in a row it is told after
_RISEN = 10.0  # times the first step's loss
_TERMINATED = 128 + signal.SIGTERM


class Ending(Enum):
    """Why a training ended: all epochs are done, patience ran out, or time did, and then it can be resumed."""

    FINISHED = "finished"
    NO_BETTER = "no better"
    OUT_OF_TIME = "out of time"


@dataclass(frozen=True)
class Plan:
    """What is done when.

    ``epochs``: in all; ``validate_every``, ``mine_every``, ``merge_every``: epochs; ``keep_best_by``: the figure that
    decides the best checkpoint, lower is better for those that end in ``error``; ``patience``: validations without a
    better one after which training ends, 0 for never; ``log_every``: steps; ``deadline``: of `time.monotonic`, when all
    is done; ``batch_multiple``: what a batch size is a multiple of, for the one that is advised where memory runs out.
    """

    epochs: int
    keep_best_by: str
    validate_every: int = 1
    mine_every: int = 1
    merge_every: int = 1
    patience: int = 0
    log_every: int = 20
    deadline: float | None = None
    batch_multiple: int = 2


class _Clock:
    """What there is time for before a deadline, by the longest that each kind of work has taken so far.

    Work that was not seen yet is taken for a share of the time allowed.
    """

    _GUESSED_SHARE = {"step": 0.0, "save": 0.02, "validate": 0.1}  # noqa: RUF012
    _ENDING_SECONDS = 2.0  # curves, and the process's own end

    def __init__(self, deadline: float | None) -> None:
        self._deadline, self._started = deadline, time.monotonic()
        self._longest: dict[str, float] = {}

    @contextmanager
    def measure(self, work: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._longest[work] = max(self._longest.get(work, 0.0), time.monotonic() - started)

    def is_too_late_for(self, *works: str) -> bool:
        if self._deadline is None:
            return False
        allowed = max(0.0, self._deadline - self._started)
        wanted = sum(self._longest.get(work, allowed * self._GUESSED_SHARE[work]) for work in works)
        return time.monotonic() + wanted + min(self._ENDING_SECONDS, allowed / 10) > self._deadline


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
    merge: Callable[[nn.Module], dict[str, float]] | None = None,
    on_epoch_start: Callable[[int], None] = lambda epoch: None,
    describe_rows: Callable[[list[int]], str] = str,
    should_stop: Callable[[int, dict[str, float]], bool] = lambda epoch, figures: False,
) -> Ending:
    """Run the epochs that are left. All ranks run this together.

    Args:
        trainer: the model and its state; ``trainer.progress`` says where to begin.
        loader: gives the batches of ``sampler``, whose epoch and first batch are set here.
        plan: what is done when.
        validate: figures of the networks on validation images, or None where there are none; may raise `Interrupted`
            when a stop is wanted.
        save: called with ``"best"`` or ``"last"`` and the newest figures.
        on_step: called with epoch, images in the step, and the newest figures every ``log_every`` steps (else empty).
        on_epoch: called with the epoch and its figures.
        stop: when its ``wanted`` is set, the state is saved after the step and the loop ends.
        mine: near classes, for the sampler, of a network; called before every ``mine_every``-th epoch but the first.
        merge: merges centres, judged by a network, and gives figures for the epoch; called before every
            ``merge_every``-th epoch but the first.
        on_epoch_start: called with every epoch before its first step, also when it is resumed in its middle.
        describe_rows: names images by their rows.
        should_stop: whether to end after an epoch with these figures, as if patience had run out.

    Raises:
        Interrupted: a stop was asked for; the last checkpoint continues at the next batch.
        DataError: a training image cannot be read.
        TrainingError: loss or gradient was not finite too often in a row.
    """
    progress, watch, clock = trainer.progress, _Watch(trainer), _Clock(plan.deadline)
    sign = -1.0 if plan.keep_best_by.endswith("error") else 1.0
    figures: dict[str, float] = {}
    spoilt: list[int] = []  # rows of the newest steps that were skipped, one after the other

    def measure() -> dict[str, float]:
        assert validate is not None
        with clock.measure("validate"):
            return validate()

    def store(name: str) -> None:
        with clock.measure("save"):
            save(name, figures)

    def keep_if_best(epoch: int) -> None:
        measured = figures[plan.keep_best_by]
        if progress.best is None or sign * measured > sign * progress.best:
            progress.improved_epoch = epoch
        elif measured != progress.best:
            return
        progress.best, progress.best_epoch = measured, epoch
        store("best")

    def leave_usable(epoch: int) -> Ending:
        if validate is None:
            store("best")
        elif progress.best is None:
            figures.update(measure())
            keep_if_best(epoch)
        return Ending.OUT_OF_TIME

    def agree(is_late: bool, *others: bool) -> tuple[bool, int, bool, list[bool]]:
        flags = [stop.wanted, stop.wanted and stop.exit_code == _TERMINATED, is_late, *others]
        is_stopped, is_terminated, is_late, *said = trainer.ranks.agree(flags, trainer.device)
        return is_stopped, _TERMINATED if is_terminated else 128 + signal.SIGINT, is_late, said

    while progress.epoch < plan.epochs:
        if _is_hopeless(trainer, plan):
            return Ending.NO_BETTER
        sampler.epoch, sampler.first_batch = progress.epoch, progress.batch
        is_later = not progress.batch and progress.epoch > 0  # at the start of an epoch, but of the first
        if mine is not None and is_later and progress.epoch % plan.mine_every == 0:
            sampler.near_classes = mine(trainer.evaluated)
        if merge is not None and is_later and progress.epoch % plan.merge_every == 0:
            for name, value in merge(trainer.evaluated).items():
                trainer.tally.note(name, value)
        trainer.recognizer.train()
        trainer.objective.train()
        on_epoch_start(progress.epoch)  # after train(), which would wake what is frozen
        following = progress.epoch + 1
        is_due = validate is not None and (following % plan.validate_every == 0 or following == plan.epochs)
        for batch in loader:
            if batch.broken and trainer.ranks.size == 1:
                raise _explain_broken(batch)
            with clock.measure("step"):
                losses = take_step(trainer, batch, plan)
            if progress.first_loss is None:
                progress.first_loss = float(losses["loss"])
            progress.batch += 1
            spoilt = [*spoilt, *batch.rows.tolist()] if progress.skipped_in_a_row else []
            if progress.skipped_in_a_row >= _MOST_SKIPPED:
                everyone = [row for rows in trainer.ranks.gather_objects(spoilt) for row in rows]
                raise _explain_not_finite(trainer, describe_rows(list(dict.fromkeys(everyone))))
            if trainer.lacks_positives(batch.labels):
                trainer.tally.count("batches_without_positives")
            # Reading a loss waits for the device, so it is done once in a while; at places a resume comes to as well.
            shown: dict[str, float] = {}
            if progress.batch % plan.log_every == 0 or progress.batch == len(sampler):
                shown = {name: float(value) for name, value in losses.items()} | watch.look()
                shown["learning_rate_factor"] = trainer.get_rate_factor(progress.step - 1)
            on_step(progress.epoch, len(batch.labels), shown)
            # Next comes another step, or the epoch's end, which a stop at the last batch leaves to the resume.
            is_last = progress.batch == len(sampler)
            works = ["save"] if is_last else ["step", "save"]
            if validate is not None and (progress.best is None or (is_last and is_due)):
                works += ["validate", "save"]
            is_late = clock.is_too_late_for(*works)
            is_stopped, exit_code, is_late, (is_broken,) = agree(is_late, bool(batch.broken))
            if is_broken:  # after the step, which the other ranks could not do alone; it is not saved
                raise _explain_broken(batch)
            if is_stopped or is_late:
                store("last")
            if is_stopped:
                raise Interrupted(
                    f"stopped in epoch {progress.epoch + 1} after batch {progress.batch}; the state is saved.",
                    exit_code,
                )
            if is_late:
                return leave_usable(progress.epoch)
        measured: dict[str, float] = {}
        if is_due:
            try:
                measured = measure()
            except Interrupted as error:
                store("last")
                raise Interrupted(
                    f"stopped while epoch {progress.epoch + 1} was validated; the state is saved.", error.exit_code
                ) from None
        figures = trainer.take_figures() | measured
        figures["learning_rate_factor"] = trainer.get_rate_factor(max(0, progress.step - 1))
        finished = progress.epoch
        progress.epoch, progress.batch = finished + 1, 0
        if is_due:
            keep_if_best(finished)
        elif validate is None:
            store("best")
        on_epoch(finished, figures)  # before the checkpoint: a resume drops lines that it writes again, it adds none
        store("last")
        if progress.epoch == plan.epochs:
            break
        works = (
            ["step", "save"] if validate is None or progress.best is not None else ["step", "save", "validate", "save"]
        )
        is_late = clock.is_too_late_for(*works)
        is_stopped, exit_code, is_late, (is_hopeless,) = agree(is_late, should_stop(finished, figures))
        if is_stopped:
            raise Interrupted(f"stopped after epoch {progress.epoch}; the state is saved.", exit_code)
        if is_hopeless:
            return Ending.NO_BETTER
        if is_late:
            return leave_usable(finished)
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
    raise explain_out_of_memory(trainer, batch.images, batch.labels, multiple_of=plan.batch_multiple)


def _is_hopeless(trainer: Trainer, plan: Plan) -> bool:
    """Whether patience ran out, told from the progress alone, so that a resume comes to the same."""
    progress = trainer.progress
    if not plan.patience or progress.batch or progress.improved_epoch is None:
        return False
    return (progress.epoch - 1 - progress.improved_epoch) // plan.validate_every >= plan.patience


class _Watch:
    """Looks how the newest embeddings stand, and tells what is wrong with them while it happens."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._idle = 0

    def look(self) -> dict[str, float]:
        """Mean similarity, and the share of active pairs where there are pairs; noted for the epoch as well."""
        trainer = self._trainer
        health = trainer.measure_health()
        if health is None:
            return {}
        figures = {"embedding_similarity": health.mean_similarity}
        if health.pairs is not None:
            figures["active_pairs"] = health.pairs.active_share
            self._idle = self._idle + 1 if health.pairs.active_share < _IDLE_PAIRS else 0
        for name, value in figures.items():
            trainer.tally.note(name, value)
        if trainer.ranks.is_first and health.mean_similarity > _COLLAPSED and health.classes > 1:
            warn(
                f"step {trainer.progress.step}: the embeddings of a batch are nearly one point (mean similarity "
                f"{health.mean_similarity:.3f}). Lower train.learning_rate or loss.metric_weight if it stays so."
            )
        if trainer.ranks.is_first and self._idle == _IDLE_LOOKS:
            warn(
                f"step {trainer.progress.step}: hardly any pair is active any more ({figures['active_pairs']:.1e}), so "
                "the metric term teaches nothing. Make batches harder (train.hard_classes) or its margins wider."
            )
        return figures


def describe_rise(progress: Progress, figures: dict[str, float]) -> str:
    """What to tell of an epoch whose mean loss is far above that of the first step; nothing where it is not."""
    first, loss = progress.first_loss, figures.get("train_loss")
    if first is None or loss is None or not loss > _RISEN * max(1.0, first):
        return ""
    return (
        f"The loss went up, from {first:.3g} in the first step to {loss:.3g}: the training diverged. Train anew with a "
        "lower train.learning_rate or a longer train.warmup_epochs, under another name (name=...)"
    )


def _explain_broken(batch: TrainingBatch) -> DataError:
    if not batch.broken:
        return DataError("training: another process met an image that cannot be read; its own message says which.")
    return DataError(
        f"training: {len(batch.broken)} images of a batch cannot be read, the first: {batch.broken[0]} "
        "Ingest again, so that broken images are left out; if they have moved, name their folder with "
        "data.images=FOLDER."
    )


def _explain_not_finite(trainer: Trainer, images: str) -> TrainingError:
    return TrainingError(
        f"training: loss and gradient must be finite; in {_MOST_SKIPPED} steps in a row, up to step "
        f"{trainer.progress.step}, one was not. None of these steps was taken. Their images: {images}. "
        "Train anew with a lower train.learning_rate or a longer train.warmup_epochs, under another name (name=...); "
        "--resume goes on from the last checkpoint with the same settings."
    )


def describe_images(ids: list[str], rows: list[int], listed: Path | None = None) -> str:
    """The first few images by their ids; all of them are written to ``listed``, a line each."""
    chosen = [ids[row] for row in rows]
    if listed is None:
        return describe_offenders(chosen)
    write_text(listed, "".join(f"{one}\n" for one in chosen))
    return f"{describe_offenders(chosen)}, all of them in {listed}"


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
        return ProcessLost(
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
    return ProcessLost(
        f"training: a loader process died ({str(error).splitlines()[0]}). It may have run out of memory: lower "
        "train.workers, or give the container more shared memory (--shm-size). --resume goes on."
    )
