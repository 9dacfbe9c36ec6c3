"""Validation: figures of the head where labels are unknown to it, and what several ranks see put together."""

import numpy as np
import pytest
import torch

from productrec.data.dataset import ViewBatch
from productrec.models.recognizer import Recognized
from productrec.training.ranks.group import Ranks
from productrec.training.run.validation import RecognisedImages, gather_images, validate_network


class Network(torch.nn.Module):
    """Believes in the class that an image's brightness names."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        brightness = images[:, 0, 0, 0].long()
        logits = torch.nn.functional.one_hot(brightness, self.classes).float()
        return Recognized(torch.nn.functional.normalize(images[:, 0, 0].float() + 1, dim=1), logits)


def load(brightness, broken=()):
    images = torch.tensor(brightness, dtype=torch.uint8)[:, None, None, None].expand(-1, 4, 4, 3)
    rows = torch.arange(len(brightness))
    return [ViewBatch(rows[:2], [images[:2]], dict.fromkeys(broken, "broken")), ViewBatch(rows[2:], [images[2:]], {})]


def validate(classes, brightness, labels, broken=(), is_query=None):
    return validate_network(
        Network(classes),
        load(brightness, broken),
        np.array(labels),
        np.arange(classes) * 10,
        device=torch.device("cpu"),
        dtype=torch.float32,
        is_query=is_query,
    )


def test_an_unknown_label_is_an_error_however_few_classes_there_are():
    figures = validate(2, [0, 1, 1, 0], [0, 10, 77, 0])
    assert figures["top_1_accuracy"] == 0.75 and figures["top_3_error"] == 0.25 and "recall@1" in figures
    assert validate(5, [0, 1, 4], [0, 30, 40])["top_3_error"] == pytest.approx(1 / 3)  # ties rank by position


def test_where_no_class_has_two_images_there_is_nothing_to_retrieve():
    assert validate(5, [0, 1, 4], [0, 10, 40]) == {"top_1_accuracy": 1.0, "top_3_error": 0.0}


def test_images_that_cannot_be_read_are_left_out():
    assert validate(2, [0, 1, 1], [10, 10, 10], broken=[0])["top_1_accuracy"] == 1.0


class SaidRanks(Ranks):
    """The first of two ranks; the other says what it is told to."""

    def gather_objects(self, value):
        return [value, ([3], np.full((1, 2), 7.0), np.array([5]))]


def test_a_rank_without_an_image_to_read_is_left_out():
    nothing = RecognisedImages([], np.empty((0, 0), np.float32), np.empty(0, np.int64))
    seen = gather_images(nothing, 4, SaidRanks(0, 2))
    assert seen.rows == [3] and seen.embeddings.tolist() == [[7.0, 7.0]] and seen.label_ranks.tolist() == [5]
    some = RecognisedImages([1], np.zeros((1, 2), np.float32), np.array([0]))
    assert gather_images(some, 4, SaidRanks(0, 2)).rows == [1, 3]
    assert gather_images(some, 4, Ranks()).rows == [1]


def test_where_no_query_has_a_partner_the_head_is_judged_alone():
    figures = validate(5, [0, 0, 1], [0, 0, 10], is_query=np.array([True, True, False]))
    assert figures == {"top_1_accuracy": 1.0, "top_3_error": 0.0}
    assert "recall@1" in validate(5, [0, 0, 1], [0, 0, 10], is_query=np.array([True, False, False]))
