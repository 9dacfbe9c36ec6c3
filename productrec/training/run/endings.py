"""Endings: why a training ended, and what to tell of the faults that end one."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path

from torch import distributed

from productrec.artifacts import write_text
from productrec.data.dataset import TrainingBatch
from productrec.errors import DataError, Interrupted, ProcessLost, TrainingError, describe_error, describe_offenders
from productrec.runtime import StopRequest
from productrec.training.ranks.group import Ranks
from productrec.training.step.fitting import is_out_of_memory

_PEER_WORDS = ("gloo", "NCCL", "onnection closed by peer", "imed out waiting")


class Ending(Enum):
    """Why a training ended: all epochs are done, patience ran out, or time did, and then it can be resumed."""

    FINISHED = "finished"
    NO_BETTER = "no better"
    OUT_OF_TIME = "out of time"


def explain_broken(batch: TrainingBatch) -> DataError:
    """What to raise for a batch with images that cannot be read, on this process or on another."""
    if not batch.broken:
        return DataError("training: another process met an image that cannot be read; its own message says which.")
    return DataError(
        f"training: {len(batch.broken)} images of a batch cannot be read, the first: {batch.broken[0]} "
        "Ingest again, so that broken images are left out; if they have moved, name their folder with "
        "data.images=FOLDER."
    )


def explain_not_finite(images: str, *, step: int, skipped: int) -> TrainingError:
    """What to raise after ``skipped`` steps in a row, up to ``step``, of these images; see `describe_images`."""
    return TrainingError(
        f"training: loss and gradient must be finite; in {skipped} steps in a row, up to step "
        f"{step}, one was not. None of these steps was taken. Their images: {images}. "
        "Train anew with a lower train.learning_rate or a longer train.warmup_epochs, under another name (name=...); "
        "--resume goes on from the last checkpoint with the same settings."
    )


def describe_images(image_ids: list[str], listed: Path) -> str:
    """The first few images by their ids; all of them are written to ``listed``, a line each."""
    write_text(listed, "".join(f"{image_id}\n" for image_id in image_ids))
    return f"{describe_offenders(image_ids)}, all of them in {listed}"


def explain_death(error: RuntimeError, stop: StopRequest, ranks: Ranks) -> Exception:
    """What to raise for an error that may be another process's death: torch raises it in whatever line runs."""
    if is_out_of_memory(error):
        return TrainingError(
            "training: out of memory outside of a step, as in validation. Lower predict.batch_size or train.batch_size."
        )
    if "DataLoader worker" not in str(error):
        is_peer = isinstance(error, distributed.DistError) or any(word in str(error) for word in _PEER_WORDS)
        if ranks.size == 1 or not is_peer:
            return error
        return ProcessLost(
            f"training: another of the {ranks.size} processes ended or hangs ({describe_error(error)}); its "
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
        f"training: a loader process died ({describe_error(error)}). It may have run out of memory: lower "
        "train.workers, or give the container more shared memory (--shm-size). --resume goes on."
    )
