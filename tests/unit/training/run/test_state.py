"""The state: complete, because leaving any item of it out makes another run."""

import random

import numpy as np
import pytest
import torch

from productrec.errors import ArtifactError, Interrupted
from productrec.losses.engine.weighing import Weighed
from tests.unit.training.small_training import build, play


def digest(trainer, log):
    """All that a run leaves: weights, averages, memory, optimiser, and every figure it said."""
    state = trainer.state_dict()
    tensors = []

    def walk(value):
        if isinstance(value, dict):
            for name in sorted(value, key=str):
                walk(value[name])
        elif isinstance(value, (list, tuple)):
            for one in value:
                walk(one)
        elif isinstance(value, torch.Tensor):
            tensors.append(value.double().flatten())

    walk(state)
    return torch.cat(tensors), [sorted(one.items()) for one in log]


def run_whole(**options):
    trainer = build(**options)
    return digest(trainer, play(trainer))


def resume(saved, epochs_before, changed, **options):
    second = build(**options)
    torch.manual_seed(99)
    fresh = build(**options).state_dict()
    torch.manual_seed(99)
    state = dict(saved)
    for item in changed:
        top, _, below = item.partition(".")
        if top == "random":
            state[top] = [state[top][0] | {below: fresh[top][0][below]}]
        elif below:
            state[top] = dict(state[top]) | {below: fresh[top][below]}
        else:
            state[top] = fresh[top]
    second.load_state_dict(state)
    return digest(second, play(second))


OPTIONS = {"metric": "momentum", "cut_mix": 0.3}
ITEMS = [
    "recognizer",
    "objective",
    "optimizer",
    "progress",
    "progress.epoch",
    "progress.batch",
    "progress.step",
    "random.torch",
    "random.tally",
    "average",
    "keys_of",
]


@pytest.fixture(scope="module")
def stopped():
    """A whole run, and the state of one that was stopped in an epoch's middle."""
    saved = {}
    with pytest.raises(Interrupted):
        play(build(**OPTIONS), stop_after=11, saved=saved)
    return run_whole(**OPTIONS), saved["last"]


def equal(one, other, skip=0):
    return torch.equal(one[0], other[0]) and one[1][-4:] == other[1][-4:]


def test_the_whole_state_makes_the_same_run(stopped):
    whole, saved = stopped
    assert equal(whole, resume(saved, 2, [], **OPTIONS))


@pytest.mark.parametrize("item", ITEMS)
def test_a_state_without_an_item_makes_another(stopped, item):
    whole, saved = stopped
    assert not equal(whole, resume(saved, 2, [item], **OPTIONS))


@pytest.mark.exhaustive
def test_a_state_without_the_scale_of_half_precision_makes_another():
    options, saved = {"dtype": torch.float16}, {}
    with pytest.raises(Interrupted):
        play(build(**options), stop_after=11, saved=saved)
    whole = run_whole(**options)
    assert saved["last"]["scaler"]["scale"] < 2.0**16
    assert equal(whole, resume(saved["last"], 2, [], **options))
    assert not equal(whole, resume(saved["last"], 2, ["scaler"], **options))
    with pytest.raises(ArtifactError, match=r"float16.*train\.precision"):
        build().load_state_dict(saved["last"])


class DrawingLoss:
    """A user's own loss that draws from Python and NumPy."""

    def weigh(self, positives, negatives):
        weight = random.random() + np.random.rand()
        kept = negatives.clamp(min=-1)
        return Weighed(weight * kept.sum(dim=1), torch.zeros_like(positives), weight * (negatives >= -1).float())


@pytest.mark.parametrize("item", ["random.python", "random.numpy"])
def test_what_a_loss_draws_from_python_and_numpy_is_part_of_the_state(item):
    options, saved = {"metric": "tests.unit.training.run.test_state:DrawingLoss", "allow_code": True}, {}

    def seed():
        random.seed(5)
        np.random.seed(5)

    seed()
    whole = run_whole(**options)
    seed()
    with pytest.raises(Interrupted):
        play(build(**options), stop_after=11, saved=saved)
    assert equal(whole, resume(saved["last"], 2, [], **options))
    seed()
    assert not equal(whole, resume(saved["last"], 2, [item], **options))


@pytest.mark.parametrize("after", [4, 8, 24])
def test_a_stop_at_the_last_batch_leaves_the_end_of_the_epoch_to_the_resume(after):
    saved, whole = {}, run_whole()
    with pytest.raises(Interrupted):
        play(build(), stop_after=after, saved=saved)
    assert saved["last"]["progress"]["batch"] == 4
    resumed = resume(saved["last"], after // 4, [])
    assert torch.equal(whole[0], resumed[0])
    assert whole[1][after // 4 - 1 :] == resumed[1]


def test_the_best_value_decides_what_is_kept():
    saved, kept = {}, []
    figures = (0.9, 0.1, 0.2, 0.3)
    play(build(), epochs=2, figures=figures, saved=saved)
    second = build()
    second.load_state_dict(saved["last"])
    play(second, epochs=4, figures=figures, saved=(later := {}))
    assert "best" not in later
    third = build()
    third.load_state_dict(saved["last"] | {"progress": saved["last"]["progress"] | {"best": None}})
    play(third, epochs=4, figures=figures, saved=(later := {}))
    assert "best" in later
    assert kept == []


def test_a_state_of_more_processes_is_refused():
    trainer = build()
    state = trainer.state_dict()
    state["random"] = state["random"] * 2
    with pytest.raises(ArtifactError, match="--nproc 2"):
        build().load_state_dict(state)
    del state["random"][0]["tally"]
    with pytest.raises(ArtifactError, match="older version"):
        build().load_state_dict(state)
