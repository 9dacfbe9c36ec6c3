"""The screen: what the unseen half can never change, and that a neck learns what holds for other classes too."""

from dataclasses import replace

import numpy as np
import pytest
from sections.halves import Halves
from sections.screen import UNTRAINED, Budget, embed_trained, embed_untrained, list_methods
from sections.unseen_figures import measure_unseen

from productrec.losses.catalogue import list_losses

BUDGET = Budget(steps=6, batch_size=16, rates=(1e-3, 1e-2))
CLASSES, SEEN, IMAGES, DIM = 60, 40, 6, 24


@pytest.fixture(scope="module")
def labels():
    return np.repeat(np.arange(CLASSES), IMAGES)


@pytest.fixture(scope="module")
def halves(labels):
    return Halves(np.flatnonzero(labels < SEEN), np.flatnonzero(labels >= SEEN))


@pytest.fixture(scope="module")
def features(labels):
    """Two views; classes differ in eight directions, which are weak beside what differs between images of one class."""
    generator = np.random.default_rng(0)
    own = generator.normal(size=(CLASSES, DIM)) * (np.arange(DIM) < 8)
    strength = np.where(np.arange(DIM) < 8, 0.3, 2.0)
    views = [own[labels] + strength * generator.normal(size=(len(labels), DIM)) for _ in range(2)]
    return np.stack(views).astype(np.float32)


def test_every_loss_is_a_method_and_trains(labels, halves, features):
    methods = list_methods()
    others = {"cross_entropy", "library_multi_similarity", "library_soft_triple", "unlabelled"}
    assert set(methods) == {*list_losses(), *others}
    for name, method in methods.items():
        budget = replace(BUDGET, steps=2, rates=(1e-3,))
        embeddings, rate = embed_trained(method, features, labels, halves, budget, 0)
        assert rate == 1e-3
        assert embeddings.shape == (len(halves.test), 128), name
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["multi_similarity", "soft_triple", "cross_entropy", "unlabelled"])
def test_a_neck_separates_classes_it_has_never_seen(name, labels, halves, features):
    unseen = labels[halves.test]
    raw = measure_unseen(embed_untrained("raw", features[0], halves), unseen)
    budget = Budget(steps=150, batch_size=32, rates=(1e-2,))
    trained = measure_unseen(embed_trained(list_methods()[name], features, labels, halves, budget, 0)[0], unseen)
    # The two views of an image share nothing but its class, so that there is as much to learn without labels.
    assert trained["map@r"] > raw["map@r"] + 0.2
    assert trained["recall@1"] > raw["recall@1"] + 0.3 and trained["nmi"] > raw["nmi"] + 0.1


@pytest.mark.parametrize("name", ["multi_similarity", "soft_triple", "unlabelled", *UNTRAINED])
def test_nothing_of_the_unseen_half_has_a_part_in_training(name, labels, halves, features):
    def embed(some, known):
        if name in UNTRAINED:
            return embed_untrained(name, some[0], halves), None
        return embed_trained(list_methods()[name], some, known, halves, BUDGET, 3)

    before, rate = embed(features, labels)
    other = features.copy()
    other[:, halves.test[::2]] = 1e3
    others = labels.copy()
    others[halves.test] = np.random.default_rng(1).permutation(labels[halves.test])
    after, other_rate = embed(other, others)
    assert other_rate == rate
    np.testing.assert_array_equal(after[1::2], before[1::2])
    assert np.abs(after[::2] - before[::2]).max() > 0.01  # what is spoiled does matter where it is looked at
    changed = features.copy()
    changed[0, halves.train[::3]] *= -1
    if name != "raw":
        assert np.abs(embed(changed, labels)[0] - before).max() > 1e-4  # what is trained on does


def test_without_labels_none_is_looked_at(labels, halves, features):
    method = list_methods()["unlabelled"]
    before, rate = embed_trained(method, features, labels, halves, BUDGET, 0)
    after, _ = embed_trained(method, features, np.zeros_like(labels), halves, BUDGET, 0)
    np.testing.assert_array_equal(before, after)
    assert rate == 1e-3  # the middle one, which nobody chose
    labelled = list_methods()["nt_xent"]
    shuffled = labels.copy()
    shuffled[halves.train] = np.random.default_rng(0).permutation(labels[halves.train])
    first, second = (embed_trained(labelled, features, known, halves, BUDGET, 0)[0] for known in (labels, shuffled))
    assert np.abs(first - second).max() > 1e-3


def test_a_rate_that_ruins_the_neck_is_not_chosen(labels, halves, features):
    budget = Budget(steps=60, batch_size=32, rates=(1e-7, 3e-3))
    assert embed_trained(list_methods()["multi_similarity"], features, labels, halves, budget, 0)[1] == 3e-3
