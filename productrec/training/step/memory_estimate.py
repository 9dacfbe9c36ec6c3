"""Memory: what a step will want at least, known before the first one, where running out would be the process's end.

A GPU refuses what does not fit, and `fitting` then looks for what does. On a CPU the kernel ends the process without a
word, so what is surely too large is refused beforehand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from productrec.errors import TrainingError
from productrec.runtime import measure_free_memory
from productrec.training.step.optimiser import count_moments
from productrec.training.step.trainer import Trainer

_NUMBER_BYTES = 4  # of a gradient, and of each moment of a learned number
_PIXEL_BYTES = 15  # a colour pixel as bytes, and as float32
_GENEROUS = 1000  # no backbone keeps so many times the bytes of its images
_ROOM = 0.8  # of what is free, that advice makes use of
_GIB = 2**30


@dataclass(frozen=True)
class StepBytes:
    """What a step takes at least, beside weights and averages of them.

    ``fixed``: gradients and moments; ``each``: what the network keeps of an image for the way back, and its pixels;
    ``seen``: images that the network sees at a time; ``waiting``: pixels of those that wait for their chunk.
    """

    fixed: int
    each: int
    seen: int
    waiting: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.fixed + self.seen * self.each + self.waiting


def check_step_fits(
    trainer: Trainer,
    *,
    batch_size: int,
    side_px: int,
    multiple_of: int,
    dtype: torch.dtype = torch.float32,
    is_frozen: bool = False,
) -> None:
    """Refuse a step on the CPU that needs more memory than the machine, or the container, has left.

    It counts what the backbone keeps for the way back, gradients, moments and the images: less than a step takes.
    Where the backbone cannot be looked at without memory nothing is refused.

    Args:
        trainer: before its first step.
        batch_size: images a step, on all ranks together.
        side_px: their side, the largest of the training.
        multiple_of: what a batch size must be a multiple of.
        dtype: of activations.
        is_frozen: whether the backbone never learns, and so keeps nothing for the way back.

    Raises:
        TrainingError: it does not fit; the message names a side, a batch and a chunk that may.
    """
    free = measure_free_memory()
    if trainer.device.type != "cpu" or free is None:
        return
    free //= trainer.ranks.local_size
    images = -(-batch_size // trainer.ranks.size)
    copies = 1 if trainer.objective.jigsaw is None else 2
    if images * copies * side_px**2 * _PIXEL_BYTES * _GENEROUS < free:
        return
    step = estimate_step_bytes(trainer, batch_size=batch_size, side_px=side_px, dtype=dtype, is_frozen=is_frozen)
    if step is None or step.total <= free:
        return
    fitting = max(0, int(_ROOM * free - step.fixed) // step.each // multiple_of * multiple_of)
    advice = []
    side = int(side_px * math.sqrt(max(0.0, _ROOM * free - step.fixed) / (step.seen * step.each))) // 16 * 16
    if side >= 32:
        advice.append(f"train.side_px={side}")
    if fitting >= 2:
        advice.append(f"train.batch_size={fitting * trainer.ranks.size}")
        if trainer.objective.jigsaw is None:
            advice.append(f"train.chunk_size={fitting} (losses still see the whole batch)")
    raise TrainingError(
        f"training: a step must fit the memory; {step.seen} images of {side_px} px need at least "
        f"{step.total / _GIB:.1f} GiB, and {free / _GIB:.1f} GiB are free. "
        + (f"Give {' or '.join(advice)}." if advice else "Take a smaller model.backbone and a lower train.side_px.")
    )


def estimate_step_bytes(
    trainer: Trainer, *, batch_size: int, side_px: int, dtype: torch.dtype, is_frozen: bool = False
) -> StepBytes | None:
    """What a step takes at least; arguments as for `check_step_fits`. None where the backbone cannot be looked at."""
    images = -(-batch_size // trainer.ranks.size)
    seen = min(images, trainer.passes.chunk_size or images)
    copies = 1 if trainer.objective.jigsaw is None else 2
    kept = 0 if is_frozen else estimate_kept_bytes(trainer.recognizer.backbone, side_px)
    if kept is None:
        return None
    share = torch.finfo(dtype).bits / 32
    frozen = {id(parameter) for parameter in trainer.recognizer.backbone.parameters()} if is_frozen else set()
    learned = sum(
        parameter.numel() for parameter in trainer.parameters if parameter.requires_grad and id(parameter) not in frozen
    )
    return StepBytes(
        fixed=learned * _NUMBER_BYTES * (1 + count_moments(trainer.optimizer, unknown=0)),
        each=copies * (round(kept * share) + side_px**2 * _PIXEL_BYTES),
        seen=seen,
        waiting=(images - seen) * side_px**2 * 3,
    )


class _FusedAttention(TorchFunctionMode):
    """Lets attention keep what its fused kernels keep (queries, keys, values, result) and not the whole matrix."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention and len({tensor.shape for tensor in args[:3]}) == 1:
            query, key, value = args[:3]
            return query * key * value
        return func(*args, **(kwargs or {}))


def estimate_kept_bytes(network: nn.Module, side_px: int) -> int | None:
    """Bytes that a network keeps of an image of this side for the way back, in float32; None where it cannot be told.

    The images (B, 3, S, S) go through it on torch's meta device, where tensors have shapes and no numbers.
    """
    kept: dict[int, int] = {}
    state = {
        name: torch.empty_like(tensor, device="meta", requires_grad=tensor.requires_grad)
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
    }
    own = {tensor.untyped_storage()._cdata for tensor in state.values()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    was_training = network.training
    network.train()
    try:
        images = torch.empty(2, 3, side_px, side_px, device="meta")
        with _FusedAttention(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            features = functional_call(network, state, (images,))
        del features  # it holds the graph, and so each storage its own number
    except Exception:  # a network may do what has no meaning without numbers
        return None
    finally:
        network.train(was_training)
    return sum(kept.values()) // 2
