"""The checkpoints of a run: the best, the last and the one before it, and the newest, for their average."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from productrec.training.run.batches import Batches
from productrec.training.run.checkpoint import save_checkpoint
from productrec.training.run.resume import BEFORE, LAST, get_state
from productrec.training.run.soup import drop_older, get_recent_folder, list_recent
from productrec.training.step.trainer import Trainer

BEST = "best"


@dataclass(frozen=True)
class RunCheckpoints:
    """Where a run's checkpoints go, and what each says of the model besides its weights.

    ``class_ids``, ``class_keys``, ``class_names``: (C,) in the order of the logits; ``recipe``: every setting;
    ``table_fingerprint``: of the image table that is trained on; ``text``: of its text tower, see
    `Checkpoint.load_text`; None without one.
    """

    run_folder: Path
    class_ids: list[int]
    class_keys: list[str]
    class_names: list[str]
    recipe: dict[str, Any]
    table_fingerprint: str
    text: dict[str, str | None] | None = None

    @property
    def folder(self) -> Path:
        """The folder that holds them."""
        return self.run_folder / "checkpoints"

    def save(
        self,
        name: str,
        trainer: Trainer,
        batches: Batches,
        figures: dict[str, float],
        network: nn.Module | None = None,
    ) -> None:
        """Save a checkpoint, the last one with the complete state; all ranks call it together, the first one writes.

        Args:
            name: ``best``, ``last`` or another.
            trainer: what is saved.
            batches: part of the state.
            figures: to keep with it.
            network: whose weights are kept; None for the one that is evaluated.
        """
        state = get_state(trainer, batches) if name == LAST else None  # all ranks put it together
        network = network or trainer.evaluated
        if trainer.ranks.is_first:
            save_checkpoint(
                self.folder / name,
                network,
                class_ids=self.class_ids,
                class_keys=self.class_keys,
                class_names=self.class_names,
                recipe=self.recipe,
                table_fingerprint=self.table_fingerprint,
                figures=figures,
                state=state,
                centres=trainer.objective.get_centres(),
                text=self.text,
                keep_earlier=self.folder / BEFORE if name == LAST else None,
            )

    def save_recent(
        self, epoch: int, trainer: Trainer, batches: Batches, figures: dict[str, float], *, keep: int
    ) -> None:
        """Save an epoch's checkpoint, and drop all such ones but the newest ``keep``."""
        self.save(get_recent_folder(self.folder, epoch).name, trainer, batches, figures)
        if trainer.ranks.is_first:
            drop_older(self.folder, keep)

    def list_recent(self, count: int) -> list[Path]:
        """Folders of the newest epochs' checkpoints, the oldest first."""
        return list_recent(self.folder, count)


@dataclass(frozen=True)
class CheckpointBytes:
    """Bytes of a checkpoint's tensors: ``weights``, to recognise with, and ``state``, beside them in the last one."""

    weights: int
    state: int

    def count_all(self, *, epochs: int, keep_recent: int) -> int:
        """Those of a run that is finished: the best, the last, the one before it, and the newest for an average."""
        return self.weights * (1 + min(keep_recent, epochs)) + (self.weights + self.state) * min(2, epochs)

    def count_spare(self, *, epochs: int) -> int:
        """Those beyond them while the last one is written, beside the two that are there."""
        return self.weights + self.state if epochs > 2 else 0


def count_checkpoint_bytes(trainer: Trainer) -> CheckpointBytes:
    """What a trainer's checkpoints hold, without names and numbers; near classes that were mined are left out.

    Before the first step an optimiser has no moments yet, and they are not counted.
    """
    weights = {"weights": trainer.evaluated.state_dict(), "centres": trainer.objective.get_centres()}
    return CheckpointBytes(*(sum(_measure_storages(value).values()) for value in (weights, trainer.state_dict())))


def _measure_storages(value: Any) -> dict[int, int]:
    """Bytes of the storages of all tensors within mappings and lists, each once, by where it lies."""
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return {where: size for part in parts for where, size in _measure_storages(part).items()}
