"""Centres merged while they are learned: kept, taken back, and part of what a stopped training goes on with."""

import numpy as np
import pytest
import torch

from productrec.errors import Interrupted
from productrec.losses.proxy.soft_triple import SoftTriple
from productrec.recipe import build_recipe
from productrec.training.run.checkpoint import load_checkpoint, save_checkpoint
from productrec.training.tricks.merging import merge_learned_centres
from tests.unit.training.small_training import CLASSES, PlainImages, build, play


def get_embeddings(network):
    images = PlainImages(None)
    was_training = network.training
    with torch.no_grad():
        embeddings = network.eval()(images.images).embeddings.numpy()
    network.train(was_training)
    return embeddings, images.labels.numpy()


class PlainMerging:
    """Merges a trainer's centres, judged by the plain images."""

    def __init__(self, trainer):
        self.loss = trainer.objective.metric

    def merge(self, network):
        embeddings, labels = get_embeddings(network)
        return merge_learned_centres(self.loss, embeddings, labels, distance=2.0, tolerance=1.0)


def test_a_merge_that_costs_too_much_is_taken_back():
    trainer = build("soft_triple", dropout=0.0)
    loss = trainer.objective.metric
    embeddings = np.eye(8, dtype=np.float32)[[0, 1, 2, 3, 4]]
    with torch.no_grad():  # class 0 has two looks, and their mean is farther from either than class 1 is
        loss.centres.copy_(torch.eye(8)[torch.tensor([[0, 1], [5, 5], [2, 2], [3, 4]])])
        loss.centres[1] = torch.tensor([0.8, 0.0, 0.0, 0.0, 0.0, 0.6, 0.0, 0.0])
    before = {name: value.clone() for name, value in trainer.objective.state_dict().items()}
    labels = np.array([0, 0, 2, 3, 3])
    figures = merge_learned_centres(loss, embeddings, labels, distance=2.0, tolerance=0.1)
    assert figures == pytest.approx(
        {"centre_top_1_before": 1.0, "centre_top_1_merged": 0.8, "centres_per_class": 1.5}, abs=1e-6
    )
    after = trainer.objective.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    figures = merge_learned_centres(loss, embeddings, labels, distance=2.0, tolerance=0.2)
    assert figures["centres_per_class"] == 1
    assert loss.sizes.tolist() == [[2, 0]] * 4
    assert list(trainer.objective.get_centres()) == ["centres", "sizes"]


def test_all_ranks_do_as_the_first_one_does():
    told = []

    class Two:
        def __init__(self, is_first):
            self.is_first = is_first

        def broadcast(self, value):
            told.append(value)
            return told[0]

    first, second = build("soft_triple").objective.metric, build("soft_triple").objective.metric
    embeddings, labels = np.eye(8, dtype=np.float32)[:4], np.arange(4)
    one = merge_learned_centres(first, embeddings, labels, distance=2.0, tolerance=1.0, ranks=Two(True))
    # Rounding told the second rank that nothing is near.
    two = merge_learned_centres(second, embeddings, labels, distance=0.0, tolerance=1.0, ranks=Two(False))
    assert two == one
    assert torch.equal(first.sizes, second.sizes)
    assert torch.equal(first.centres, second.centres)


@pytest.mark.parametrize("stop_after", [7, 8, 9])  # an epoch has four batches; the merge comes before the ninth
def test_a_stopped_training_merges_once_and_goes_on_to_the_same(stop_after):
    def make():
        trainer = build("soft_triple")
        with torch.no_grad():
            trainer.objective.metric.centres[:, 1] = trainer.objective.metric.centres[:, 0] * 1.2
        return trainer

    whole, saved = make(), {}
    log = play(whole, epochs=4, merging=PlainMerging(whole), merge_every=2)
    assert whole.objective.metric.sizes.tolist() == [[2, 0]] * CLASSES
    assert [("centres_per_class" in one) for one in log] == [False, False, True, False]
    assert log[2]["centres_per_class"] == 1
    stopped = make()
    with pytest.raises(Interrupted):
        play(stopped, epochs=4, stop_after=stop_after, saved=saved, merging=PlainMerging(stopped), merge_every=2)
    resumed = make()
    resumed.load_state_dict(saved["last"])
    later = play(resumed, epochs=4, merging=PlainMerging(resumed), merge_every=2)
    assert later[-1] == log[-1]
    for mine, theirs in ((resumed.objective, whole.objective), (resumed.recognizer, whole.recognizer)):
        expected = theirs.state_dict()
        for name, value in mine.state_dict().items():
            assert torch.equal(value, expected[name]), name


def test_a_checkpoint_keeps_how_many_each_centre_stands_for(tmp_path):
    trainer = build("soft_triple")
    PlainMerging(trainer).merge(trainer.evaluated)
    names = {"class_keys": ["a", "b", "c", "d"], "class_names": ["a", "b", "c", "d"]}
    about = {
        **names,
        "class_ids": [1, 2, 3, 4],
        "recipe": {"name": "x"},
        "table_fingerprint": "t",
        "figures": {},
        "state": None,
    }
    save_checkpoint(tmp_path / "best", trainer.evaluated, **about, centres=trainer.objective.get_centres())
    centres, sizes = load_checkpoint(tmp_path / "best").load_centres()
    assert torch.equal(centres, trainer.objective.metric.centres.detach())
    assert torch.equal(sizes, trainer.objective.metric.sizes)


def test_a_recipe_says_when_centres_are_merged():
    recipe = build_recipe({"name": "run", "loss": {"metric": {"name": "soft_triple", "merge_every_epochs": 2}}})
    assert recipe.loss.metric == SoftTriple(merge_every_epochs=2)
    assert recipe.loss.metric.merge_distance == 0.2
