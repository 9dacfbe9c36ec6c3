"""The trainer: one optimisation step, with its guards, chunks and ranks, and the complete state behind it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from productrec.errors import ArtifactError
from productrec.losses.diagnostics import PairDiagnostics
from productrec.models.recognizer import Recognized, Recognizer
from productrec.runtime import autocast
from productrec.training.average import WeightAverage
from productrec.training.chunks import Chunks
from productrec.training.mixing import Mixing, Mixture
from productrec.training.objective import JointLoss
from productrec.training.ranks import Ranks
from productrec.training.schedule import set_rate
from productrec.training.tally import Tally


@dataclass
class Progress:
    """How far a training is.

    ``epoch`` and ``batch`` are the next to run; ``best`` is the best validation value, of ``best_epoch``; ``skipped``
    counts steps that were not taken because something was not finite, ``skipped_in_a_row`` the newest of them.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int | None = None
    skipped: int = 0
    skipped_in_a_row: int = 0


@dataclass(frozen=True)
class Health:
    """How a batch's embeddings stand: their mean similarity, collapsed where it nears 1, and its pairs, if any."""

    mean_similarity: float
    pairs: PairDiagnostics | None


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
        schedule: Callable[[int], float],
        gradient_clip: float = 0.0,
        ema_decay: float = 0.0,
        compile_network: bool = False,
        mixing: Mixing | None = None,
        chunk_size: int = 0,
        ranks: Ranks | None = None,
    ) -> None:
        self.recognizer = recognizer
        self.objective = objective
        self.optimizer = optimizer
        self.progress = Progress()
        self.ranks = ranks or Ranks()
        self.average = WeightAverage(recognizer, ema_decay) if ema_decay else None
        self._keys_of = WeightAverage(recognizer, objective.key_momentum) if objective.key_momentum else None
        self._network: Callable[[Tensor], Recognized] = torch.compile(recognizer) if compile_network else recognizer
        both = recognizer.recognise_both
        self._recognise_both: Callable[..., tuple[Recognized, Tensor]] = (
            torch.compile(both) if compile_network else both
        )
        self.device, self._dtype = device, dtype
        self._schedule = schedule
        self._clip = gradient_clip
        self._mixing = mixing
        self.chunk_size = chunk_size
        self._scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._buffers = list(recognizer.buffers())  # statistics of norms: a forward pass moves them
        self._kept = [torch.empty_like(one) for one in self._buffers]
        self._newest: tuple[Tensor, Tensor] | None = None
        self._met_metric = False  # whether this step's batch is in a memory by now
        self.tally = Tally()

    @property
    def evaluated(self) -> nn.Module:
        """The network to validate and keep: the averaged one, where there is an average."""
        return self.recognizer if self.average is None else self.average.network

    def run_step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One forward, backward and update; returns the loss and its terms as tensors that nobody waited for.

        Where a loss or a gradient is not finite, weights, statistics of norms, averages and memory stay as they were,
        on all ranks, and ``progress`` counts the step as skipped.
        """
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        mixture: Mixture | None = None
        if self._mixing is not None:
            images, mixture = self._mixing.mix(images, labels, self.progress.step)
        set_rate(self.optimizer, self._schedule(self.progress.step))
        torch._foreach_copy_(self._kept, self._buffers)
        self._met_metric = False
        loss, terms = self._backward(images, labels, mixture)
        self.ranks.average_gradients(self.parameters)
        self.ranks.average_buffers(self.recognizer)
        if self._apply(loss):
            self.tally.add({"loss": loss, **terms})
            if self.average is not None:
                self.average.update(self.progress.step)
            if self._keys_of is not None:
                self._keys_of.update(self.progress.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        return {"loss": loss, **terms}

    def rehearse(self, images: Tensor) -> None:
        """Go forward and back through images (B, S, S, 3) for the memory that takes; the norms' statistics move."""
        images = images.to(self.device)
        with self._cast():
            recognized = self._network(images if self.objective.jigsaw is None else torch.cat([images, images]))
        torch.autograd.backward([recognized.embeddings.sum(), recognized.logits.sum()])
        self.optimizer.zero_grad(set_to_none=True)

    def get_rate_factor(self, step: int) -> float:
        """Share of the peak rate at a step."""
        return self._schedule(step)

    def measure_health(self) -> Health | None:
        """How the newest unmixed batch's embeddings stand; None before the first. Reading it waits for the device."""
        if self._newest is None:
            return None
        embeddings, labels = self._newest
        count = len(embeddings)
        together = float(embeddings.sum(dim=0).square().sum())
        similarity = (together - count) / (count * (count - 1)) if count > 1 else 0.0
        return Health(similarity, self.objective.diagnose(embeddings, labels))

    def _backward(self, images: Tensor, labels: Tensor, mixture: Mixture | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of the batch's loss; the loss and its terms, detached."""
        if self.chunk_size and self.chunk_size < len(images):
            chunks = Chunks(self.chunk_size, self.device)
            if mixture is not None or self.objective.metric is None:
                return chunks.backward_apart(
                    self._network, images, labels, mixture, self._compute_apart, self._scaler.scale, self._cast
                )
            keys = self._compute_keys(images)
            return chunks.backward_whole(
                self._network,
                self.recognizer,
                images,
                lambda whole: self._compute(whole, labels, None, keys),
                self._scaler.scale,
                self._cast,
            )
        keys = None if mixture is not None else self._compute_keys(images)
        jigsaw = self.objective.jigsaw if mixture is None else None
        if jigsaw is None:
            with self._cast():
                recognized = self._network(images)
            loss, terms = self._compute(recognized, labels, mixture, keys)
        else:
            destroyed, origins = jigsaw.destroy(images, self.progress.step, self.ranks.rank)
            with self._cast():
                recognized, maps = self._recognise_both(images, destroyed)
            loss, terms = self._compute(recognized, labels, None, keys, class_labels=torch.cat([labels, labels]))
            puzzle, said = jigsaw(maps, origins)
            loss, terms = loss + puzzle, terms | said
        if loss.requires_grad:
            torch.autograd.backward(self._scaler.scale(loss))
        return loss.detach(), terms

    def _compute(
        self,
        recognized: Recognized,
        labels: Tensor,
        mixture: Mixture | None,
        keys: Tensor | None,
        class_labels: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``class_labels``: of the logits, where they are of more images than the embeddings, which have ``labels``."""
        known = labels if class_labels is None else class_labels
        if self.device.type == "cpu":  # where losses refuse rows that are not finite
            is_bad = self.ranks.agree([not _is_finite(recognized)], self.device)[0]
            if is_bad:
                return recognized.logits.new_full((), torch.nan), {}
        if mixture is not None or self.objective.metric is None:
            return self._compute_apart(recognized, known, mixture)
        # Pairs are those of the whole batch, whichever rank its images are on.
        everyone = Recognized(self.ranks.gather_rows(recognized.embeddings), recognized.logits)
        every_label = self.ranks.gather_rows(labels)
        self._newest, self._met_metric = (everyone.embeddings.detach(), every_label), True
        every_key = None if keys is None else self.ranks.gather_rows(keys)
        said: tuple[Tensor, dict[str, Tensor]] = self.objective(everyone, known, None, every_key, every_label)
        return said

    def _compute_apart(
        self, recognized: Recognized, labels: Tensor, mixture: Mixture | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        said: tuple[Tensor, dict[str, Tensor]] = self.objective(recognized, labels, mixture)
        return said

    @torch.no_grad()
    def _compute_keys(self, images: Tensor) -> Tensor | None:
        if self._keys_of is None:
            return None
        with self._cast():
            keys = [
                self._keys_of.network(part).embeddings for part in torch.split(images, self.chunk_size or len(images))
            ]
        return torch.cat(keys)

    def _apply(self, loss: Tensor) -> bool:
        """Take the step, or leave everything as it was before the batch; whether it was taken."""
        gradients = [one.grad for one in self.parameters if one.grad is not None]
        if gradients:
            self._scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm(gradients)
        # One look at the device a step; a scaler's infinite gradients are its own affair while the loss is finite.
        is_loss_bad, is_norm_bad = self.ranks.agree(
            (~torch.isfinite(torch.stack([loss.float(), norm.float()]))).tolist(), self.device
        )
        if is_loss_bad or is_norm_bad:
            torch._foreach_copy_(self._buffers, self._kept)
            if self._met_metric:
                self.objective.forget_last()
        if is_loss_bad or (is_norm_bad and not self._scaler.is_enabled()):
            self.progress.skipped += 1
            self.tally.count("skipped_steps")
            self.progress.skipped_in_a_row += 1
        else:
            self.progress.skipped_in_a_row = 0
            if not is_norm_bad and self._clip:
                torch.nn.utils.clip_grads_with_norm_(self.parameters, self._clip, norm)
            if not is_norm_bad:
                self._scaler.step(self.optimizer)
        if self._scaler.is_enabled() and gradients:
            self._scaler.update()  # halves its scale where gradients were infinite
        return not (is_loss_bad or is_norm_bad)

    def _cast(self) -> AbstractContextManager[object]:
        return autocast(self.device, self._dtype)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on: tensors and plain values only. All ranks must call it together."""
        mine = {"torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            mine["cuda"] = torch.cuda.get_rng_state(self.device)
        state: dict[str, Any] = {
            "recognizer": self.recognizer.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "progress": asdict(self.progress),
            "tally": self.tally.state_dict(),
            "random": self.ranks.gather_objects(mine),
        }
        if self.average is not None:
            state["average"] = self.average.network.state_dict()
        if self._keys_of is not None:
            state["keys_of"] = self._keys_of.network.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that `state_dict` gave.

        Raises:
            ArtifactError: it is of another number of ranks, or of an older version.
        """
        if "tally" not in state:
            raise ArtifactError("resume: the state was written by an older version. Train the run anew.")
        random = state["random"]
        if len(random) != self.ranks.size:
            raise ArtifactError(
                f"resume: must have as many processes as the run was stopped with, {len(random)}; "
                f"got {self.ranks.size}. Start it with --nproc {len(random)}."
            )
        self.recognizer.load_state_dict(state["recognizer"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        vars(self.progress).update(state["progress"])
        self.tally.load_state_dict(state["tally"], self.device)
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])
        if self._keys_of is not None:
            self._keys_of.network.load_state_dict(state["keys_of"])
        mine = random[self.ranks.rank]
        torch.set_rng_state(mine["torch"].cpu())
        if self.device.type == "cuda" and "cuda" in mine:
            torch.cuda.set_rng_state(mine["cuda"].cpu(), self.device)


def _is_finite(recognized: Recognized) -> bool:
    return bool(recognized.embeddings.isfinite().all()) and bool(recognized.logits.isfinite().all())
