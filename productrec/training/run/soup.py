"""Soup: the newest checkpoints of a run, kept as a ring, and the average of their weights."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from productrec.artifacts import MANIFEST_NAME
from productrec.errors import ArtifactError, describe_offenders
from productrec.training.run.checkpoint import load_checkpoint

_NAME = re.compile(r"recent-(\d+)")


def average_weights(folders: Sequence[Path]) -> dict[str, Tensor]:
    """Uniform average of the weights of checkpoints of one run (Wortsman et al. 2022, arXiv 2203.05482).

    Floating-point tensors are summed in float64 and cast back to their type; one set of weights and the sum are in
    memory at a time. Running statistics of batch norms are averaged like weights, which is near what the averaged
    network would measure while the checkpoints are near each other, and not the same; a forward pass over training
    images in training mode measures them anew. Integer and boolean buffers are those of the newest.

    Args:
        folders: of checkpoints, oldest first.

    Returns:
        A state dict, for ``load_state_dict`` of the network they are of.

    Raises:
        ArtifactError: no folder is given, one holds no whole checkpoint, or their classes, names, shapes or types of
            tensors differ.
    """
    if not folders:
        raise ArtifactError("average of weights: must have at least one checkpoint; got none.")
    newest = load_checkpoint(folders[-1])
    weights = load_file(newest.folder / "weights.safetensors")
    sums = {name: value.double() for name, value in weights.items() if value.is_floating_point()}
    for folder in folders[:-1]:
        earlier = load_checkpoint(folder)
        if earlier.class_ids != newest.class_ids:
            raise ArtifactError(
                f"{folder}: its classes must be those of {newest.folder}. Average one run's checkpoints."
            )
        others = load_file(earlier.folder / "weights.safetensors")
        _check_alike(others, weights, folder, newest.folder)
        for name, total in sums.items():
            total += others[name]
    return {
        name: (sums[name] / len(folders)).to(value.dtype) if name in sums else value for name, value in weights.items()
    }


def get_recent_folder(folder: Path, number: int) -> Path:
    """Where in a ring the checkpoint of that number goes; numbers grow with the training."""
    return folder / f"recent-{number:06d}"


def list_recent(folder: Path, count: int) -> list[Path]:
    """The newest ``count`` checkpoints of the ring in ``folder``, oldest first by number; fewer where there are."""
    whole = [path for path in _list_ring(folder) if (path / MANIFEST_NAME).is_file()]
    return whole[-count:] if count > 0 else []


def drop_older(folder: Path, count: int) -> None:
    """Remove all checkpoints of the ring in ``folder`` but the newest ``count``; nothing else there is touched."""
    kept = list_recent(folder, count)
    for path in _list_ring(folder):
        if path not in kept:
            shutil.rmtree(path)


def _list_ring(folder: Path) -> list[Path]:
    """All of the ring by number, with what an interrupted removal left."""
    if not folder.is_dir():
        return []
    numbered = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


def _check_alike(mine: dict[str, Tensor], theirs: dict[str, Tensor], folder: Path, other: Path) -> None:
    def describe(weights: dict[str, Tensor], name: str) -> tuple[torch.Size, torch.dtype] | None:
        return (weights[name].shape, weights[name].dtype) if name in weights else None

    differing = [name for name in sorted(mine.keys() | theirs.keys()) if describe(mine, name) != describe(theirs, name)]
    if differing:
        raise ArtifactError(
            f"{folder}: names, shapes and types of its tensors must be those of {other}; "
            f"{describe_offenders(differing, 3)} differ. Average one run's checkpoints."
        )
