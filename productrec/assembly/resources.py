"""What a recipe computes with on this machine: device, precision, loader processes, and the ranks that share it."""

from __future__ import annotations

import torch

from productrec.console import silence
from productrec.data.dataset import choose_workers
from productrec.recipe import Recipe
from productrec.runtime import choose_device, choose_dtype, count_cores, keep_freed_memory, take_own_device
from productrec.training.ranks.group import Ranks, join_ranks
from productrec.training.ranks.resources import Resources


def claim_resources(recipe: Recipe, ranks: Ranks | None = None) -> Resources:
    """Device, precision and loader processes as a recipe says, for this process alone or as one of ``ranks``.

    Raises:
        RecipeError: the device is not there, or cannot compute in that precision.
    """
    device = take_own_device(choose_device(recipe.device))
    return _share_machine(recipe, device, ranks or Ranks())


def join_training(recipe: Recipe) -> Resources:
    """Join the other processes that torchrun started, where it did; all but the first print nothing from then on.

    Raises:
        RecipeError: see `claim_resources`.
        TrainingError: the others cannot be joined.
    """
    device = take_own_device(choose_device(recipe.device))
    ranks = join_ranks(device, timeout_minutes=recipe.train.timeout_minutes)
    if not ranks.is_first:
        silence()
    return _share_machine(recipe, device, ranks)


def choose_loader_workers(recipe: Recipe, device: torch.device, *, processes: int = 1) -> int:
    """Loader processes of each of so many ``processes`` that share this machine's cores."""
    cores = max(1, count_cores() // processes)
    return choose_workers(recipe.train.workers, cores=cores, on_gpu=device.type == "cuda")


def _share_machine(recipe: Recipe, device: torch.device, ranks: Ranks) -> Resources:
    dtype = choose_dtype(recipe.train.precision, device)
    keep_freed_memory(device)
    workers = choose_loader_workers(recipe, device, processes=ranks.local_size)
    return Resources(device, dtype, workers, ranks)
