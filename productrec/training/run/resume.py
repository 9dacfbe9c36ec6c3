"""Resuming: the state that a run's last checkpoint keeps, and how it is taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from productrec.console import say, warn
from productrec.data.samplers import ORDER
from productrec.errors import ArtifactError
from productrec.training.run.batches import Batches
from productrec.training.run.checkpoint import load_checkpoint
from productrec.training.step.trainer import Trainer

LAST, BEFORE = "last", "before"  # checkpoints to resume from
_NEAR_CLASSES, _ORDER = "near_classes", "order"  # in the state of a checkpoint


def get_state(trainer: Trainer, batches: Batches) -> dict[str, Any]:
    """What a checkpoint keeps to resume from; all ranks put it together."""
    state = trainer.state_dict() | {_ORDER: ORDER}
    if batches.near_classes is not None:
        state[_NEAR_CLASSES] = torch.from_numpy(batches.near_classes)
    return state


def resume_training(trainer: Trainer, batches: Batches, folder: Path, class_ids: list[int]) -> None:
    """Take up the newest checkpoint that is whole; nothing, where none was written yet."""
    names = [name for name in (LAST, BEFORE) if (folder / "checkpoints" / name).exists()]
    state = None
    for name in names:
        try:
            checkpoint = load_checkpoint(folder / "checkpoints" / name)
            state = checkpoint.load_state()
            break
        except ArtifactError as error:
            if name == names[-1]:
                raise
            warn(f"{error} Going on from the checkpoint before it.")
    seen = trainer.ranks.gather_objects(None if state is None else f"{name} ({checkpoint.weights_digest[:8]})")
    if len(set(seen)) > 1:
        raise ArtifactError(
            f"{folder}: all processes must see the same checkpoint; they see {', '.join(map(str, seen))}. "
            "Keep the run folder on storage that every machine sees, and wait until it shows the same files."
        )
    if state is None:
        return
    if checkpoint.class_ids != class_ids:
        raise ArtifactError(
            f"{folder}: the checkpoint's class order must be the image table's; it differs. Train anew."
        )
    if state.pop(_ORDER, 1) != ORDER:
        raise ArtifactError(
            f"{folder}: was stopped under an older version, whose epochs hold other batches. Train the run anew, under "
            "another name (name=...)."
        )
    try:
        if _NEAR_CLASSES in state:
            batches.near_classes = state.pop(_NEAR_CLASSES).numpy()
        trainer.load_state_dict(state)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ArtifactError(
            f"{checkpoint.folder}: the state is not one of this training ({reason}). It was changed, or is of another "
            "version: train anew under another name (name=...)."
        ) from error
    progress = trainer.progress
    say(f"resuming {folder} at epoch {progress.epoch + 1}, batch {progress.batch + 1}")
