"""The training loop: steps, epochs, validation, checkpoints, and a stop that loses nothing."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from productrec.data.dataset import TrainingBatch
from productrec.data.samplers import EpochSampler
from productrec.errors import DataError, Interrupted, TrainingError
from productrec.models.recognizer import Recognizer
from productrec.runtime import StopRequest, autocast
from productrec.training.average import WeightAverage
from productrec.training.mixing import Mixture, cut_mix
from productrec.training.objective import JointLoss
from productrec.training.optimiser import compute_rate_factor, set_rate


@dataclass
class Progress:
    """How far a training is: ``epoch`` and ``batch`` are the next to run; ``best`` is the best validation value."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int | None = None


class Trainer:
    """Everything one optimisation step needs, and its complete state."""

    def __init__(
        self,
        recognizer: Recognizer,
        objective: JointLoss,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        dtype: torch.dtype,
        warmup_steps: int,
        total_steps: int,
        gradient_clip: float = 0.0,
        ema_decay: float = 0.0,
        compile_network: bool = False,
        cut_mix_share: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.recognizer = recognizer
        self.objective = objective
        self.optimizer = optimizer
        self.progress = Progress()
        self.average = WeightAverage(recognizer, ema_decay) if ema_decay else None
        self._keys_of = WeightAverage(recognizer, objective.key_momentum) if objective.key_momentum else None
        self._network: Callable[[Tensor], Any] = torch.compile(recognizer) if compile_network else recognizer
        self._device, self._dtype = device, dtype
        self._warmup_steps, self._total_steps = warmup_steps, total_steps
        self._clip = gradient_clip
        self._cut_mix_share, self._seed = cut_mix_share, seed
        self._scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    @property
    def evaluated(self) -> nn.Module:
        """The network to validate and keep: the averaged one, where there is an average."""
        return self.recognizer if self.average is None else self.average.network

    def run_step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One forward, backward and update; returns the loss and its terms as tensors that nobody waited for."""
        images = images.to(self._device, non_blocking=True)
        labels = labels.to(self._device, non_blocking=True)
        images, mixture = self._mix(images, labels)
        factor = compute_rate_factor(self.progress.step, warmup_steps=self._warmup_steps, total_steps=self._total_steps)
        set_rate(self.optimizer, factor)
        with autocast(self._device, self._dtype):
            recognized = self._network(images)
            keys = self._compute_keys(images) if mixture is None else None
        loss, terms = self.objective(recognized, labels, mixture, keys)
        self._scaler.scale(loss).backward()
        if self._clip:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.progress.step)
        if self._keys_of is not None:
            self._keys_of.update(self.progress.step)
        self.progress.step += 1
        return {"loss": loss.detach(), **terms}

    @torch.no_grad()
    def _compute_keys(self, images: Tensor) -> Tensor | None:
        if self._keys_of is None:
            return None
        keys: Tensor = self._keys_of.network(images).embeddings
        return keys

    def _mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Mixture | None]:
        """Mix this step's batch, or not, by (seed, step) alone: a resume mixes the same batches in the same way."""
        if not self._cut_mix_share:
            return images, None
        generator = np.random.default_rng([self._seed, self.progress.step])
        if generator.random() >= self._cut_mix_share:
            return images, None
        return cut_mix(images, labels, generator)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on: tensors and plain values only."""
        state: dict[str, Any] = {
            "recognizer": self.recognizer.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "progress": asdict(self.progress),
            "random": torch.get_rng_state(),
        }
        if self.average is not None:
            state["average"] = self.average.network.state_dict()
        if self._keys_of is not None:
            state["keys_of"] = self._keys_of.network.state_dict()
        if self._device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self._device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that `state_dict` gave."""
        self.recognizer.load_state_dict(state["recognizer"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        torch.set_rng_state(state["random"].cpu())
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])
        if self._keys_of is not None:
            self._keys_of.network.load_state_dict(state["keys_of"])
        if self._device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self._device)


def run_training(
    trainer: Trainer,
    loader: Iterable[TrainingBatch],
    sampler: EpochSampler,
    *,
    epochs: int,
    validate: Callable[[nn.Module], dict[str, float]] | None,
    validate_every: int,
    keep_best_by: str,
    save: Callable[[str, dict[str, float]], None],
    on_step: Callable[[int, int, dict[str, float]], None],
    on_epoch: Callable[[int, dict[str, float]], None],
    stop: StopRequest,
    log_every: int = 20,
    mine: Callable[[nn.Module], np.ndarray] | None = None,
    mine_every: int = 1,
) -> None:
    """Run the epochs that are left.

    Args:
        trainer: the model and its state; ``trainer.progress`` says where to begin.
        loader: gives the batches of ``sampler``, whose epoch and first batch are set here.
        epochs: how many epochs there are in all.
        validate: figures of a network on validation images, or None where there are none.
        keep_best_by: the figure that decides the best checkpoint; lower is better for those that end in ``error``.
        save: called with ``"best"`` or ``"last"`` and the newest figures.
        on_step: called with epoch, images in the step, and the newest losses every ``log_every`` steps (else empty).
        on_epoch: called with the epoch and its figures.
        mine: near classes, for the sampler, of a network; called before every ``mine_every``-th epoch but the first.
        stop: when its ``wanted`` is set, the state is saved after the step and the loop ends.

    Raises:
        Interrupted: a stop was asked for; the last checkpoint continues at the next batch.
        DataError: a training image cannot be read.
        TrainingError: the loss is no longer finite.
    """
    progress = trainer.progress
    sign = -1.0 if keep_best_by.endswith("error") else 1.0
    figures: dict[str, float] = {}
    while progress.epoch < epochs:
        sampler.epoch, sampler.first_batch = progress.epoch, progress.batch
        if mine is not None and not progress.batch and progress.epoch and progress.epoch % mine_every == 0:
            sampler.near_classes = mine(trainer.evaluated)
        trainer.recognizer.train()
        trainer.objective.train()
        sums: dict[str, Tensor] = {}
        counts: Counter[str] = Counter()
        for count, batch in enumerate(_check_batches(loader), start=1):
            losses = trainer.run_step(batch.images, batch.labels)
            for name, value in losses.items():
                sums[name] = sums[name] + value if name in sums else value.clone()
                counts[name] += 1  # a mixed batch has no metric term
            progress.batch += 1
            # Reading a loss waits for the device, so it is done once in a while.
            shown: dict[str, float] = {}
            if count % log_every == 0 or progress.batch == len(sampler):
                shown = {name: float(value) for name, value in losses.items()}
                _check_finite(shown, progress)
            on_step(progress.epoch, len(batch.labels), shown)
            if stop.wanted and progress.batch < len(sampler):
                save("last", figures)
                raise Interrupted(
                    f"stopped in epoch {progress.epoch + 1} after batch {progress.batch}; the state is saved."
                )
        figures = {f"train_{name}": float(total) / counts[name] for name, total in sums.items()}
        figures["learning_rate_factor"] = compute_rate_factor(
            max(0, progress.step - 1), warmup_steps=trainer._warmup_steps, total_steps=trainer._total_steps
        )
        finished = progress.epoch
        progress.epoch, progress.batch = finished + 1, 0
        if validate is not None and (progress.epoch % validate_every == 0 or progress.epoch == epochs):
            figures |= validate(trainer.evaluated)
            measured = figures[keep_best_by]
            if progress.best is None or sign * measured >= sign * progress.best:
                progress.best, progress.best_epoch = measured, finished
                save("best", figures)
        elif validate is None:
            save("best", figures)
        on_epoch(finished, figures)  # before the checkpoint: a resume drops lines that it writes again, it adds none
        save("last", figures)
        if stop.wanted and progress.epoch < epochs:
            raise Interrupted(f"stopped after epoch {progress.epoch}; the state is saved.")


def _check_batches(loader: Iterable[TrainingBatch]) -> Iterator[TrainingBatch]:
    for batch in loader:
        if batch.broken:
            raise DataError(
                f"training: {len(batch.broken)} images of a batch cannot be read, the first: {batch.broken[0]} "
                "Ingest again, so that broken images are left out."
            )
        yield batch


def explain_loader_death(error: RuntimeError, stop: StopRequest) -> Exception:
    """What to raise for an error of `run_training` that may be a loader process's death: torch raises it anywhere."""
    if "DataLoader worker" not in str(error):
        return error
    if not stop.wanted:
        time.sleep(0.5)  # a signal to the whole group may reach this process after it has killed the other
    if stop.wanted:
        return Interrupted("stopped together with its loader processes; a resume begins at the last saved epoch.")
    return TrainingError(
        f"training: a loader process died ({str(error).splitlines()[0]}). It may have run out of memory: lower "
        "train.workers, or give the container more shared memory (--shm-size). --resume goes on."
    )


def _check_finite(losses: dict[str, float], progress: Progress) -> None:
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"training: {', '.join(bad)} must be finite; got {losses[bad[0]]} at step {progress.step}. "
            "Lower train.learning_rate or raise train.warmup_epochs; the last checkpoint is from before."
        )
