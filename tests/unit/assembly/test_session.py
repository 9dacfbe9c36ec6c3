"""A session as a recipe assembles it: what it does around the steps, and that prediction builds the same network."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from productrec.assembly.network import load_network
from productrec.assembly.session import build_session
from productrec.data.table import CLASS_COLUMNS, IMAGE_COLUMNS, ImageTable
from productrec.errors import TrainingError
from productrec.recipe import build_recipe
from productrec.runtime import StopRequest
from productrec.training.ranks.group import Ranks
from productrec.training.ranks.resources import Resources
from productrec.training.run.checkpoint import load_checkpoint
from productrec.training.run.endings import Ending
from productrec.training.run.loop import run_training

CLASSES, SIDE_PX = 4, 32
TRAIN = {"side_px": SIDE_PX, "epochs": 3, "batch_size": 4, "images_per_class": 2, "augmentation": "light"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Sixteen images to train on and eight to validate, of four classes with ids 10, 20, 30 and 40."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    rows = []
    for number in range(24):
        label = number % CLASSES
        pixels = generator.integers(0, 60, (SIDE_PX, SIDE_PX, 3)) + 50 * label
        cv2.imwrite(str(root / f"{number}.png"), pixels.astype(np.uint8))
        split = "train" if number < 16 else "val"
        rows.append({"image_id": f"i{number}", "path": f"{number}.png", "label": 10 * (label + 1), "split": split})
    images = pd.DataFrame(rows).assign(status="ok").reindex(columns=IMAGE_COLUMNS)
    images = images.astype({"label": "Int64", "weight": "float64", "role": "object"})
    ids = [10 * (label + 1) for label in range(CLASSES)]
    classes = pd.DataFrame({"id": ids, "name": [f"sku {class_id}" for class_id in ids]}).reindex(columns=CLASS_COLUMNS)
    return ImageTable(images, classes, root, None, "fingerprint")


@pytest.fixture
def assemble(table, tmp_path):
    def build(train=None, **sections):
        model = {"backbone": "mobilenetv3_small_050", "pretrained": False, "embedding_dim": 8, "drop_path": 0.1}
        values = {"name": "small", "runs": str(tmp_path), "model": model, "train": TRAIN | (train or {}), **sections}
        recipe = build_recipe(values)
        return build_session(recipe, table, Resources(torch.device("cpu"), torch.float32, 0, Ranks()))

    return build


def run(session):
    with session.reporter.open(session.trainer.progress):
        return run_training(session, StopRequest())


def read_epochs(session):
    lines = (session.checkpoints.run_folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_network_in_training_is_validated_beside_its_average(assemble):
    session = assemble({"ema_decay": 0.9, "validate_raw": True, "validate_every": 2})
    assert run(session) is Ending.FINISHED
    epochs = read_epochs(session)
    validated = [{name for name in epoch if "recall" in name} for epoch in epochs]
    assert validated == [set(), {"recall@1", "raw_recall@1"}, {"recall@1", "raw_recall@1"}]
    with torch.no_grad():  # the average is the same, and the trained network knows nothing
        session.trainer.recognizer.head.linear.weight.zero_()
        session.trainer.recognizer.head.linear.bias.copy_(torch.arange(CLASSES))
    figures = session.validate(StopRequest())
    assert figures["top_1_accuracy"] == epochs[-1]["top_1_accuracy"]
    assert figures["raw_top_1_accuracy"] == 0.25


def test_prediction_builds_the_network_that_was_trained(assemble):
    session = assemble({"ema_decay": 0.9})
    run(session)
    images = torch.randint(0, 255, (3, SIDE_PX, SIDE_PX, 3), generator=torch.Generator().manual_seed(0)).byte()
    with torch.no_grad():
        trained = session.trainer.evaluated.eval()(images)
        checkpoint = load_checkpoint(session.checkpoints.folder / "last")
        loaded = load_network(checkpoint)(images)
    assert torch.equal(trained.embeddings, loaded.embeddings)
    assert torch.equal(trained.logits, loaded.logits)
    assert checkpoint.class_ids == [10, 20, 30, 40]
    assert checkpoint.class_names[0] == "sku 10"


@pytest.mark.parametrize("is_better", [True, False])
def test_an_average_of_epochs_becomes_the_best_checkpoint_where_it_is_better(assemble, is_better):
    session = assemble({"soup": 2})
    run(session)
    before = load_checkpoint(session.checkpoints.folder / "best").weights_digest
    assert [path.name for path in session.checkpoints.list_recent(9)] == ["recent-000001", "recent-000002"]
    session.trainer.progress.best = -1.0 if is_better else 2.0
    figures = session.try_soup()
    best = load_checkpoint(session.checkpoints.folder / "best")
    assert (best.weights_digest != before) == is_better
    assert (best.figures == figures) == is_better


def test_a_backbone_is_frozen_for_the_first_epochs_alone(assemble):
    session = assemble({"freeze_epochs": 1})
    frozen, resting = [], []
    for epoch in range(2):
        session.trainer.progress.epoch = epoch
        session.begin_epoch()
        backbone = session.trainer.recognizer.backbone
        frozen.append(not any(parameter.requires_grad for parameter in backbone.parameters()))
        norms = [part for part in backbone.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        resting.append(not any(norm.training for norm in norms))
    assert frozen == resting == [True, False]


def test_images_of_steps_that_are_not_finite_are_named_by_their_ids(assemble):
    session = assemble({"validate_every": 3})
    with torch.no_grad():
        session.trainer.recognizer.head.linear.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"16 \(i\d+, .*not_finite\.txt"):
        run(session)
    listed = (session.checkpoints.run_folder / "not_finite.txt").read_text().split()
    assert sorted(listed) == sorted(f"i{number}" for number in range(16))


def test_what_validation_gives_must_be_finite(assemble):
    session = assemble()
    with torch.no_grad():
        for network in (session.trainer.recognizer, session.trainer.evaluated):
            network.head.linear.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"validation images must be finite.*learning_rate"):
        session.validate(StopRequest())


def test_near_classes_and_merged_centres_come_between_epochs(assemble):
    loss = {"metric": {"name": "soft_triple", "centres_per_class": 2, "merge_every_epochs": 2}}
    session = assemble({"hard_classes": 0.5, "sampler": "pk"}, loss=loss)
    assert run(session) is Ending.FINISHED
    assert [("centres_per_class" in epoch) for epoch in read_epochs(session)] == [False, False, True]
    near = session.batches.near_classes
    assert near.shape == (CLASSES, CLASSES - 1)
    assert all(set(row) == set(range(CLASSES)) - {own} for own, row in enumerate(near.tolist()))
    assert session.plan.merge_every == 2
