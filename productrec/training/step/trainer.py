"""The trainer: one optimisation step, with its guards, chunks and ranks, and the complete state behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from productrec.data.title_batches import TitleBatch
from productrec.errors import ArtifactError
from productrec.losses.engine.diagnostics import PairDiagnostics
from productrec.models.recognizer import Recognizer
from productrec.runtime import get_random_state, set_random_state
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.sharded_head import ShardedHead, assemble_network, gather_shards, list_shard
from productrec.training.step.objective import JointLoss
from productrec.training.step.passes import Passes
from productrec.training.step.schedule import set_rate
from productrec.training.step.tally import Tally
from productrec.training.tricks.average import WeightAverage
from productrec.training.tricks.freezing import set_backbone_frozen, set_norms_frozen
from productrec.training.tricks.mixing import Mixing, Mixture


@dataclass
class Progress:
    """How far a training is.

    ``epoch`` and ``batch`` are the next to run; ``best`` is the best validation value, last reached in ``best_epoch``
    and first in ``improved_epoch``; ``skipped`` counts steps that were not taken because something was not finite,
    ``skipped_in_a_row`` the newest of them; ``first_loss`` is that of the first step.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int | None = None
    improved_epoch: int | None = None
    skipped: int = 0
    skipped_in_a_row: int = 0
    first_loss: float | None = None


@dataclass(frozen=True)
class Health:
    """How a batch's embeddings stand: their mean similarity, collapsed where it nears 1, and its pairs, if any.

    ``classes``: how many there are in the batch; one alone may well be one point.
    """

    mean_similarity: float
    classes: int
    pairs: PairDiagnostics | None


class Trainer:
    """Everything one optimisation step needs, and its complete state.

    ``scaler``: of losses under half precision; ``average``: of the weights, and ``key_encoder``: the slower network
    whose keys a memory holds, and ``mixing`` of images, each None
    where the recipe wants none; ``tally``: of the epoch.
    """

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
        self.key_encoder = WeightAverage(recognizer, objective.key_momentum) if objective.key_momentum else None
        self.passes = Passes(
            recognizer,
            objective,
            device=device,
            dtype=dtype,
            chunk_size=chunk_size,
            compile_network=compile_network,
            ranks=self.ranks,
            keys_of=None if self.key_encoder is None else self.key_encoder.network,
        )
        self.device = device
        self._schedule = schedule
        self._clip = gradient_clip
        self.mixing = mixing
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        head = recognizer.head
        self._sharded = head if isinstance(head, ShardedHead) else None
        self._own = [] if self._sharded is None else list(self._sharded.parameters())  # other ranks have others
        own = {id(parameter) for parameter in self._own}
        self._shared = [parameter for parameter in self.parameters if id(parameter) not in own]
        # What a forward pass moves: statistics of norms, a loss's own scale.
        self._buffers = [*recognizer.buffers(), *objective.list_statistics()]
        self._kept = [torch.empty_like(buffer) for buffer in self._buffers]
        self.tally = Tally()

    @property
    def evaluated(self) -> nn.Module:
        """The network to validate and keep: the averaged one, where there is an average.

        Where the head stands in shards it is put together, and all ranks must ask for it together.
        """
        return assemble_network(self.recognizer if self.average is None else self.average.network)

    @property
    def raw(self) -> nn.Module:
        """The network as it is trained, to validate beside an average; likewise put together."""
        return assemble_network(self.recognizer)

    def set_modes(self, *, is_frozen: bool, freeze_norms: bool) -> None:
        """Put networks and losses into training mode: with a backbone that learns, or not, or whose norms rest."""
        self.recognizer.train()
        self.objective.train()
        set_backbone_frozen(self.recognizer, is_frozen)  # after train(), which would wake what is frozen
        set_norms_frozen(self.recognizer, is_frozen or freeze_norms)

    def run_step(self, images: Tensor, labels: Tensor, titles: TitleBatch | None = None) -> dict[str, Tensor]:
        """One forward, backward and update; returns the loss and its terms as tensors that nobody waited for.

        ``titles`` are those of the images (B, S, S, 3), where there is a text tower.

        Where a loss or a gradient is not finite, weights, statistics of norms, averages and memory stay as they were,
        on all ranks, and ``progress`` counts the step as skipped.
        """
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        mixture: Mixture | None = None
        if self.mixing is not None:
            images, mixture = self.mixing.mix(images, labels, self.progress.step)
        set_rate(self.optimizer, self._schedule(self.progress.step))
        torch._foreach_copy_(self._kept, self._buffers)

        if titles is not None:
            titles = titles.to(self.device)
        loss, terms = self.passes.run(images, labels, mixture, self.progress.step, self.scaler.scale, titles)
        self.ranks.average_gradients(self._shared)
        self.ranks.average_statistics(self.recognizer)

        has_gradients = any(parameter.grad is not None for parameter in self.parameters)
        if has_gradients:
            self.scaler.unscale_(self.optimizer)
        norm = self._compute_norm()
        # One look at the device a step.
        is_loss_bad, is_norm_bad = self.ranks.agree(
            (~torch.isfinite(torch.stack([loss.float(), norm.float()]))).tolist(), self.device
        )
        if is_loss_bad or is_norm_bad:
            self._take_back(is_loss_bad)
        else:
            self.progress.skipped_in_a_row = 0
            if self._clip:
                torch.nn.utils.clip_grads_with_norm_(self.parameters, self._clip, norm)
            self.scaler.step(self.optimizer)
            self.tally.add({"loss": loss, **terms})
            for follower in (self.average, self.key_encoder):
                if follower is not None:
                    follower.update(self.progress.step)
        if self.scaler.is_enabled() and has_gradients:
            self.scaler.update()  # halves its scale where gradients were infinite
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        return {"loss": loss, **terms}

    def lacks_positives(self, labels: Tensor) -> bool:
        """Whether the newest batch, of this rank's labels (B,), met a loss over pairs without two images of a class."""
        if not self.objective.needs_positives or not self.passes.met_metric or self.passes.newest is None:
            return False
        seen = labels if self.ranks.size == 1 else self.passes.newest[1]  # those on the host, where they are all
        return len(torch.unique(seen)) == len(seen)

    def take_figures(self) -> dict[str, float]:
        """An epoch's figures, and begin the next: means over all ranks' images. All ranks must call it together."""
        figures = self.ranks.gather_objects(self.tally.take())
        return {
            name: sum(own[name] for own in figures if name in own) / sum(name in own for own in figures)
            for name in figures[0]
        }

    def get_rate_factor(self, step: int) -> float:
        """Share of the peak rate at a step."""
        return self._schedule(step)

    def measure_health(self) -> Health | None:
        """How the newest unmixed batch's embeddings stand; None before the first. Reading it waits for the device."""
        if self.passes.newest is None:
            return None
        embeddings, labels = self.passes.newest
        count = len(embeddings)
        together = float(embeddings.sum(dim=0).square().sum())
        similarity = (together - count) / (count * (count - 1)) if count > 1 else 0.0
        return Health(similarity, len(torch.unique(labels)), self.objective.diagnose(embeddings, labels))

    def _take_back(self, is_loss_bad: bool) -> None:
        """Leave everything as it was before the batch, and count the step as skipped."""
        torch._foreach_copy_(self._buffers, self._kept)
        if self.passes.met_metric:
            self.objective.forget_last()
        # A scaler's infinite gradients are its own affair while the loss is finite and there is a scale to lower.
        if not is_loss_bad and self.scaler.is_enabled() and self.scaler.get_scale() >= 1:
            self.progress.skipped_in_a_row = 0
            return
        self.progress.skipped += 1
        self.tally.count("skipped_steps")
        self.progress.skipped_in_a_row += 1

    def _compute_norm(self) -> Tensor:
        """Norm of all gradients, those of other ranks' shards among them."""
        shared, own = (
            torch.nn.utils.get_total_norm([parameter.grad for parameter in group if parameter.grad is not None])
            for group in (self._shared, self._own)
        )
        if self._sharded is None:
            return shared
        others = self.ranks.reduce(own.square().to(self.device), "sum")
        return (shared.square().to(self.device) + others).sqrt()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on: tensors and plain values only. All ranks must call it together."""
        mine = get_random_state(self.device) | {"tally": self.tally.state_dict()}
        state: dict[str, Any] = {
            "recognizer": self.recognizer.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
            "random": self.ranks.gather_objects(mine),
        }
        if self._sharded is not None and self.ranks.size > 1:
            state["shards"] = gather_shards(self._list_shard(), self.ranks)
        if self.average is not None:
            state["average"] = self.average.network.state_dict()
        if self.key_encoder is not None:
            state["keys_of"] = self.key_encoder.network.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that `state_dict` gave.

        Raises:
            ArtifactError: it is of another number of ranks, or of an older version.
        """
        random = state["random"]
        if "tally" not in random[0]:
            raise ArtifactError("resume: the state was written by an older version. Train the run anew.")
        if bool(state["scaler"]) != self.scaler.is_enabled():
            raise ArtifactError(
                "resume: activations must be float16 where those of the stopped run were, and only there; this device "
                "chooses otherwise. Resume on one like it, or train anew with train.precision given."
            )
        if len(random) != self.ranks.size:
            raise ArtifactError(
                f"resume: must have as many processes as the run was stopped with, {len(random)}; "
                f"got {self.ranks.size}. Start it with --nproc {len(random)}."
            )
        self.recognizer.load_state_dict(state["recognizer"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        vars(self.progress).update(state["progress"])
        mine = random[self.ranks.rank]
        self.tally.load_state_dict(mine["tally"], self.device)
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])
        if self.key_encoder is not None:
            self.key_encoder.network.load_state_dict(state["keys_of"])
        if "shards" in state:
            for name, value in self._list_shard().items():
                value.copy_(state["shards"][self.ranks.rank][name])
        set_random_state(mine, self.device)

    def _list_shard(self) -> dict[str, Tensor]:
        assert self._sharded is not None
        average = None if self.average is None else self.average.network
        return list_shard(self._sharded, self.optimizer, average)
