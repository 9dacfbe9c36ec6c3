"""Views of a user's own, and what is averaged over views, from the command line: found, kept apart, and repeatable."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest

from productrec.recognition.probabilities import load_probabilities
from productrec.retrieval.embedding_set import load_embedding_set
from tests.integration.test_bad_input import check_line

AVERAGES = ("logits", "probabilities")


def write_views(path, top):
    pipeline = A.Compose([A.GaussNoise(std_range=(0.1, top), p=1.0)])
    Path(path).write_text(json.dumps({"views": {"noisy": pipeline.to_dict()}}))


def test_a_file_of_views_predicts_and_answers_again_the_same(finished, drawn, productrec):
    (finished / "mine").mkdir()
    write_views("mine/shelf.yaml", 0.3)
    done = productrec("predict", "runs/tiny", "--views", "mine/shelf.yaml", "predict.gallery_tta=mine/shelf.yaml")
    assert done.code == 0, done.err
    folder = Path("runs/tiny/embeddings/shelf/val")
    first = load_embedding_set(folder)
    assert first.views[0] == "plain" and first.views[1].startswith("noisy@")
    held = np.array(first.embeddings)
    plain = load_embedding_set(Path("runs/tiny/embeddings/plain/val"))
    assert np.abs(held - plain.embeddings).max() > 1e-3
    assert load_probabilities(Path("runs/tiny/predictions/shelf/test")).ids
    assert productrec("submit", "runs/tiny/predictions/shelf/test").code == 0
    shutil.rmtree("runs/tiny/embeddings/shelf")
    settings = ["--views", "mine/shelf.yaml", "predict.gallery_tta=mine/shelf.yaml"]
    assert productrec("predict", "runs/tiny", *settings).code == 0
    np.testing.assert_array_equal(load_embedding_set(folder).embeddings, held)
    photo = sorted((drawn / "images").iterdir())[0]
    asked = productrec("query", "runs/tiny", photo, *settings, "--json")
    assert asked.code == 0 and "through the views shelf" in asked.err and "as fitted" in asked.err
    assert asked.out == productrec("query", "runs/tiny", photo, *settings, "--json").out
    write_views("mine/shelf.yaml", 0.5)
    changed = productrec("query", "runs/tiny", photo, *settings, "--json")
    assert "the head alone, since its index is of an earlier time" in changed.err
    assert productrec("predict", "runs/tiny", *settings).code == 0
    assert np.abs(load_embedding_set(folder).embeddings - held).max() > 1e-4


def test_an_index_of_other_pipelines_does_not_grow(finished, productrec):
    write_views("shelf.yaml", 0.3)
    assert productrec("predict", "runs/tiny", "--views", "shelf.yaml", "predict.gallery_tta=shelf.yaml").code == 0
    shutil.rmtree("runs/tiny/index/plain")
    write_views("shelf.yaml", 0.5)
    (finished / "new/thing").mkdir(parents=True)
    cv2.imwrite("new/thing/one.png", np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    refused = productrec("index", "grow", "runs/tiny", "new", "predict.tta=shelf.yaml")
    check_line(refused, 4, "runs/tiny/index/shelf", "views of grown rows must be those of the index", "noisy@")


def test_what_is_wrong_with_a_file_is_one_line(finished, productrec):
    A.save(A.Compose([A.Resize(48, 48)]), "big.yaml", data_format="yaml")
    Path("notes.yaml").write_text("loss: {}\n")
    shutil.copy("notes.yaml", "flip.yaml")
    for file, words in (
        ("nowhere.yaml", ["nowhere.yaml: no such file of views"]),
        ("notes.yaml", ["notes.yaml: must hold views"]),
        ("big.yaml", ["view big", "squares of 32 pixels", "got 48 x 48"]),
        ("flip.yaml", ["must not have the name of a preset", "flip.yaml"]),
        ("shelf", ["must be one of plain", "shelf"]),
    ):
        check_line(productrec("predict", "runs/tiny", "--views", file), 2, *words)


def test_probabilities_instead_of_logits_are_averaged_and_kept_apart(finished, drawn, productrec):
    assert productrec("predict", "runs/tiny", "--views", "flip").code == 0
    folder = Path("runs/tiny/embeddings/flip/val")
    by_logits = load_embedding_set(folder)
    logits, embeddings = np.array(by_logits.logits), np.array(by_logits.embeddings)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert "average" not in manifest["settings"]  # sets of before this setting stay
    assert productrec("predict", "runs/tiny", "--views", "flip", "predict.average=probabilities").code == 0
    other = load_embedding_set(folder)
    assert other.fingerprint != by_logits.fingerprint
    np.testing.assert_allclose(np.exp(other.logits).sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(other.embeddings, embeddings)
    assert np.abs(np.exp(logits).sum(axis=1) - 1.0).min() > 1e-3  # those were no logarithms of probabilities
    check_line(productrec("predict", "runs/tiny", "predict.average=both"), 2, "predict.average", "probabilities")
    photo = sorted((drawn / "images").iterdir())[0]
    asked = [productrec("query", "runs/tiny", photo, "--views", "flip", f"predict.average={way}") for way in AVERAGES]
    assert "earlier time" in asked[0].err and "as fitted" in asked[1].err and asked[1].code == 0


@pytest.mark.parametrize("average", AVERAGES)
def test_the_plain_set_is_the_same_whatever_is_averaged(finished, productrec, average):
    before = (Path("runs/tiny/embeddings/plain/val/manifest.json")).read_text()
    assert productrec("predict", "runs/tiny", f"predict.average={average}").code == 0
    assert (Path("runs/tiny/embeddings/plain/val/manifest.json")).read_text() == before


@pytest.mark.parametrize("stored", ["float16", "int8"])
def test_embeddings_in_fewer_bits_predict_nearly_the_same(finished, productrec, stored):
    folder = Path("runs/tiny/embeddings/plain/val")
    before, known = load_embedding_set(folder), load_probabilities(Path("runs/tiny/predictions/plain/val"))
    exact = np.array(before.embeddings)
    before = replace(before, logits=np.array(before.logits))
    done = productrec("predict", "runs/tiny", f"predict.stored={stored}")
    assert done.code == 0, done.err
    kept = load_embedding_set(folder)
    assert kept.fingerprint != before.fingerprint and np.load(folder / "embeddings.npy").dtype == stored
    assert (kept.embeddings[:] * exact).sum(axis=1).min() > 0.9999
    again = load_probabilities(Path("runs/tiny/predictions/plain/val"))
    assert again.ids == known.ids and again.keys == known.keys
    np.testing.assert_array_equal(kept.logits, before.logits)
    assert productrec("evaluate", "runs/tiny", f"predict.stored={stored}", "--bootstrap", "0").code == 0
    check_line(productrec("predict", "runs/tiny", "predict.stored=int4"), 2, "predict.stored", "int8")
