"""Contracts of one's own: what a run fits, shows, evaluates and notes follows the metric that the contract names."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from productrec.competitions.contract import load_contract
from productrec.data.table import load_table
from productrec.metrics.calibration import build_reliability
from productrec.recognition import open_set
from productrec.recognition.calibration import read_similarity
from productrec.recognition.classifier_file import load_classifier
from productrec.recognition.probabilities import load_probabilities, write_probabilities


def write_contract(folder: Path, **changes: object) -> Path:
    """The drawn competition's contract with other keys."""
    contract = load_contract("imaterialist2019").model_dump(mode="json") | {"name": "mine", "title": "Mine"} | changes
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(contract))
    return path


@pytest.mark.parametrize(
    ("metric", "k", "key", "title"),
    [
        ("map_at_k", 2, "map_at_2", "MAP@2"),
        ("global_average_precision", 1, "global_average_precision", "GAP"),
        ("macro_f1", 1, "macro_f1", "macro F1"),
    ],
)
def test_fit_table_evaluation_and_ledger_follow_the_metric(finished, productrec, metric, k, key, title):
    before = load_classifier(finished / "runs/tiny/classifier/plain").fitted["scores"]["fused"]
    assert before["metric"] == "top_3_error"
    contract = write_contract(finished, metric=metric, metric_k=k)
    done = productrec("predict", "runs/tiny", f"competition={contract}")
    assert done.code == 0, done.err
    assert f"{title} %" in done.out and "top-1 accuracy %" in done.out and "top-3 error" not in done.out
    after = load_classifier(finished / "runs/tiny/classifier/plain").fitted["scores"]["fused"]
    assert after["metric"] == key and 0 <= after["metric_value"] <= 1
    submitted = productrec("submit", "runs/tiny", "--competition", contract, "--out", "submissions/mine.csv")
    assert submitted.code == 0, submitted.err
    assert f",{key},{after['metric_value']}" in (finished / "submissions/ledger.csv").read_text()
    judged = productrec(
        "evaluate", "runs/tiny", f"competition={contract}", "--bootstrap", "20", "--json", "figures.json"
    )
    assert judged.code == 0, judged.err
    kept = json.loads((finished / "figures.json").read_text())["tiny"]
    assert f"head_{key}" in kept["figures"] and f"head_{key}" in kept["intervals"]


def test_confidence_and_similarity_are_told_with_what_they_are_worth(finished, productrec):
    done = productrec("predict", "runs/tiny")
    assert done.code == 0, done.err
    fitted = load_classifier(finished / "runs/tiny/classifier/plain").fitted
    curve, scores = build_reliability(fitted["calibration"]["answers"]), fitted["scores"]["fused"]
    assert f"tiny, calibration of the fused answers: {curve.tell()}" in done.err
    assert curve.count == scores["images"] and curve.accuracy == pytest.approx(scores["top_1_accuracy"])
    table = load_table(Path("data/tiny"))
    photo = table.get_paths(table.select(["test"]))[0]
    scale = read_similarity(fitted)
    assert scale is not None
    told = productrec("query", "runs/tiny", photo, "--json")
    assert told.code == 0, told.err
    for near in json.loads(told.out)["nearest"]:
        assert near["probability"] == pytest.approx(
            float(scale.compute(near["similarity"])), abs=0.01
        )  # of a rounded similarity


def test_an_evaluation_tells_how_a_classifier_does_with_unknown_products(finished, productrec):
    done = productrec("evaluate", "runs/tiny", "--bootstrap", "20", "--json", "figures.json")
    assert done.code == 0, done.err
    kept = json.loads((finished / "figures.json").read_text())["tiny"]
    assert (
        kept["calibration"] == load_classifier(finished / "runs/tiny/classifier/plain").fitted["calibration"]["answers"]
    )
    assert kept["open_set"] is None  # 18 images are too few
    shutil.rmtree("runs/tiny/classifier")
    alone = productrec("evaluate", "runs/tiny", "--bootstrap", "20", "--json", "figures.json")
    assert alone.code == 0, alone.err
    assert json.loads((finished / "figures.json").read_text())["tiny"]["calibration"] is None


def test_an_open_set_curve_is_kept_beside_the_figures(finished, productrec, monkeypatch):
    monkeypatch.setattr(open_set, "_LEAST_UNKNOWN", 2)
    done = productrec("evaluate", "runs/tiny", "--bootstrap", "20")
    assert done.code == 0, done.err
    assert "unknown products: by " in done.err and "at 0.1 % false accepts not measurable" in done.err
    lines = (finished / "runs/tiny/evaluations/plain/val/open_set.csv").read_text().splitlines()
    assert lines[0] == "threshold,true_accepts,false_accepts" and lines[-1].endswith(",1.0")


def read_labels(path):
    with Path(path).open(newline="") as file:
        return {row["id"]: row["predicted"].split() for row in csv.DictReader(file)}


def test_unknown_products_are_called_as_the_contract_says(finished, productrec, monkeypatch):
    monkeypatch.setattr(open_set, "_LEAST_UNKNOWN", 2)  # 18 validation images are fewer than are asked for
    contract = write_contract(finished, unknown_label="new_product", unknown_share=0.5)
    done = productrec("predict", "runs/tiny", f"competition={contract}")
    assert done.code == 0, done.err
    unknown = load_classifier(finished / "runs/tiny/classifier/plain").unknown
    assert unknown is not None and unknown.metric_value is not None
    doubted = load_probabilities(finished / "runs/tiny/predictions/plain/test").doubted
    assert doubted is not None
    submitted = productrec("submit", "runs/tiny", "--competition", contract, "--out", "submissions/mine.csv")
    assert submitted.code == 0, submitted.err
    rows = read_labels("submissions/mine.csv")
    assert {image_id for image_id, labels in rows.items() if labels[0] == "new_product"} == set(doubted)
    assert all(labels[1] == "new_product" for image_id, labels in rows.items() if image_id not in doubted)
    table = load_table(Path("data/tiny"))
    photos = productrec("predict", "runs/tiny", "--images", table.root / "images", "--out", "photos.csv")
    assert photos.code == 0, photos.err
    with Path("photos.csv").open(newline="") as file:
        named = {row["id"]: row for row in csv.DictReader(file)}
    for image_id in rows:
        row = named[image_id]
        assert (row["class"] == "new_product") == (image_id in doubted)
        assert (row["class_id"] == "") == (image_id in doubted) and row["next_class_id"] != ""


def test_where_no_threshold_was_fitted_nothing_is_called_unknown(finished, productrec):
    contract = write_contract(finished, unknown_label="new_product")
    assert productrec("predict", "runs/tiny", f"competition={contract}").code == 0
    submitted = productrec("submit", "runs/tiny", "--competition", contract, "--out", "submissions/mine.csv")
    assert submitted.code == 0 and "no image is called new_product" in submitted.err
    assert not any("new_product" in labels for labels in read_labels("submissions/mine.csv").values())


def test_members_of_more_than_half_of_the_weight_call_a_product_unknown(finished, productrec):
    test_ids = load_probabilities(finished / "runs/tiny/predictions/plain/test").ids
    doubts = {"a": test_ids[:2], "b": test_ids[1:3], "c": []}
    for name, doubted in doubts.items():
        shutil.copytree("runs/tiny/predictions/plain", f"runs/{name}/predictions/plain")
        shutil.copy("runs/tiny/recipe.yaml", f"runs/{name}/recipe.yaml")
        for split in ("val", "test"):
            doubt(Path(f"runs/{name}/predictions/plain/{split}"), doubted)
    blended = productrec("ensemble", "runs/a", "runs/b", "runs/c", "--out", "runs/abc")
    assert blended.code == 0, blended.err
    assert load_probabilities(finished / "runs/abc/predictions/blend/test").doubted == [test_ids[1]]
    doubt(Path("runs/c/predictions/plain/test"), None)
    again = productrec("ensemble", "runs/a", "runs/b", "runs/c", "--out", "runs/none")
    assert again.code == 0, again.err
    assert load_probabilities(finished / "runs/none/predictions/blend/test").doubted is None


def doubt(folder, doubted):
    """The same class probabilities with other doubts."""
    kept = load_probabilities(folder)
    values = np.array(kept.values)
    writing = write_probabilities(
        folder,
        ids=kept.ids,
        class_ids=kept.class_ids,
        names=kept.names,
        fallback=kept.fallback,
        made=kept.made,
        inputs={"table": kept.table_fingerprint},
        settings={"split": kept.split},
        keys=kept.keys,
        table=kept.table,
        rows=kept.rows,
        doubted=doubted,
    )
    with writing as made:
        made[:] = values
