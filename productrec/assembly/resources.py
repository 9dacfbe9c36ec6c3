"""What a recipe computes with on this machine: device, precision, loader processes, and the ranks that share it."""

from __future__ import annotations

from pathlib import Path

import torch

from productrec.assembly.precision import choose_precision, is_timed, keep_precision
from productrec.console import silence
from productrec.data.dataset import choose_workers
from productrec.recipe import Recipe
from productrec.runtime import ALONE, Share, choose_device, keep_freed_memory, take_own_device
from productrec.training.ranks.group import Ranks, join_ranks
from productrec.training.ranks.resources import Resources


def claim_resources(recipe: Recipe, run: Path, ranks: Ranks | None = None) -> Resources:
    """Device, precision and loader processes to predict with, for this process alone or as one of ``ranks``.

    What ``train.precision: auto`` comes to is kept in the folder of the ``run``.

    Raises:
        ArtifactError: what the run has kept is damaged.
        RecipeError: the device is not there, or cannot compute in that precision.
    """
    device = take_own_device(choose_device(recipe.device))
    resources = _share_machine(recipe, device, ranks or Ranks(), run, use="predict")
    if resources.ranks.is_first and is_timed(recipe, device):
        keep_precision(run, "predict", resources.dtype)
    return resources


def join_training(recipe: Recipe, share: Share = ALONE) -> Resources:
    """Join the other processes that torchrun started, where it did; all but the first print nothing from then on.

    Args:
        recipe: settings of the device, of precision and of loader processes.
        share: of this machine, where other trainings run beside this one.

    Raises:
        ArtifactError: what the run has kept is damaged.
        RecipeError: see `claim_resources`.
        TrainingError: the others cannot be joined.
    """
    device = take_own_device(choose_device(recipe.device), share)
    ranks = join_ranks(device, timeout_minutes=recipe.train.timeout_minutes)
    if not ranks.is_first:
        silence()
    return _share_machine(recipe, device, ranks, recipe.run_folder, use="train", share=share)


def foresee_resources(recipe: Recipe, *, use: str) -> Resources:
    """What one process alone would ``train`` or ``predict`` with; no other is joined, and nothing is kept.

    Raises:
        ArtifactError: what the run has kept is damaged.
        RecipeError: see `claim_resources`.
    """
    return _share_machine(recipe, choose_device(recipe.device), Ranks(), recipe.run_folder, use=use)


def choose_loader_workers(recipe: Recipe, device: torch.device, *, processes: int = 1) -> int:
    """Loader processes of each of so many ``processes`` that share this machine's cores."""
    cores = Share(processes=processes).count_cores()
    return choose_workers(recipe.train.workers, cores=cores, on_gpu=device.type == "cuda")


def _share_machine(
    recipe: Recipe, device: torch.device, ranks: Ranks, run: Path, *, use: str, share: Share = ALONE
) -> Resources:
    keep_freed_memory(device)
    chosen = choose_precision(recipe, device, use=use, run=run) if ranks.is_first else torch.float32
    dtype = ranks.broadcast(chosen)
    workers = choose_loader_workers(recipe, device, processes=ranks.local_size * share.processes)
    return Resources(device, dtype, workers, ranks)
