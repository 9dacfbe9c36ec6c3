"""What judges a training: a figure that nothing can be measured by is refused before the first epoch."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from productrec.assembly.judges import build_validation
from productrec.class_order import ClassOrder
from productrec.data.table import ImageTable
from productrec.errors import DataError
from productrec.recipe import build_recipe
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.resources import Resources


@pytest.fixture
def prepare():
    """Builds the validation of images with these labels and roles; the head knows classes 0 to 3."""
    resources = Resources(torch.device("cpu"), torch.float32, 0, Ranks())

    def build(figure, labels, roles=None, competition="plain"):
        roles = roles or [None] * len(labels)
        images = pd.DataFrame({"split": "val", "status": "ok", "label": pd.array(labels, "Int64"), "role": roles})
        images = images.assign(path="not_read.jpg", box=None)
        table = ImageTable(images.astype({"role": "str"}), pd.DataFrame(), Path(), None, "")
        recipe = build_recipe({"name": "val", "competition": competition, "train": {"keep_best_by": figure}})
        return build_validation(table, recipe, ClassOrder([0, 1, 2, 3]), resources)

    return build


def test_a_figure_that_cannot_decide_is_refused_with_advice_that_helps(prepare):
    with pytest.raises(DataError, match=r"two validation images for map@r.*or keep the best by top_1_accuracy"):
        prepare("map@r", [0, 1, 2])
    for figure in ("top_1_accuracy", "map@r"):  # the head knows none of these, so that accuracy cannot decide
        with pytest.raises(DataError, match=r"Hold out more \(data\.validation_fraction\)\.$"):
            prepare(figure, [7, 8, 9])
    assert prepare("top_1_accuracy", [0, 1, 2]) is not None


def test_queries_without_a_partner_are_refused_at_once_where_retrieval_decides(prepare):
    labels, roles = [0, 0, 1, 1], ["query", "query", "gallery", "gallery"]
    with pytest.raises(
        DataError, match=r"a query of val must have its class in the gallery.*or keep the best by top_1"
    ):
        prepare("recall@1", labels, roles)
    assert prepare("top_1_accuracy", labels, roles) is not None
    assert prepare("recall@1", labels, ["query", "gallery", "gallery", "gallery"]) is not None


def test_a_network_is_validated_by_the_contract_s_metric(prepare):
    for competition, key in (("plain", "top_1_accuracy"), ("hotel_id2021", "map_at_5")):
        assert prepare("competition", [0, 1, 2], competition=competition).metric.key == key
    with pytest.raises(DataError, match="two validation images for recall@1"):
        prepare("competition", [7, 8, 9])  # the head knows none of these, so that it cannot be judged
