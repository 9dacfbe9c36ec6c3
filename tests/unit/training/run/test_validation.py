"""Validation: figures of the head where labels are unknown to it, and what several ranks see put together."""

import numpy as np
import pytest
import torch

from productrec.data.dataset import ViewBatch
from productrec.metrics.answers import NO_ANSWERS, summarise
from productrec.metrics.competition import CompetitionMetric
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


def validate(classes, brightness, labels, broken=(), is_query=None, metric=None):
    return validate_network(
        Network(classes),
        load(brightness, broken),
        np.array(labels),
        np.arange(classes) * 10,
        device=torch.device("cpu"),
        dtype=torch.float32,
        is_query=is_query,
        metric=metric,
    )


def test_an_unknown_label_is_an_error_however_few_classes_there_are():
    figures = validate(2, [0, 1, 1, 0], [0, 10, 77, 0])
    assert figures["top_1_accuracy"] == 0.75 and figures["top_3_error"] == 0.25 and "recall@1" in figures
    assert "competition" not in figures
    assert validate(5, [0, 1, 4], [0, 30, 40])["top_3_error"] == pytest.approx(1 / 3)  # ties rank by position


def test_where_no_class_has_two_images_there_is_nothing_to_retrieve():
    assert validate(5, [0, 1, 4], [0, 10, 40]) == {"top_1_accuracy": 1.0, "top_3_error": 0.0}


def test_images_that_cannot_be_read_are_left_out():
    assert validate(2, [0, 1, 1], [10, 10, 10], broken=[0])["top_1_accuracy"] == 1.0


class SaidRanks(Ranks):
    """The first of two ranks; the other says what it is told to."""

    def gather_objects(self, value):
        return [value, ([3], np.full((1, 2), 7.0), summarise(np.eye(6)[:1], np.array([5])))]


def test_a_rank_without_an_image_to_read_is_left_out():
    nothing = RecognisedImages([], np.empty((0, 0), np.float32), NO_ANSWERS)
    seen = gather_images(nothing, 4, SaidRanks(0, 2))
    assert seen.rows == [3] and seen.embeddings.tolist() == [[7.0, 7.0]] and seen.answers.ranks.tolist() == [5]
    some = RecognisedImages([1], np.zeros((1, 2), np.float32), summarise(np.eye(6)[:1], np.array([0])))
    assert gather_images(some, 4, SaidRanks(0, 2)).rows == [1, 3]
    assert gather_images(some, 4, Ranks()).rows == [1]


def test_where_no_query_has_a_partner_the_head_is_judged_alone():
    figures = validate(5, [0, 0, 1], [0, 0, 10], is_query=np.array([True, True, False]))
    assert figures == {"top_1_accuracy": 1.0, "top_3_error": 0.0}
    assert "recall@1" in validate(5, [0, 0, 1], [0, 0, 10], is_query=np.array([True, False, False]))


def test_a_competition_s_metric_is_measured_beside_the_top_1_accuracy():
    figures = validate(5, [0, 1, 4, 2], [0, 0, 40, 40], metric=CompetitionMetric("map_at_k", 2))
    assert figures["map_at_2"] == pytest.approx((1 + 1 / 2 + 1 + 0) / 4)  # ties rank by position: 0 stands second
    assert figures["competition"] == pytest.approx((figures["map_at_2"] + 0.5) / 2)
    error = validate(5, [0, 1, 4, 2], [0, 0, 40, 40], metric=CompetitionMetric("top_k_error", 2))
    assert (error["top_2_error"], error["competition"]) == (0.25, (0.75 + 0.5) / 2)
    assert "competition" not in validate(5, [0, 1], [77, 77], metric=CompetitionMetric())
