"""The recipe without labels, on a folder of one photo a product."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from productrec.training.run.checkpoint import load_checkpoint
from tests.integration.conftest import TINY

RECIPE = Path(__file__).resolve().parents[2] / "pipelines" / "unlabelled.yaml"
FAST = [*TINY, "train.freeze_norms=false", "train.batch_size=8"]  # from random weights there are no statistics to keep
BY_ID = ["data.id_column=id", "data.label_column=id"]


@pytest.fixture
def photos(place):
    """Ten products, a photo each, and a list of their names."""
    generator = np.random.default_rng(0)
    (place / "shop/images").mkdir(parents=True)
    names = [f"sku-{number}.jpg" for number in range(10)]
    for name in names:
        blocks = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        cv2.imwrite(str(place / "shop/images" / name), cv2.resize(blocks, (48, 48), interpolation=cv2.INTER_NEAREST))
    (place / "shop/train.csv").write_text("\n".join(["id", *names]) + "\n")
    return names


def test_each_photo_is_its_own_class_and_is_found(photos, productrec):
    ingested = productrec("ingest", "shop", *BY_ID)
    assert ingested.code == 0, ingested.err
    assert "10 train; 10 classes" in ingested.err
    trained = productrec("train", RECIPE, "data.source=shop", *FAST)
    assert trained.code == 0, trained.err
    assert "10 images of 10 classes, 2 epochs of 3 steps" in trained.err  # two of each: 20 in batches of 8
    checkpoint = load_checkpoint(Path("runs/unlabelled/checkpoints/best"))
    assert sorted(checkpoint.class_keys) == photos
    lines = [json.loads(line) for line in Path("runs/unlabelled/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert 0 < line["train_metric"] < np.log(8) / 0.07 and "batches_without_positives" not in line
    named = productrec("predict", "runs/unlabelled", "--images", "shop/images", "--out", "found.csv")
    assert named.code == 0, named.err
    with open("found.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == photos and all(row["class"] in photos for row in rows)


def test_test_photos_ask_their_neighbours(photos, productrec):
    Path("shop/test.csv").write_text("id\n" + photos[3] + "x\n")
    Path("shop/images", f"{photos[3]}x.jpg").write_bytes(Path("shop/images", photos[3]).read_bytes())
    assert productrec("ingest", "shop", *BY_ID).code == 0
    assert productrec("train", RECIPE, "data.source=shop", *FAST).code == 0
    predicted = productrec("predict", "runs/unlabelled")
    assert predicted.code == 0, predicted.err
    assert "fusing by default" in predicted.err
    neighbours = np.load(next(Path("runs/unlabelled/neighbours").rglob("rows.npy")))
    assert neighbours[0, 0] == 3  # the same pixels, among all that were trained on


def test_a_list_without_labels_needs_what_the_recipe_says(photos, productrec):
    refused = productrec("ingest", "shop")
    assert refused.code == 3
    assert "a column of labels" in refused.err and "--label-column" in refused.err
