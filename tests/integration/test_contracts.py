"""Contracts of one's own: what a run fits, shows, evaluates and notes follows the metric that the contract names."""

import json
from pathlib import Path

import pytest
import yaml

from productrec.competitions.contract import load_contract
from productrec.data.table import load_table
from productrec.metrics.calibration import build_reliability
from productrec.recognition.calibration import read_similarity
from productrec.recognition.classifier_file import load_classifier


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
        assert near["probability"] == pytest.approx(float(scale.compute(near["similarity"])), abs=0.01)  # of a rounded similarity
