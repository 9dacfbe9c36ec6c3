"""Pseudo-labels on the command line: trained on where the rules let them, refused where they do not."""

import json

from tests.integration.conftest import TINY

LABELS = "train.pseudo_labels=runs/tiny/predictions/plain/{}"


def train(productrec, split, *settings):
    return productrec("train", "tiny.yaml", *TINY, LABELS.format(split), *settings)


def test_the_rules_decide_and_what_was_predicted_is_trained_on(finished, productrec):
    done = train(productrec, "test", "name=again", "data.table=data/tiny")
    assert done.code == 3 and "train.pseudo_labels must be left out, by its rules" in done.err
    settings = ("name=again", "data.table=data/tiny", "competition=plain", "train.pseudo_confidence=0")
    done = train(productrec, "test", *settings)
    assert done.code == 0, done.err
    assert "pseudo-labels: 18 of 18 images" in done.err and "on 66 images of 6 classes" in done.err
    manifest = json.loads((finished / "runs/tiny/predictions/plain/test/manifest.json").read_text())
    started = json.loads((finished / "runs/again/started.json").read_text())
    assert len(started["train.pseudo_labels"]) == 64 and manifest["kind"] == "class probabilities"
    done = productrec("predict", "runs/again")
    assert done.code == 0, done.err


def test_a_weight_of_nothing_leaves_them_out_of_every_epoch(finished, productrec):
    settings = ("name=again", "data.table=data/tiny", "competition=plain", "train.pseudo_confidence=0")
    done = train(productrec, "test", *settings, "train.pseudo_weight=0", "train.sampler=shuffle")
    assert done.code == 0, done.err
    assert "2 epochs of 3 steps" in done.err  # 48 images in batches of 16


def test_what_cannot_be_pseudo_labels_is_told(finished, productrec):
    settings = ("name=again", "data.table=data/tiny", "competition=plain")
    done = train(productrec, "val", *settings)
    assert done.code == 3 and "must be of images without a label; 18" in done.err
    done = train(productrec, "nothing", *settings)
    assert done.code == 4 and "predictions/plain/nothing" in done.err
    folder = finished / "runs/tiny/predictions/plain/test"
    # The head alone, which is never wholly sure.
    assert productrec("predict", "runs/tiny", "predict.parts=[head]").code == 0
    done = train(productrec, "test", *settings, "train.pseudo_confidence=1")
    assert done.code == 3 and "Lower train.pseudo_confidence" in done.err
    (folder / "ids.json").write_text("[]")
    done = train(productrec, "test", *settings)
    assert done.code == 4 and "ids.json" in done.err
