"""A small network and a few images to train on, put together as `train` does, for the tests of training."""

import time
from dataclasses import replace

import numpy as np
import torch

from productrec.assembly.session import build_plan
from productrec.assembly.trainer import build_trainer
from productrec.data.dataset import TrainingBatch
from productrec.data.samplers import EpochSampler
from productrec.recipe import build_recipe
from productrec.runtime import StopRequest
from productrec.training.run.batches import Batches
from productrec.training.run.loop import run_training
from productrec.training.run.resume import get_state
from productrec.training.run.session import Session

CLASSES, SIDE_PX, IMAGES = 4, 32, 16
_MEMORY = {"rows": 10, "start_step": 0}
_LOSSES = {
    "memory": {"metric": "multi_similarity", "memory": _MEMORY},
    "momentum": {"metric": "multi_similarity", "memory": _MEMORY | {"start_step": 2, "momentum": 0.8}},
    "soft_triple": {"metric": {"name": "soft_triple", "centres_per_class": 2}},
}


class PlainImages:
    """Sixteen easily told images, addressed as the sampler does."""

    def __init__(self, sampler):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(IMAGES) % CLASSES
        noise = torch.randint(0, 40, (IMAGES, SIDE_PX, SIDE_PX, 3), generator=generator)
        self.images = (noise + 50 * self.labels[:, None, None, None]).to(torch.uint8)
        self.sampler = sampler

    def __iter__(self):
        for batch in self.sampler:
            rows = [row for _, row, _ in batch]
            yield TrainingBatch(self.images[rows], self.labels[rows], [], torch.tensor(rows))


def make_recipe(metric="multi_similarity", dropout=0.2, backbone="mobilenetv3_small_050", **train):
    """A recipe of six epochs with four steps each; ``train``: its section's settings."""
    return build_recipe(
        {
            "name": "small",
            "model": {"backbone": backbone, "pretrained": False, "embedding_dim": 8, "dropout": dropout},
            "loss": _LOSSES.get(metric, {"metric": metric}),
            "train": {
                "side_px": SIDE_PX,
                "epochs": 6,
                "batch_size": 4,
                "images_per_class": 2,
                "learning_rate": 1e-3,
                "head_rate_factor": 2.0,
                "centre_rate_factor": 10.0,
                "weight_decay": 0.1,
                "warmup_epochs": 0.5,
                "gradient_clip": 5.0,
                "ema_decay": 0.9,
                **train,
            },
        }
    )


def build(metric="multi_similarity", *, ranks=None, dtype=torch.float32, allow_code=False, **settings):
    """The trainer of such a recipe."""
    torch.manual_seed(0)
    recipe = make_recipe(metric, **settings)
    steps = IMAGES // recipe.train.batch_size
    sizes = [IMAGES // CLASSES] * CLASSES
    place = {"device": torch.device("cpu"), "dtype": dtype, "ranks": ranks}
    return build_trainer(recipe, sizes, steps, **place, allow_code=allow_code)


class KeptStates:
    """In place of a run's checkpoints: the newest state by name."""

    def __init__(self, run_folder):
        self.run_folder, self.states = run_folder, {}

    def save(self, name, trainer, batches, figures, network=None):
        self.states[name] = get_state(trainer, batches)


class ToldFigures:
    """In place of a run's reports: the figures of every epoch; asks to stop after so many steps."""

    def __init__(self, stop, stop_after):
        self.epochs, self._stop, self._left = [], stop, stop_after

    def show_step(self, progress, images, figures):
        if self._left is not None:
            self._left -= 1
            self._stop.wanted = self._left == 0

    def report_epoch(self, progress, epoch, figures):
        self.epochs.append(dict(figures))


class SaidFigures:
    """In place of a validation: a top-1 accuracy for each epoch, the last one from then on."""

    def __init__(self, trainer, values, seconds=0.0):
        self._trainer, self._values, self._seconds = trainer, values, seconds

    def measure(self, network, stop=None):
        time.sleep(self._seconds)
        return {"top_1_accuracy": self._values[min(self._trainer.progress.epoch, len(self._values) - 1)]}


def start(trainer, *, folder=None, images=PlainImages, sampler=None, stop_after=None, parts=None, **plan):
    """A session of a trainer on the plain images, and what asks it to stop; ``plan``: what differs from the recipe."""
    sampler = sampler or EpochSampler(np.arange(IMAGES) % CLASSES, batch_size=4, images_per_class=2, seed=0)
    stop = StopRequest()
    made = replace(build_plan(make_recipe(), keep_best_by="top_1_accuracy"), **plan)
    reporter = ToldFigures(stop, stop_after)
    names = [f"image {row}" for row in range(IMAGES)]
    batches = Batches(images(sampler), sampler)
    return Session(trainer, batches, made, KeptStates(folder), reporter, names, **(parts or {})), stop


def play(trainer, *, saved=None, figures=(0.5,), validation_seconds=0.0, merging=None, **options):
    """Train for some epochs; what each epoch said. ``figures``: what validation says; ``saved``: takes the states."""
    validation = SaidFigures(trainer, figures, validation_seconds)
    session, stop = start(trainer, parts={"validation": validation, "merging": merging}, **options)
    try:
        trainer.ending = run_training(session, stop)
    finally:
        if saved is not None:
            saved |= session.checkpoints.states
    return session.reporter.epochs


def copy_state(trainer):
    return {name: value.clone() for name, value in trainer.recognizer.state_dict().items()}
