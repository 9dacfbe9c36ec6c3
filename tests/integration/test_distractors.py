"""A class that stands for no product: from the source to what is told unknown, by a run, a CSV and a photo."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from productrec import load
from productrec.data.sources.reading import read_source
from productrec.data.table import DISTRACTORS, load_table
from productrec.demo.drawn.competition import draw_competition
from productrec.recognition import open_set
from productrec.recognition.classifier_file import load_classifier
from productrec.recognition.open_set import DISTRACTOR_SCORES
from productrec.recognition.probabilities import load_probabilities
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.retrieval.index import load_index
from tests.integration.conftest import TINY, run_in, write_recipe


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """A run of a competition one of whose classes is of no product; and the name of that class."""
    folder = tmp_path_factory.mktemp("strange")
    draw_competition(folder / "drawn", skus=6, train_images=8, val_images=3, test_images=3, max_side_px=48, seed=4)
    name = load_names(folder / "drawn")[0]
    recipe = write_recipe(folder, folder / "drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_set, "_LEAST_UNKNOWN", 5)
        run_in(folder, "run", recipe, *TINY, f"data.distractors=[{json.dumps(name)}]")
    return folder, name


def load_names(source):
    """Names of the classes of a drawn competition, by id."""
    return read_source(source, "fgvc_json").build_frames()[1]["name"].tolist()


def count_images(name, source, *splits):
    """How many images some splits of a drawn competition have of a class."""
    images, classes = read_source(source, "fgvc_json").build_frames()
    (class_id,) = classes.loc[classes["name"] == name, "id"]
    return int((images["split"].isin(splits) & (images["label"] == class_id).fillna(False)).sum())


@pytest.fixture
def work(strange, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(strange[0], folder)
    monkeypatch.chdir(folder)
    return folder


def test_they_are_neither_trained_on_nor_in_the_gallery(work, strange):
    table = load_table(Path("data/tiny"))
    rows = table.select([DISTRACTORS])
    assert rows["label"].isna().all()
    assert (table.images["split"] == DISTRACTORS).sum() == count_images(
        strange[1], strange[0] / "drawn", "train", "val"
    )
    assert strange[1] not in table.classes["name"].tolist() and len(table.classes) == 5
    assert len(load_index(work / "runs/tiny/index/plain").labels) == len(table.select(["train"]))
    assert len(load_probabilities(work / "runs/tiny/predictions/plain/test").class_ids) == 5


def test_the_threshold_is_fitted_on_them(work):
    saved = load_classifier(work / "runs/tiny/classifier/plain")
    own = load_embedding_set(work / "runs/tiny/embeddings/plain" / DISTRACTORS)
    assert saved.unknown is not None and saved.unknown.unknown == len(own.ids) > 5
    np.testing.assert_array_equal(saved.distractors, own.embeddings)


def test_a_photo_is_answered_as_the_predictions_were(work, productrec, monkeypatch):
    monkeypatch.setattr(open_set, "_LEAST_UNKNOWN", 5)
    # A threshold on a score of distractors, whatever this little network would choose.
    monkeypatch.setattr(open_set, "SCORES", {})
    assert productrec("predict", "runs/tiny", "predict.k_grid=[1,3]").code == 0
    saved = load_classifier(work / "runs/tiny/classifier/plain")
    assert saved.unknown.score in DISTRACTOR_SCORES
    table = load_table(Path("data/tiny"))
    doubted = set(load_probabilities(work / "runs/tiny/predictions/plain/test").doubted)
    tests = table.select(["test"])
    answers = load(work / "runs/tiny").recognise(table.get_paths(tests))
    unknown = {name for name, answer in zip(tests["image_id"], answers, strict=True) if answer.is_known is False}
    assert unknown == doubted


def test_out_of_fold_they_ask_each_fold(strange, tmp_path, monkeypatch, productrec):
    folder, name = strange
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(open_set, "_LEAST_UNKNOWN", 5)
    recipe = write_recipe(tmp_path, folder / "drawn")
    settings = [f"data.distractors=[{json.dumps(name)}]", "data.folds=2"]
    assert productrec("ingest", folder / "drawn", *settings, "--out", "data/tiny").code == 0
    done = productrec("train", recipe, *TINY, "train.epochs=1", "--folds", "2")
    assert done.code == 0, done.err
    unknown = load_classifier(tmp_path / "runs/tiny.folds/out_of_fold/tiny/classifier/plain").unknown
    assert unknown is not None and unknown.unknown == len(load_table(Path("data/tiny")).select([DISTRACTORS]))


def test_evaluate_tells_of_them(work, productrec, monkeypatch):
    monkeypatch.setattr(open_set, "_LEAST_UNKNOWN", 5)
    done = productrec("evaluate", "runs/tiny")
    assert done.code == 0, done.err
    figures = json.loads((work / "runs/tiny/evaluations/plain/val/evaluation.json").read_text())
    assert figures["open_set"]["unknown"] == len(load_table(Path("data/tiny")).select([DISTRACTORS]))


def test_the_contracts_label_names_them(place, drawn, productrec):
    name = load_names(drawn)[0]
    contract = place / "mine.yaml"
    text = Path(__import__("productrec").__file__).parent.joinpath("competitions/imaterialist2019.yaml").read_text()
    contract.write_text(text.replace("unknown_label: null", f"unknown_label: {json.dumps(name)}"))
    done = productrec("ingest", drawn, "--competition", contract, "--out", "data/mine")
    assert done.code == 0, done.err
    count = count_images(name, drawn, "train", "val")
    assert f"{count} distractors; 5 classes" in done.err
    explained = productrec("ingest", drawn, "--explain", "--competition", contract)
    assert f"{count} images of {name} are of no class" in explained.out + explained.err


def test_a_name_that_is_no_class_is_refused_before_anything(place, drawn, productrec):
    done = productrec("ingest", drawn, "data.distractors=[nothing_like_it]", "--out", "data/mine")
    assert done.code == 3 and "data.distractors must be names of its classes" in done.err
    assert not (place / "data/mine").exists()
