"""What every loss of this room asks of its batch, checked before any mathematics."""

import contextlib

import torch
from torch import Tensor

from productrec.errors import TrainingError


def check_batch(where: str, rows: Tensor, labels: Tensor) -> None:
    """Raise unless ``rows`` is a floating (B, ...) matrix and ``labels`` (B,) integers, B at least 1.

    Reads shapes and types only, never values, so it costs nothing on an accelerator.

    Args:
        where: name of the loss, for the message.
        rows: embeddings or logits, (B, D) or (B, C).
        labels: class positions, (B,).

    Raises:
        TrainingError: wrong shape or wrong type.
    """
    if rows.ndim != 2 or rows.shape[0] == 0:
        raise TrainingError(
            f"{where}: embeddings or logits must be a matrix of one row per image, at least one; "
            f"got shape {tuple(rows.shape)}. Flatten each image's features to one row."
        )
    if not rows.is_floating_point():
        raise TrainingError(
            f"{where}: embeddings or logits must be floating point; got {rows.dtype}. Pass the model's output."
        )
    if labels.shape != rows.shape[:1]:
        raise TrainingError(
            f"{where}: labels must be one class position per row, shape ({rows.shape[0]},); "
            f"got {tuple(labels.shape)}. Do not one-hot encode them."
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TrainingError(
            f"{where}: labels must be integer class positions; got {labels.dtype}. Convert them with labels.long()."
        )


def check_label_range(where: str, labels: Tensor, class_count: int) -> None:
    """Raise unless every label is in [0, ``class_count``); looks only at labels that live on the CPU.

    Elsewhere reading them would make the host wait for the device in every step; there the device's own assertion
    in the indexing kernel stops the run instead, with a less helpful message.

    Raises:
        TrainingError: a label out of range.
    """
    if labels.device.type != "cpu":
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= class_count:
        raise TrainingError(
            f"{where}: labels must be class positions from 0 to {class_count - 1}; got {low} to {high}. "
            "Map the competition's class ids to positions in the class table first."
        )


def choose_computing_dtype(*tensors: Tensor) -> torch.dtype:
    """The type a loss is computed in: float32, or float64 where an input is float64 (as gradient checks are)."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def leave_autocast(device: str) -> contextlib.AbstractContextManager[object]:
    """A block in which nothing is cast; outside of autocast it costs nothing."""
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
