"""The report of a tiny run: all of it, and what is missing named and left out."""

import html
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from productrec.assembly.report_evidence import compute_share_maps, load_split_neighbours
from productrec.assembly.report_material import gather_material
from productrec.data.curation.findings import read_findings
from productrec.data.table import load_table
from productrec.pipeline.targets import list_ingest_command
from productrec.recipe import load_recipe
from productrec.reporting.thumbnails import Thumbnails
from tests.integration.conftest import check_command

RUN = "runs/tiny"
HEADINGS = {
    "Scores",
    "Training curves",
    "Confidence against accuracy",
    "Confused pairs",
    "Mistakes",
    "Hard and easy classes",
    "Suspected wrong labels",
    "Map of the classes",
    "All answers",
    "Recipe, environment and artefacts",
}


def read_headings(page: str) -> set[str]:
    return set(re.findall(r'<h2 id="[a-z-]+-title">([^<]+)</h2>', page))


def read_json(page: str, name: str):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S).group(1))


@pytest.fixture
def reported(finished, productrec):
    """Make the report and read it."""

    def make(*arguments):
        outcome = productrec("report", RUN, *arguments)
        assert outcome.code == 0, outcome.err
        return (finished / RUN / "report.html").read_text(encoding="utf-8"), outcome

    return make


def test_a_report_holds_every_section_and_every_answer(reported, finished):
    page, outcome = reported("--plots", "plots")
    assert read_headings(page) >= HEADINGS
    assert "report.html" in outcome.err
    assert f"Next: `productrec audit {RUN} --html`" in outcome.err
    assert not re.search(r"""(?:src|href|action)=["']?https?:""", page)
    assert {path.name for path in (finished / "plots").iterdir()} >= {"staircase.svg", "training.svg", "classes.svg"}
    table = load_table(finished / "data/tiny").images
    answers = read_json(page, "answers-data")
    listed = table[table["split"].isin(["val", "test"])]
    assert sorted(answers["id"]) == sorted(listed["image_id"])
    labels = dict(zip(listed["image_id"], listed["label"], strict=True))
    for image_id, place in zip(answers["id"], answers["label"], strict=True):
        told = "" if place < 0 else re.search(r"\d+", answers["classes"][place]).group()
        assert told == ("" if pd.isna(labels[image_id]) else str(labels[image_id]))
    assert len(read_json(page, "thumbnails")) > 6


def test_the_findings_to_copy_are_findings(reported, finished):
    page, _ = reported()
    lines = read_json(page, "findings")
    rows = zip(lines["before"], ["action", *["drop"] * (len(lines["before"]) - 1)], lines["after"], strict=True)
    path = finished / "findings.csv"
    path.write_text("".join(f"{','.join(row)}\n" for row in rows))
    findings = read_findings(path)
    table = load_table(finished / "data/tiny").images
    assert len(findings) and set(findings["image_id"]) <= set(table.loc[table["split"] == "val", "image_id"])


def test_what_is_missing_shortens_the_page_and_is_named(reported, finished):
    shutil.rmtree(finished / RUN / "neighbours")
    (finished / RUN / "metrics.jsonl").unlink()
    page, outcome = reported()
    assert {"Confused pairs", "Mistakes", "Not shown"} <= read_headings(page)
    assert "Training curves" not in read_headings(page)
    assert "Nearest products of mistakes: there are no neighbours. Run productrec predict." in page
    assert "Training curves of tiny: there is no metrics.jsonl." in outcome.err


def test_without_images_weights_or_predictions_there_is_a_page_still(reported, finished, drawn):
    table = finished / "data/tiny"
    manifest = json.loads((table / "manifest.json").read_text())
    manifest["notes"] |= {"root": "/nowhere", "relative_root": "nowhere"}
    (table / "manifest.json").write_text(json.dumps(manifest))
    page, _ = reported()
    assert read_json(page, "thumbnails") == [] and "the folder of the images must be there" in page
    (finished / RUN / "checkpoints/best/weights.safetensors").unlink()
    shutil.rmtree(finished / RUN / "predictions")
    page, _ = reported()
    assert "Answers, mistakes and results by class: there are no predictions." in page
    assert "Mistakes" not in read_headings(page)
    shutil.rmtree(table)
    page, _ = reported()
    assert {"Training curves", "Recipe, environment and artefacts"} <= read_headings(page)


def test_the_shares_of_a_map_sum_to_the_similarity_of_the_neighbour(finished):
    run, recipe = finished / RUN, load_recipe(finished / RUN / "recipe.yaml", [])
    material = gather_material(recipe, {"val": run / "predictions/plain/val"}, Thumbnails())
    neighbours = load_split_neighbours(run, recipe, "plain", "val")
    pairs = [(neighbours.ids[row], neighbours.gallery_ids[neighbours.rows[row, 0]]) for row in range(3)]
    shares = compute_share_maps(run, recipe, [*pairs, ("absent", pairs[0][0])], material.pictures)
    assert list(shares) == pairs
    sums = [cells.sum() for cells in shares.values()]
    np.testing.assert_allclose(sums, neighbours.similarities[:3, 0], atol=1e-4)


def test_a_leak_and_an_audit_are_shown(reported, finished):
    table = load_table(finished / "data/tiny").images
    of_val = table[table["split"] == "val"].iloc[0]
    of_train = table[(table["split"] == "train") & (table["label"] == of_val["label"])].iloc[0]
    rows = [("0", row["image_id"], row["split"], row["label"]) for row in (of_val, of_train)]
    pd.DataFrame(rows, columns=["cluster", "image_id", "split", "label"]).to_csv(
        finished / "data/tiny/duplicates.csv", index=False
    )
    page, _ = reported()
    assert "Duplicates and leaks" in read_headings(page)
    assert "<p>1 cluster of near-duplicates, 1 of them across splits, a leak.</p>" in page
    assert f'data-id="{of_val["image_id"]} {of_train["image_id"]}"' in page


def test_an_audit_of_an_earlier_state_of_the_table_is_not_shown(reported, finished, productrec):
    assert productrec("audit", RUN).code == 0
    page, _ = reported()
    assert "Training images: by the audit in" in page and "earlier state" not in page
    manifest = finished / "data/tiny.audit/manifest.json"
    told = json.loads(manifest.read_text())
    told["inputs"]["table"] = "0" * 64
    manifest.write_text(json.dumps(told))
    page, outcome = reported()
    assert "Training images: by the audit in" not in page
    (line,) = [line for line in outcome.err.splitlines() if "earlier state" in line]
    assert line == (
        "not shown: Findings of the audit: the audit in data/tiny.audit is of an earlier state of the table. "
        "Audit anew: productrec audit runs/tiny"
    )
    assert productrec("audit", RUN).code == 0
    assert "Training images: by the audit in" in reported()[0]


def test_the_findings_are_applied_by_the_command_that_makes_the_table(reported, finished, drawn):
    page, _ = reported()
    command = html.unescape(re.search(r"<code>(productrec ingest [^<]+ --apply findings.csv)</code>", page).group(1))
    words = shlex.split(command)
    check_command(words)
    assert Path(words[2]).resolve() == drawn and words[3:5] == ["--out", "data/tiny"]
    assert list_ingest_command(finished / "data/tiny") == words[:-2]  # as the page of the audit has it


def test_what_is_not_shown_is_told_without_the_path_of_the_machine(reported, finished):
    weights = finished / RUN / "checkpoints/best/weights.safetensors"
    weights.unlink()
    shutil.rmtree(finished / "data/tiny")
    recipe = finished / RUN / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("data/tiny", str(finished / "data/tiny")))
    page, outcome = reported()
    (told,) = [line for line in outcome.err.splitlines() if "Labels, pictures and names of classes" in line]
    assert "data/tiny: no image table here" in told and str(finished) not in told
    assert str(finished) not in page[page.index('id="missing-title"') :]


def test_images_that_cannot_be_read_are_not_judged(reported, finished):
    folder = finished / RUN / "predictions/plain/val"
    manifest = json.loads((folder / "manifest.json").read_text())
    ids = json.loads((folder / "ids.json").read_text())
    before, _ = reported()
    manifest["notes"]["fallback"] = ids[:2]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    page, _ = reported()
    assert f" of {len(ids)} validation images" in before and f" of {len(ids) - 2} validation images" in page
    assert "2 labelled validation images: they could not be read, so their answers are not judged." in page


def test_a_run_that_is_none_is_refused(place, productrec):
    outcome = productrec("report", "nothing")
    assert outcome.code == 2 and "no such run" in outcome.err


def test_the_lead_is_of_images_that_nothing_was_fitted_on(reported, finished):
    manifest = finished / RUN / "predictions/plain/val/manifest.json"
    told = json.loads(manifest.read_text())
    page, _ = reported()
    right, count = map(int, re.search(r"(\d+) of (\d+) validation images are named right", page).groups())
    told["notes"]["made"]["validation"]["top_1_accuracy"] = right / count
    manifest.write_text(json.dumps(told))
    assert "as they stand" not in reported()[0]
    told["notes"]["made"]["validation"]["top_1_accuracy"] = 0.125
    manifest.write_text(json.dumps(told))
    page, _ = reported()
    assert f"top-1 accuracy 12.5 % on {count} validation images, each answered by what was fitted on others" in page
    assert f"as they stand, fitted on these very images: {right} of {count} validation images" in page


def test_an_ensemble_of_two_runs_of_one_folder_name(reported, finished, productrec):
    shutil.copytree(finished / RUN, finished / "more/tiny")
    done = productrec("ensemble", RUN, "more/tiny", "--out", "runs/both")
    assert done.code == 0, done.err
    outcome = productrec("report", "runs/both", "--plots", "plots")
    assert outcome.code == 0, outcome.err
    page = (finished / "runs/both/report.html").read_text(encoding="utf-8")
    scores = page[page.index('id="scores"') : page.index('id="curves"')]
    rows = re.findall(r"<t[dh][^>]*>([^<]+)", scores)
    assert {"runs/tiny: fused", "more/tiny: fused", "ensembled"} <= set(rows)
    for section, following in (("curves", "calibration"), ("provenance", "missing")):
        part = page[page.index(f'id="{section}"') :].partition(f'id="{following}"')[0]
        assert "runs/tiny" in part and "more/tiny" in part
    drawn = {path.name for path in (finished / "plots").iterdir()}
    assert {"training_runs-tiny.svg", "training_more-tiny.svg"} <= drawn
