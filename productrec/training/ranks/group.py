"""Ranks: the processes that train one model together, and all they ever say to each other.

The mathematics is that of one process with the whole batch: embeddings are gathered, every rank computes the loss over
all of them, and takes the gradient of its own rows back, times the number of ranks, because gradients are averaged.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from productrec.errors import ProductrecError, TrainingError, describe_error
from productrec.losses.engine.gradient import refuse_second_derivative

_SECONDS_FOR_FIRST = 5.0


@dataclass(frozen=True)
class Ranks:
    """This process's ``rank`` among ``size``, ``local_size`` of them on its machine.

    Alone by default, and then nothing is ever sent.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def gather_rows(self, rows: Tensor, *, is_partial: bool = False) -> Tensor:
        """Rows (B, ...) of every rank, in the order of ranks, (size B, ...); B must be the same on all.

        The gradient of this rank's rows comes back times ``size``; those of the others belong to them. Where what is
        computed of the rows is only a part of it all (``is_partial``), the ranks' gradients are added up first.
        """
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self, is_partial)
        return gathered

    def gather_tensors(self, value: Tensor) -> list[Tensor]:
        """A tensor of every rank, all of one shape, in the order of ranks; without gradients."""
        if self.size == 1:
            return [value]
        gathered = [torch.empty_like(value) for _ in range(self.size)]
        distributed.all_gather(gathered, value.contiguous())
        return gathered

    def reduce(self, value: Tensor, by: Literal["sum", "max"]) -> Tensor:
        """A tensor of every rank, all of one shape, added up, or the largest of each; without gradients."""
        if self.size > 1:
            value = value.contiguous()
            distributed.all_reduce(value, op=distributed.ReduceOp.SUM if by == "sum" else distributed.ReduceOp.MAX)
        return value

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of parameters over the ranks, all in one message; without one counts as zero.

        A parameter that no rank has a gradient of keeps none.
        """
        if self.size == 1:
            return
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        has = torch.tensor(
            [parameter.grad is not None for parameter in wanted], dtype=torch.float32, device=_get_device(wanted)
        )
        distributed.all_reduce(has)
        present = [parameter for parameter, count in zip(wanted, has.tolist(), strict=True) if count]
        if not present:
            return
        parts = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in present]
        flat = torch.cat([part.flatten() for part in parts])
        distributed.all_reduce(flat)
        flat /= self.size
        for parameter, part in zip(present, torch.split(flat, [part.numel() for part in parts]), strict=True):
            # In the memory order of the weights: fused optimisers refuse another.
            parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))

    @torch.no_grad()
    def average_statistics(self, module: nn.Module) -> None:
        """Average a module's floating buffers over the ranks: statistics of norms that each has of its own images.

        Constants, which are not part of its state, and statistics of norms in eval mode, which are equal on all ranks,
        stay as they are: the mean of equal numbers may be off by rounding.
        """
        if self.size == 1:
            return
        kept = module.state_dict(keep_vars=True)
        resting = {
            id(buffer) for part in module.modules() if not part.training for buffer in part.buffers(recurse=False)
        }
        buffers = [
            buffer
            for name, buffer in module.named_buffers()
            if name in kept and id(buffer) not in resting and buffer.is_floating_point()
        ]
        if buffers:
            flat = torch.cat([buffer.flatten() for buffer in buffers])
            distributed.all_reduce(flat)
            flat /= self.size
            for buffer, part in zip(buffers, torch.split(flat, [buffer.numel() for buffer in buffers]), strict=True):
                buffer.copy_(part.view_as(buffer))

    def agree(self, flags: list[bool], device: torch.device) -> list[bool]:
        """Each flag, true where it is true on any rank."""
        if self.size == 1:
            return flags
        counts = torch.tensor(flags, dtype=torch.int32, device=device)
        distributed.all_reduce(counts, op=distributed.ReduceOp.MAX)
        return [bool(count) for count in counts.tolist()]

    def gather_objects(self, value: Any) -> list[Any]:
        """The value of every rank, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """The first rank's value, on all of them; what the others give is not looked at, nor sent."""
        if self.size == 1:
            return value
        values = [value if self.is_first else None]
        distributed.broadcast_object_list(values, src=0)
        return values[0]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks, is_partial: bool) -> Tensor:
        ctx.ranks, ctx.count, ctx.is_partial = ranks, len(rows), is_partial
        gathered = torch.cat(ranks.gather_tensors(rows))
        ctx.save_for_backward(gathered)
        return gathered

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        with torch.no_grad():
            total = ctx.ranks.reduce(outer.clone(), "sum") if ctx.is_partial else outer
            start = ctx.ranks.rank * ctx.count
            own = total[start : start + ctx.count] * ctx.ranks.size
        if torch.is_grad_enabled():  # create_graph; what the other ranks said is not in this one's graph
            own = refuse_second_derivative(own, outer, *ctx.saved_tensors)
        return own, None, None


def join_ranks(device: torch.device, *, timeout_minutes: float) -> Ranks:
    """Join the others, where this process was started by torchrun (or anything that sets its variables).

    Args:
        device: where this rank computes.
        timeout_minutes: without an answer for so long, a rank counts as dead and all end.

    Raises:
        TrainingError: they cannot be joined.
    """
    if is_only_process() or "RANK" not in os.environ:
        return Ranks()
    try:
        if not distributed.is_initialized():
            distributed.init_process_group(
                "nccl" if device.type == "cuda" else "gloo", timeout=datetime.timedelta(minutes=timeout_minutes)
            )
        size = distributed.get_world_size()
        return Ranks(distributed.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"ranks: cannot be joined ({describe_error(error)}). Start them with --nproc.") from None


def is_only_process() -> bool:
    """Whether torchrun has started no other with this process; known before they are joined."""
    return int(os.environ.get("WORLD_SIZE", "1")) <= 1


def is_first_process() -> bool:
    """Whether this process is alone, or will be the first of its ranks; known before they are joined."""
    return is_only_process() or int(os.environ.get("RANK", "0")) == 0


@contextmanager
def refuse_once() -> Iterator[None]:
    """What all ranks refuse alike, as a wrong setting, is said by a machine's first: torchrun then ends the others.

    A fault that another rank met alone is said as well, some seconds later.
    """
    try:
        yield
    except ProductrecError:
        if int(os.environ.get("LOCAL_RANK", "0")) > 0:
            time.sleep(_SECONDS_FOR_FIRST)
        raise


def leave_ranks() -> None:
    """Take leave of the others, where they were joined."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _get_device(parameters: list[nn.Parameter]) -> torch.device | None:
    return parameters[0].device if parameters else None
