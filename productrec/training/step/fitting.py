"""Fitting: after a batch was too large for the device's memory, the largest that is not, found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor, nn

from productrec.errors import TrainingError
from productrec.training.ranks.sharded_head import ShardedHead
from productrec.training.step.optimiser import count_moments
from productrec.training.step.trainer import Trainer

# Where torch raises a plain RuntimeError.
_WORDS = ("DefaultCPUAllocator", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_USUAL_MOMENTS = 2  # of an optimiser that is not known, as AdamW keeps


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the machine, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _WORDS)


def explain_large_network(error: RuntimeError) -> Exception:
    """What to raise for an error while a network and its losses are built."""
    if not is_out_of_memory(error):
        return error
    return TrainingError(
        f"training: network, head and losses must fit the memory; they do not ({' '.join(str(error).split())[:200]}). "
        "Lower model.embedding_dim, loss.memory.rows or a loss's centres_per_class, or take a smaller model.backbone."
    )


def find_fitting_size(fits: Callable[[int], bool], *, failed: int, multiple_of: int) -> int | None:
    """The largest batch that fits, to within an eighth of it.

    Args:
        fits: whether so many images do; the more, the less likely.
        failed: images that did not.
        multiple_of: what a batch size must be a multiple of.

    Returns:
        A size under ``failed``, tried; None where not even the smallest fits.
    """
    least, most = 0, -(-failed // multiple_of)  # in multiples: the first fits, the second does not
    while most - least > max(1, least // 8):
        tried = (least + most) // 2 if least else max(1, most // 2)
        if fits(tried * multiple_of):
            least = tried
        else:
            most = tried
        if most == 1:
            return None
    return least * multiple_of or None


def explain_out_of_memory(trainer: Trainer, images: Tensor, labels: Tensor, *, multiple_of: int) -> TrainingError:
    """What to tell of a batch (B, S, S, 3) that did not fit: how many images a step, or a chunk of it, may have.

    Tries smaller ones, forward and backward, beside what the optimiser will want, and then, where no other processes
    are needed for it, with the losses; the training is over, so nothing has to stay as it was. To be called when
    nothing of the failed step is held any more.
    """
    moments = count_moments(trainer.optimizer, unknown=_USUAL_MOMENTS)
    learned = [parameter for parameter in trainer.parameters if parameter.requires_grad]
    wanted_bytes = moments * sum(4 * each.numel() for each in learned if not trainer.optimizer.state.get(each))

    def fits(count: int, try_it: Callable[[Tensor, Tensor], None]) -> bool:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            held = torch.empty(wanted_bytes, dtype=torch.uint8, device=trainer.device)
            try_it(images[:count], labels[:count])
            del held
        except RuntimeError as error:
            if is_out_of_memory(error):
                return False
            raise
        return True

    def fits_network(count: int) -> bool:
        return fits(count, lambda some, _: trainer.passes.rehearse(some))

    def fits_step(count: int, chunk_size: int) -> bool:
        is_alone = trainer.ranks.size == 1
        return not is_alone or fits(count, lambda some, own: trainer.passes.rehearse_losses(some, own, chunk_size))

    seen = min(len(images), trainer.passes.chunk_size or len(images))
    what = f"training: a batch must fit the device's memory; {seen} images of {images.shape[1]} px do not."
    chunk = "" if trainer.objective.jigsaw is not None else "train.chunk_size={} (losses still see the whole batch)"
    if isinstance(trainer.recognizer.head, ShardedHead):  # what it holds is of all ranks' images
        return TrainingError(f"{what} Lower train.batch_size or train.negative_share, or start more processes.")
    if any(isinstance(module, nn.SyncBatchNorm) for module in trainer.recognizer.modules()):  # a trial needs all ranks
        return TrainingError(
            f"{what} Lower train.batch_size" + (", or set train.chunk_size to a part of it." if chunk else ".")
        )
    losses = f"the losses of {len(images)} images do not fit"
    if trainer.passes.chunk_size and fits_network(seen):
        return TrainingError(
            f"training: a batch must fit the device's memory; {seen} images at a time do, but {losses} beside them. "
            "Lower train.batch_size, or loss.memory.rows where there is a memory."
        )
    fitting = find_fitting_size(fits_network, failed=seen, multiple_of=multiple_of)
    if fitting is None:
        return TrainingError(f"{what} Nor do {multiple_of}: lower train.side_px, or take a smaller model.backbone.")
    advice = []
    if chunk and fits_step(len(images), fitting):
        advice.append(chunk.format(fitting))
    if not trainer.passes.chunk_size:
        batch = fitting
        while not (does_fit := fits_step(batch, 0)) and batch > multiple_of:
            batch = max(multiple_of, batch * 3 // 4 // multiple_of * multiple_of)
        if does_fit:
            fitting = batch
            advice.append(f"train.batch_size={fitting * trainer.ranks.size}")
        elif not advice:
            return TrainingError(
                f"{what} {multiple_of} do, by trial, but not with their losses: lower train.side_px, "
                "model.embedding_dim or loss.memory.rows, or take a smaller model.backbone."
            )
    if not advice:
        return TrainingError(f"{what} {fitting} do, by trial, but {losses}: lower train.batch_size as well.")
    return TrainingError(f"{what} {fitting} do, by trial: give {', or '.join(advice)}.")
