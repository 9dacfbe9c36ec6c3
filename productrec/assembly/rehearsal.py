"""Rehearsal: what a recipe's training and prediction consist of, and a few steps, passes and batches of them, timed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from productrec.assembly.embedding_requests import list_requests
from productrec.assembly.judges import build_merging, build_validation, choose_figure
from productrec.assembly.session import build_fitting_trainer, build_plan
from productrec.assembly.timing import Timing, measure_rate, time_turns
from productrec.assembly.training_data import (
    TrainingData,
    build_batches,
    build_sampler,
    list_sides,
    select_training_data,
)
from productrec.data.dataset import TrainingBatch, ViewedImages, build_view_loader
from productrec.data.images import open_images
from productrec.data.table import ImageTable
from productrec.data.view_presets import get_views, plan_views
from productrec.data.views import compute_side_px
from productrec.models.inference import ViewRecognizer
from productrec.recipe import Recipe
from productrec.runtime import forget_memory, measure_memory, set_seed
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.resources import Resources
from productrec.training.run.batches import Batches
from productrec.training.run.endings import explain_broken
from productrec.training.run.loop import take_step
from productrec.training.run.plan import Plan
from productrec.training.run.run_checkpoints import CheckpointBytes, count_checkpoint_bytes
from productrec.training.step.memory_estimate import StepBytes, estimate_step_bytes
from productrec.training.step.trainer import Trainer

_STEP_SECONDS, _FORWARD_SECONDS, _LOADING_SECONDS = 12.0, 8.0, 4.0  # after so long no more is timed
_TIMED_SIDES = 3  # of squares that grow
_FORWARD_IMAGES = 16  # on a CPU, where a larger batch goes through in parts anyway
_VIEWED_IMAGES, _VIEWED_BATCH = 2048, 32


class Phase(NamedTuple):
    """Epochs whose steps cost the same: those of one side in pixels, with the backbone frozen or not."""

    side_px: int
    is_frozen: bool


@dataclass(frozen=True)
class Rehearsal:
    """What was counted of a training, and what was timed of it and of prediction with its network.

    ``images``, ``classes``: to train on; ``batch_images``: of a step; ``phases``: of each epoch; ``steps``: seconds of
    one, by phase; ``looks``: images that go through the plain view while it trains, by what for; ``loaded``: augmented
    images a second; ``passes``: seconds of one image's forward pass, by its side in pixels and the number type;
    ``viewed``: images a second that are cut for a preset of views; ``checkpoint``, ``step_bytes`` (None where it cannot
    be told): see these; ``device_peak`` and ``host_peak``: bytes that were held at most, see `measure_memory`.
    """

    images: int
    classes: int
    batch_images: int
    steps_per_epoch: int
    phases: list[Phase]
    steps: dict[Phase, Timing]
    looks: dict[str, int]
    loaded: float
    passes: dict[tuple[int, torch.dtype], float]
    viewed: dict[str, float]
    checkpoint: CheckpointBytes
    step_bytes: StepBytes | None
    device_peak: int
    host_peak: int


def rehearse(
    recipe: Recipe, table: ImageTable, training: Resources, prediction: Resources, *, allow_code: bool = False
) -> Rehearsal:
    """Build what a training is made of, as it would be, take a few steps with it, and leave no trace on disk.

    Args:
        recipe: every setting, without members.
        table: the images.
        training: what to train with, alone.
        prediction: what to predict with.
        allow_code: whether a loss from outside productrec may be imported.

    Raises:
        ProductrecError: whatever `build_session` or a step would raise.
    """
    set_seed(recipe.seed)
    forget_memory(training.device)
    data = select_training_data(recipe, table)
    sampler = build_sampler(recipe, table, data, Ranks())
    trainer = build_fitting_trainer(recipe, data, len(sampler), training, allow_code)
    plan = build_plan(recipe, keep_best_by=choose_figure(table, recipe, data.order))
    looks = _count_looks(recipe, table, data, trainer, plan, training)
    step_bytes = estimate_step_bytes(
        trainer,
        batch_size=recipe.train.batch_size,
        side_px=recipe.train.side_px,
        dtype=training.dtype,
        is_frozen=recipe.train.freeze_epochs >= recipe.train.epochs,
    )
    labels = torch.from_numpy(data.positions[[draw.row for draw in next(iter(sampler))]])
    phases = [Phase(side_px, plan.is_frozen_in(epoch)) for epoch, side_px in enumerate(list_sides(recipe))]
    timed = choose_phases(phases)
    steps = {phase: time_step(trainer, plan, labels, phase, _STEP_SECONDS / len(timed)) for phase in timed}
    peaks = measure_memory(training.device), measure_memory(torch.device("cpu"))
    checkpoint = count_checkpoint_bytes(trainer)
    network = trainer.evaluated.eval()
    del trainer  # and with it moments and gradients
    presets = list(dict.fromkeys(["plain", *(request.views for request in list_requests(recipe, table))]))
    passes = _time_passes(recipe, presets, network, training, prediction)
    del network
    return Rehearsal(
        images=len(data.rows),
        classes=len(data.order),
        batch_images=len(labels),
        steps_per_epoch=len(sampler),
        phases=phases,
        steps=steps,
        looks=looks,
        loaded=_measure_loading(recipe, table, data, training),
        passes=passes,
        viewed=_measure_viewing(recipe, presets, table, prediction),
        checkpoint=checkpoint,
        step_bytes=step_bytes,
        device_peak=peaks[0],
        host_peak=peaks[1],
    )


def choose_phases(phases: list[Phase]) -> list[Phase]:
    """The phases of a training to time: of the sides of frozen epochs, and of the others, the ends and the middle."""
    chosen = []
    for is_frozen in (True, False):  # in the order of training, so that the last step leaves its optimiser's state
        sides = sorted({phase.side_px for phase in phases if phase.is_frozen == is_frozen})
        places = np.linspace(0, len(sides) - 1, min(_TIMED_SIDES, len(sides))).round().astype(int)
        chosen += [Phase(sides[place], is_frozen) for place in places]
    return chosen


def time_step(trainer: Trainer, plan: Plan, labels: Tensor, phase: Phase, most_seconds: float) -> Timing:
    """Seconds of an optimiser's step on random images with these class positions (B,).

    Raises:
        TrainingError: the batch does not fit the device's memory.
    """
    trainer.set_modes(is_frozen=phase.is_frozen, freeze_norms=plan.freeze_norms)
    images = torch.randint(0, 256, (len(labels), phase.side_px, phase.side_px, 3), dtype=torch.uint8)
    if trainer.device.type == "cuda":
        images = images.pin_memory()  # as they come from the loader
    batch = TrainingBatch(images, labels, [], torch.arange(len(labels)))
    return time_turns(lambda: take_step(trainer, batch, plan), trainer.device, most_seconds=most_seconds)


def time_pass(network: nn.Module, side_px: int, resources: Resources, *, images: int, most_seconds: float) -> float:
    """Seconds that a network, in evaluation mode, takes for the forward pass of one of so many random images."""
    recognise = ViewRecognizer(network, [(0, False, 0)], device=resources.device, dtype=resources.dtype)
    pixels = torch.randint(0, 256, (images, side_px, side_px, 3), dtype=torch.uint8)
    timing = time_turns(lambda: recognise([pixels]), resources.device, most_seconds=most_seconds)
    return timing.seconds / images


def list_view_sides(recipe: Recipe, preset: str) -> list[int]:
    """The side of each view of a preset in pixels."""
    views = get_views(preset, recipe.predict.own_views)
    return [compute_side_px(recipe.train.side_px, view.scale) for view in views]


def _count_looks(
    recipe: Recipe, table: ImageTable, data: TrainingData, trainer: Trainer, plan: Plan, resources: Resources
) -> dict[str, int]:
    """Images that a training looks at through the plain view, by what for."""
    validation = build_validation(table, recipe, data.order, resources)
    merging = build_merging(table, recipe, data.order, trainer.objective.metric, resources)
    epochs = range(plan.epochs)
    looks = {}
    if validation is not None:
        networks = 2 if trainer.average is not None and plan.validate_raw else 1
        times = networks * sum(map(plan.validates_after, epochs)) + (1 if plan.soup else 0)
        looks["validation"] = times * len(validation.labels)
    if recipe.train.hard_classes:
        looks["near classes"] = sum(map(plan.mines_before, epochs)) * len(data.rows)
    if merging is not None:
        looks["merging of centres"] = sum(map(plan.merges_before, epochs)) * len(merging.labels)
    return looks


def _time_passes(
    recipe: Recipe, presets: list[str], network: nn.Module, training: Resources, prediction: Resources
) -> dict[tuple[int, torch.dtype], float]:
    """Seconds of one image's forward pass, by side and number type, where training or prediction has it."""
    sides = sorted({side_px for preset in presets for side_px in list_view_sides(recipe, preset)})
    wanted = {(side_px, prediction.dtype): prediction for side_px in sides}
    wanted[recipe.train.side_px, training.dtype] = training
    images = recipe.predict.batch_size
    if training.device.type == "cpu":
        images = min(images, _FORWARD_IMAGES)
    seconds = _FORWARD_SECONDS / len(wanted)
    return {
        key: time_pass(network, key[0], resources, images=images, most_seconds=seconds)
        for key, resources in wanted.items()
    }


def _measure_loading(recipe: Recipe, table: ImageTable, data: TrainingData, resources: Resources) -> float:
    """Training images a second from the loader alone, as large as they become."""
    batches = build_batches(recipe, table, data, resources)
    counts = _count_loaded(batches, recipe.train.epochs - 1)
    return measure_rate(counts, waits=resources.workers, most_seconds=_LOADING_SECONDS)


def _count_loaded(batches: Batches, epoch: int) -> Iterator[int]:
    for number in itertools.count(epoch):
        batches.start(number, 0)
        for batch in batches:
            if batch.broken:
                raise explain_broken(batch)
            yield len(batch.labels)


def _measure_viewing(recipe: Recipe, presets: list[str], table: ImageTable, resources: Resources) -> dict[str, float]:
    """Images a second from the loader alone, by preset of their views; presets with the same cuts are timed once."""
    split = next(split for split in ("test", "val", "train") if len(table.select([split])))
    images = open_images(table, table.select([split]).iloc[:_VIEWED_IMAGES])
    rates: dict[tuple[object, ...], float] = {}
    viewed = {}
    for preset in presets:
        views = get_views(preset, recipe.predict.own_views)
        cuts, _ = plan_views(views)
        if cuts not in rates:
            loader = build_view_loader(
                ViewedImages(images, views, recipe.train.side_px),
                batch_size=min(recipe.predict.batch_size, _VIEWED_BATCH),
                workers=resources.workers,
                pin_memory=resources.is_on_gpu,
            )
            counts = (len(rows) for rows, *_ in loader)
            rates[cuts] = measure_rate(counts, waits=resources.workers, most_seconds=_LOADING_SECONDS)
        viewed[preset] = rates[cuts]
    return viewed
