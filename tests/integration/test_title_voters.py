"""Titles vote beside images where both have them; whoever has none is answered as a run without titles would."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from productrec.demo.drawn.competition import draw_competition
from productrec.recognition.classifier_file import load_classifier
from productrec.recognition.probabilities import load_probabilities
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.retrieval.neighbours import load_neighbours
from tests.integration.conftest import TINY, run_in, write_recipe


@pytest.fixture(scope="module")
def titled(tmp_path_factory):
    """A competition whose images mostly have titles, played; copy it before changing it."""
    folder = tmp_path_factory.mktemp("titled")
    draw_competition(
        folder / "shop", skus=6, train_images=8, val_images=8, test_images=3, max_side_px=48, titles=True, seed=3
    )
    run_in(folder, "run", write_recipe(folder, folder / "shop"), *TINY, "predict.keep_parts=true")
    return folder


@pytest.fixture
def own(titled, tmp_path, monkeypatch):
    folder = tmp_path / "own"
    shutil.copytree(titled, folder)
    monkeypatch.chdir(folder)
    return folder


def read_titles(folder):
    images = pd.read_parquet(folder / "data/tiny/images.parquet")
    return dict(zip(images["image_id"], images["title"].notna(), strict=True))


def test_titles_join_the_classifier_and_stand_in_the_staircase(own, productrec):
    classifier = load_classifier(own / "runs/tiny/classifier/plain")
    assert classifier.voters == ("titles",)
    has_title = read_titles(own)
    for split in ("val", "test"):
        found = load_neighbours(own / "runs/tiny/neighbours/titles" / split)
        ids = load_probabilities(own / "runs/tiny/predictions/plain" / split).ids
        assert set(found.ids) == {image_id for image_id in ids if has_title[image_id]}
        assert (own / "runs/tiny/predictions/plain/parts/titles" / split).exists()
    told = productrec("predict", "runs/tiny")
    assert told.code == 0 and "vote of titles (" in told.out + told.err


def test_without_titles_everything_is_as_if_there_were_none(own, productrec):
    has_title = read_titles(own)
    before = load_probabilities(own / "runs/tiny/predictions/plain/test")
    values = np.array(before.values)
    asked = ("predict", "runs/tiny", "--images", "shop/images", "--out")
    assert productrec(*asked, "titles.csv").code == 0
    assert productrec("predict", "runs/tiny", "predict.titles=none").code == 0
    assert load_classifier(own / "runs/tiny/classifier/plain").voters == ()
    assert not (own / "runs/tiny/neighbours/titles/val").exists()
    after = np.array(load_probabilities(own / "runs/tiny/predictions/plain/test").values)
    titled = np.array([has_title[image_id] for image_id in before.ids])
    np.testing.assert_array_equal(values[~titled], after[~titled])
    assert (values[titled] != after[titled]).any(axis=1).all() and (~titled).any()
    assert productrec(*asked, "none.csv").code == 0
    assert (own / "titles.csv").read_text() == (own / "none.csv").read_text()


def test_images_out_of_fold_are_never_near_to_those_of_their_own_fold(own):
    recipe = json.loads((own / "tiny.yaml").read_text())
    recipe["data"] |= {"table": "data/folds", "folds": 2}
    (own / "folds.yaml").write_text(json.dumps(recipe | {"name": "spread"}))
    run_in(own, "ingest", "shop", "--out", "data/folds", "--folds", "2")
    run_in(own, "train", "folds.yaml", "--folds", "2", *TINY, "train.epochs=1")
    folders = sorted(own.glob("runs/spread.folds/*/neighbours/titles/fold-*"))
    assert len(folders) == 2
    for folder in folders:
        found = load_neighbours(folder)
        rest = load_embedding_set(folder.parents[2] / "embeddings/plain" / f"without-{folder.name}").ids
        near = {rest[row] for row in np.unique(found.rows)}
        assert found.ids and not near & set(
            load_embedding_set(folder.parents[2] / "embeddings/plain" / folder.name).ids
        )
    fitted = next(own.glob("runs/spread.folds/out_of_fold/*/classifier/plain/classifier.json"))
    assert "with titles" in {step["step"] for step in json.loads(fitted.read_text())["fitted"]["steps"]}


def test_a_file_of_views_cannot_take_the_place_of_titles(own, productrec):
    (own / "titles.yaml").write_text("views: {}")
    told = productrec("predict", "runs/tiny", "--views", "titles.yaml")
    assert told.code == 2 and "titles" in told.err
