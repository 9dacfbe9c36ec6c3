"""Agreement: the largest difference counts, in batches and alone, and nothing hides in numbers that are not finite."""

import numpy as np
import pytest

from productrec.models.agreement import compare_answers, measure_loss

IMAGES = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


def recognise(images):
    """Unit embeddings and probabilities that depend on the first pixel."""
    value = images[:, 0, 0, 0].astype(np.float32)
    embeddings = np.stack([np.cos(value), np.sin(value)], axis=1)
    probabilities = np.where((np.arange(5) == value[:, None]), 0.6, 0.1).astype(np.float32)
    return embeddings, probabilities


def change(when, to):
    """`recognise`, but for another embedding or probability in some batches."""

    def recognise_otherwise(images):
        embeddings, probabilities = recognise(images)
        if when(images):
            to(embeddings, probabilities)
        return embeddings, probabilities

    return recognise_otherwise


def add(embeddings, probabilities):
    embeddings[0, 0] += 0.5


def test_equal_answers_agree():
    agreement = compare_answers(recognise, recognise, IMAGES, 2)
    assert (agreement.images, agreement.embedding, agreement.probability, agreement.same_answers) == (5, 0, 0, 5)
    assert agreement.is_within(0)


@pytest.mark.parametrize("length", [1, 2])
def test_a_fault_of_one_batch_length_is_seen(length):
    agreement = compare_answers(recognise, change(lambda images: len(images) == length, add), IMAGES, 2)
    assert agreement.embedding == pytest.approx(0.5, abs=1e-6)
    assert not agreement.is_within(0.4) and agreement.is_within(0.6)


def test_a_single_image_is_asked_in_a_batch_of_several_too():
    agreement = compare_answers(recognise, change(lambda images: len(images) > 1, add), IMAGES[:1], 2)
    assert agreement.images == 1 and agreement.embedding == pytest.approx(0.5, abs=1e-6)


def test_a_number_that_is_not_finite_is_within_no_tolerance():
    def spoil(embeddings, probabilities):
        probabilities[0, 0] = np.nan

    assert not compare_answers(recognise, change(lambda images: True, spoil), IMAGES, 2).is_within(1e9)


def test_other_answers_are_counted():
    def swap(embeddings, probabilities):
        probabilities[:] = probabilities[:, ::-1]

    agreement = compare_answers(recognise, change(lambda images: True, swap), IMAGES, 2)
    assert agreement.same_answers == 1  # the middle one is its own mirror image


def test_a_loss_is_told_in_right_answers():
    def swap(embeddings, probabilities):
        probabilities[:] = probabilities[:, ::-1]

    lower = change(lambda images: True, swap)
    positions = np.array([0, 1, 2, 3, -1])  # the class of the last one is not known
    batches = [(IMAGES[:3], positions[:3]), (IMAGES[3:], positions[3:])]
    loss = measure_loss(recognise, lower, batches)
    assert (loss.images, loss.same_answers, loss.right) == (5, 1, (4, 1))
    assert loss.similarity == pytest.approx(1)
    assert measure_loss(recognise, lower, [(IMAGES, None)]).right is None
