"""How several models become one: fitted where labels are at hand, kept, told, and used for photos too."""

import json
import shutil

import numpy as np
import pytest

from productrec.artifacts import load_manifest
from productrec.data.table import load_table
from productrec.ensembling.blend import blend_block
from productrec.ensembling.ensemble_file import load_ensemble
from productrec.recognition.probabilities import load_probabilities, write_probabilities
from tests.integration.conftest import TINY, run_in, write_recipe


@pytest.fixture(scope="module")
def several(drawn, tmp_path_factory):
    """A recipe with two members, trained and predicted; copy it before changing it."""
    folder = tmp_path_factory.mktemp("several")
    recipe = write_recipe(folder, drawn, members={"a": {"seed": 1}, "b": {"seed": 2}})
    run_in(folder, "run", recipe, *TINY, "train.epochs=1", "--jobs", "1")
    return folder


@pytest.fixture
def work(several, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(several, folder)
    monkeypatch.chdir(folder)
    return folder


def load(folder, name, split="test"):
    return load_probabilities(folder / f"runs/tiny/{name}predictions/plain/{split}")


def change(folder, values, **others):
    """The probabilities in a folder with other values, or otherwise changed."""
    old = load_probabilities(folder)
    manifest = load_manifest(folder)
    about = {
        "ids": old.ids,
        "class_ids": old.class_ids,
        "names": old.names,
        "fallback": old.fallback,
        "made": old.made,
        "keys": old.keys,
        "table": old.table,
        "rows": old.rows,
        "doubted": old.doubted,
    }
    about |= {"inputs": manifest.inputs, "settings": manifest.settings} | others
    shutil.rmtree(folder)
    with write_probabilities(folder, **about) as written:
        written[:] = values


def test_the_blend_is_kept_with_every_way_that_was_tried(work):
    saved = load_ensemble(work / "runs/tiny/ensemble/plain")
    assert saved.names == ["a", "b"] and saved.fitted["on"] == "val" and saved.fitted["images"] == 18
    assert saved.fitted["way"] == min(saved.fitted["log_loss"], key=saved.fitted["log_loss"].get)
    parts = [load(work, "a/").values, load(work, "b/").values]
    np.testing.assert_allclose(load(work, "").values, blend_block(parts, saved.blend), atol=1e-6)
    scores = load(work, "").made["validation"]
    assert scores["top_1_accuracy"] == saved.fitted["scores"][saved.fitted["way"]]["top_1_accuracy"]


def test_a_way_can_be_named_and_another_one_makes_it_anew(work, productrec):
    done = productrec("predict", "runs/tiny", "predict.blend=geometric")
    assert done.code == 0, done.err
    saved = load_ensemble(work / "runs/tiny/ensemble/plain")
    assert set(saved.fitted["scores"]) == {"best", "geometric"} and saved.fitted["told"] == "equal geometric mean"
    parts = [load(work, "a/").values, load(work, "b/").values]
    expected = np.sqrt(parts[0] * parts[1])
    np.testing.assert_allclose(load(work, "").values, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)
    again = productrec("ensemble", "runs/tiny/a", "runs/tiny/b", "--out", "runs/ranks", "--blend", "rank")
    assert again.code == 0, again.err
    assert load_ensemble(work / "runs/ranks/ensemble/blend").blend.rule == "rank"
    wrong = productrec("ensemble", "runs/tiny/a", "runs/tiny/b", "--out", "runs/no", "--blend", "rnak")
    assert wrong.code == 2 and "must be auto, best, mean" in wrong.err


def test_a_member_that_knows_nothing_is_left_out(work, productrec):
    table, generator = load_table(work / "data/tiny"), np.random.default_rng(0)
    labels = dict(zip(table.images["image_id"], table.images["label"], strict=True))
    for split in ("val", "test"):
        good = load(work, "a/", split)
        sure = np.full(good.values.shape, 0.02, np.float32)
        if split == "val":
            rows = np.arange(len(good.ids))
            sure[rows, [good.class_ids.index(labels[image_id]) for image_id in good.ids]] = 0.9
        change(work / f"runs/tiny/a/predictions/plain/{split}", sure / sure.sum(axis=1, keepdims=True))
        noise = generator.dirichlet(np.ones(sure.shape[1]), len(sure)).astype(np.float32)
        change(work / f"runs/tiny/b/predictions/plain/{split}", noise)
    done = productrec("ensemble", "runs/tiny/a", "runs/tiny/b", "--out", "runs/both")
    assert done.code == 0, done.err
    saved = load_ensemble(work / "runs/both/ensemble/blend")
    assert saved.blend.weights[1] < 0.2 * saved.blend.weights[0]
    assert saved.fitted["scores"][saved.fitted["way"]]["top_1_accuracy"] == 1.0


def test_photos_are_blended_as_the_test_images_were(work, productrec):
    table = load_table(work / "data/tiny")
    done = productrec("predict", "runs/tiny", "predict.blend=stacking")
    assert done.code == 0, done.err
    sample = table.sample
    photos = productrec(
        "predict", "runs/tiny", "--images", table.root / "images", "--out", "photos.csv", "--sample", sample
    )
    assert photos.code == 0, photos.err
    assert "weigh alike" not in photos.err
    assert productrec("submit", "runs/tiny", "--out", "submissions/tests.csv").code == 0
    assert (work / "photos.csv").read_text() == (work / "submissions/tests.csv").read_text()


def test_photos_of_runs_that_were_never_blended_say_so(work, productrec):
    table = load_table(work / "data/tiny")
    shutil.rmtree(work / "runs/tiny/ensemble")
    photos = productrec("predict", "runs/tiny", "--images", table.root / "images", "--out", "photos.csv")
    assert photos.code == 0 and "its runs weigh alike, since no blend of them was fitted" in photos.err


def test_where_every_member_has_folds_the_blend_is_fitted_out_of_fold(
    several, tmp_path, monkeypatch, productrec, drawn
):
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path, drawn, members={"a": {"seed": 1}, "b": {"seed": 2}})
    assert productrec("ingest", drawn, "data.folds=2", "--out", "data/tiny").code == 0
    settings = [*TINY, "train.epochs=1", "--jobs", "1"]
    trained = productrec("train", recipe, *settings, "--folds", "2")
    assert trained.code == 0, trained.err
    assert productrec("train", recipe, *settings).code == 0
    done = productrec("predict", "runs/tiny")
    assert done.code == 0, done.err
    assert "training images out of fold" in " ".join(done.out.split())
    saved = load_ensemble(tmp_path / "runs/tiny/ensemble/plain")
    assert saved.fitted["on"] == "out of fold" and saved.fitted["images"] > 18
    validation = load(tmp_path, "").made["validation"]
    assert validation is None or validation["images"] == 18
    told = json.loads((tmp_path / "runs/tiny/ensemble/plain/ensemble.json").read_text())
    assert set(told["fitted"]["diversity"]["disagreement"]) == {"a", "b"}
    # Of an earlier state of the table they are passed over, and nothing fails.
    stale = tmp_path / "runs/tiny.folds/out_of_fold/a/predictions/plain/train"
    change(stale, load_probabilities(stale).values, rows="of other images", inputs={"table": "earlier"})
    again = productrec("predict", "runs/tiny")
    assert again.code == 0 and "the blend is not fitted out of fold" in again.err
    assert load_ensemble(tmp_path / "runs/tiny/ensemble/plain").fitted["on"] == "val"
