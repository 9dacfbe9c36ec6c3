"""Folds and seeds: trained in parts, on any machine; every training image predicted by a run that never saw it."""

import json
import shutil

import numpy as np
import pytest

from productrec.data.table import load_table
from productrec.recognition.probabilities import load_probabilities
from productrec.retrieval.embedding_set import load_embedding_set
from tests.integration.conftest import TINY, write_recipe


@pytest.fixture
def parted(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny", "--folds", "2").code == 0
    return recipe


def test_folds_are_trained_apart_and_their_answers_fitted_for_the_run(parted, place, productrec):
    settings = [*TINY, "predict.tta=flip"]
    first = productrec("train", parted, *settings, "--folds", "2", "--only", "1", "--jobs", "1")
    assert first.code == 0, first.err
    assert "1 of 2 are finished; missing: fold-0" in first.err
    done = productrec("train", parted, *settings, "--folds", "2", "--resume", "--jobs", "1")
    assert done.code == 0, done.err
    assert "fold-1 is finished already" in done.err
    assert "tiny: best checkpoints of 2 runs" in done.out
    assert "training images out of fold: 48 images" in done.out
    table = load_table(place / "data/tiny")
    rows = table.select(["train"])
    for views in ("plain", "flip"):
        out = load_probabilities(place / f"runs/tiny.folds/out_of_fold/tiny/predictions/{views}/train")
        assert out.ids == rows["image_id"].tolist() and not out.fallback
        np.testing.assert_allclose(out.values.sum(axis=1), 1.0, atol=1e-5)
    for fold in (0, 1):  # none was in the gallery of its own fold's run
        folder = place / f"runs/tiny.folds/fold-{fold}/embeddings/plain"
        own = set(rows.loc[rows["fold"] == fold, "image_id"])
        assert set(load_embedding_set(folder / f"fold-{fold}").ids) == own
        assert set(load_embedding_set(folder / f"without-fold-{fold}").ids) == set(rows["image_id"]) - own

    # The recipe's own run answers by what was fitted out of fold, and so do the folds together.
    assert productrec("train", parted, *settings).code == 0
    predicted = productrec("predict", "runs/tiny")
    assert predicted.code == 0, predicted.err
    fitted = json.loads((place / "runs/tiny/classifier/plain/classifier.json").read_text())
    beside = json.loads((place / "runs/tiny.folds/out_of_fold/tiny/classifier/plain/classifier.json").read_text())
    assert fitted["classifier"] == beside["classifier"]
    assert (fitted["fitted"]["on"], fitted["fitted"]["images"]) == ("out of fold", 48)
    assert "validation: 18 images" in predicted.out
    together = productrec("predict", "runs/tiny.folds")
    assert together.code == 0, together.err
    assert load_probabilities(place / "runs/tiny.folds/predictions/flip/test").ids

    # What was fitted for a model of other settings is passed over.
    shutil.rmtree(place / "runs/tiny")
    assert productrec("train", parted, *settings, "loss.metric_weight=0.1").code == 0
    assert productrec("predict", "runs/tiny").code == 0
    assert json.loads((place / "runs/tiny/classifier/plain/classifier.json").read_text())["fitted"]["on"] == "val"


def test_seeds_differ_and_their_figures_are_told_together(parted, place, productrec):
    done = productrec("train", parted, *TINY, "--seeds", "2", "--jobs", "1")
    assert done.code == 0, done.err
    assert "tiny: best checkpoints of 2 runs" in done.out and "standard deviation" in done.out
    digests = {
        json.loads((place / f"runs/tiny.seeds/seed-{n}/checkpoints/best/manifest.json").read_text())["files"][
            "weights.safetensors"
        ]["sha256"]
        for n in (0, 1)
    }
    assert len(digests) == 2


def test_members_have_their_own_folds(parted, place, productrec):
    members = {"one": {}, "two": {"loss": {"metric": "none"}}}
    parted.write_text(json.dumps(json.loads(parted.read_text()) | {"members": members}))
    done = productrec("train", parted, *TINY, "--folds", "2", "--jobs", "1")
    assert done.code == 0, done.err
    for model in ("one", "two"):
        assert load_probabilities(place / f"runs/tiny.folds/out_of_fold/{model}/predictions/plain/train").ids


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (
            ("--folds", "3"),
            3,
            "data/tiny: the image table must have its training images in 3 folds; it has 2. Ingest again",
        ),
        (("--folds", "1"), 2, "must be at least 2"),
        (("--folds", "2", "--only", "2"), 2, "must name some of 0 to 1; got 2"),
        (("--folds", "2", "--seeds", "2"), 2, "goes without --folds"),
        (("--only", "0"), 2, "goes with --folds or --seeds"),
        (("--folds", "2", "train.fold=0"), 2, "leaves a fold out already"),
    ],
)
def test_what_cannot_be_spread_is_told(parted, productrec, options, code, words):
    done = productrec("train", parted, *TINY, *options)
    assert done.code == code and words in " ".join(done.err.split()), done.err
