"""Where a training's time goes: batches the loader gives a second, and images a second that steps alone would take."""

from __future__ import annotations

import time

import numpy as np
import torch

from productrec.assembly.resources import choose_loader_workers
from productrec.data.dataset import TrainingImages, build_training_loader
from productrec.data.images import FileImages
from productrec.data.samplers import EpochSampler
from productrec.data.table import load_table
from productrec.data.transforms import build_augmentation
from productrec.recipe import Recipe
from sections.step import build_ready_trainer, build_turn, draw_batch


def measure_loader_rate(recipe: Recipe, device: torch.device, *, most_seconds: float) -> float:
    """Augmented training images per second without a network, from the second batch on."""
    table = load_table(recipe.table)
    rows = table.select(recipe.train.splits)
    labels = np.unique(rows["label"].to_numpy(dtype=np.int64), return_inverse=True)[1]
    sampler = EpochSampler(
        labels,
        batch_size=recipe.train.batch_size,
        images_per_class=recipe.train.images_per_class if recipe.uses_pk_sampler else None,
        seed=recipe.seed,
    )
    augmentation = build_augmentation(recipe.train.augmentation, recipe.train.side_px)
    workers = choose_loader_workers(recipe, device)
    loader = build_training_loader(
        TrainingImages(FileImages(table.get_paths(rows)), labels, augmentation, recipe.seed),
        sampler,
        workers=workers,
        pin_memory=device.type == "cuda",
    )
    images, started = 0, None
    while True:
        for batch in loader:
            if started is None:  # the first batch waits for the workers to start
                started = time.perf_counter()
                continue
            images += len(batch[1])
            seconds = time.perf_counter() - started
            if seconds > most_seconds:
                return images / seconds
        sampler.epoch += 1


def measure_step_rate(recipe: Recipe, class_count: int, device: torch.device, dtype: torch.dtype) -> float:
    """Images per second of training steps on a batch that is on the device already."""
    images, labels = (one.to(device) for one in draw_batch(recipe, class_count))
    trainer = build_ready_trainer(recipe, class_count, device, dtype)
    turn = build_turn(lambda: trainer.run_step(images, labels)["loss"], 3 if device.type == "cpu" else 30, device)
    turn()  # kernels are chosen, memory is taken
    return len(labels) / turn()
