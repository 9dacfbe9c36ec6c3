"""The audit as a user types it: before training and after, edited, applied, and obeyed."""

import csv
import json
import re
import shutil
from pathlib import Path

import pandas as pd

from tests.integration.conftest import TINY, write_recipe


def read_findings(folder: Path) -> list[dict[str, str]]:
    with (folder / "findings.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def copy_source(drawn: Path, place: Path) -> tuple[Path, list[str]]:
    """The drawn competition with one training image copied under another label."""
    source = place / "source"
    shutil.copytree(drawn, source)
    listed = json.loads((source / "train.json").read_text())
    first = listed["images"][0]
    other = next(entry for entry in listed["images"] if entry["class"] != first["class"])
    copy = {**first, "id": "copy.jpg", "class": other["class"]}
    found = next(source.rglob(first["id"]))
    shutil.copy(found, found.with_name("copy.jpg"))
    listed["images"].append(copy)
    (source / "train.json").write_text(json.dumps(listed))
    return source, [first["id"], "copy.jpg"]


def test_before_training_conflicts_are_found_dropped_and_stay_rows(place, drawn, productrec):
    source, twins = copy_source(drawn, place)
    assert productrec("ingest", source, "--out", "data/tiny").code == 0
    audited = productrec("audit", "data/tiny")
    assert audited.code == 0, audited.err
    assert "2 label conflict" in audited.err
    findings = read_findings(place / "data/tiny.audit")
    assert sorted(row["image_id"] for row in findings if row["kind"] == "label_conflict") == sorted(twins)
    assert len(pd.read_parquet("data/tiny.audit/findings.parquet")) == len(findings)
    assert "unchanged" in productrec("audit", "data/tiny").err

    path = place / "data/tiny.audit/findings.csv"
    path.write_text(path.read_text().replace("copy.jpg,label_conflict,,", "copy.jpg,label_conflict,drop,"))
    refused = productrec("audit", "data/tiny")
    assert refused.code == 4
    assert "was edited" in refused.err
    before = pd.read_parquet("data/tiny/images.parquet")
    applied = productrec("ingest", source, "--out", "data/tiny", "--apply", path)
    assert applied.code == 0, applied.err
    assert "1 dropped, 0 relabelled, 0 weighed" in applied.err
    after = pd.read_parquet("data/tiny/images.parquet")
    assert after["image_id"].tolist() == before["image_id"].tolist()
    assert after.set_index("image_id").loc["copy.jpg", "status"] == "dropped"
    assert "unchanged" in productrec("ingest", source, "--out", "data/tiny", "--apply", path).err
    taken_back = productrec("ingest", source, "--out", "data/tiny")
    assert "written" in taken_back.err
    assert (pd.read_parquet("data/tiny/images.parquet")["status"] == "ok").all()


def test_a_run_judges_the_fold_it_left_out_and_a_marked_weight_is_obeyed(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny", "--folds", "2").code == 0
    settings = [*TINY, "train.fold=1"]
    assert productrec("train", recipe, *settings).code == 0
    audited = productrec("audit", "runs/tiny", "--mark", "weight", "--first", "5", "--no-duplicates")
    assert audited.code == 0, audited.err
    findings = read_findings(place / "data/tiny.audit")
    images = pd.read_parquet("data/tiny/images.parquet").set_index("image_id")
    suspects = [row for row in findings if row["kind"] == "wrong_label"]
    # Two epochs from random weights: nearly everything is doubted, and only the fold that was left out.
    assert len(suspects) > 5
    assert {images.loc[row["image_id"], "fold"] for row in suspects} == {1}
    assert all("out of fold" in row["detail"] for row in suspects)
    assert [row["action"] for row in suspects[:6]] == ["weight"] * 5 + [""]
    assert [float(row["score"]) for row in suspects] == sorted((float(row["score"]) for row in suspects), reverse=True)
    assert all(row["label"] != row["new_label"] and row["label_name"] and row["path"] for row in suspects)
    assert (place / "data/tiny.audit/suspects.jpg").stat().st_size > 1000

    path = place / "data/tiny.audit/findings.csv"
    assert productrec("ingest", drawn, "--out", "data/tiny", "--folds", "2", "--apply", path).code == 0
    weights = pd.read_parquet("data/tiny/images.parquet").set_index("image_id")["weight"]
    assert weights.notna().sum() == 5
    assert float(weights[suspects[0]["image_id"]]) == float(suspects[0]["weight"])
    assert productrec("train", recipe, *TINY, "name=weighed", "data.table=data/tiny").code == 0
    again = productrec("ingest", drawn, "--out", "data/tiny", "--folds", "2", "--apply", path, "--replace")
    assert "had findings applied" not in again.err
    without = productrec("ingest", drawn, "--out", "data/tiny", "--folds", "2", "--replace")
    assert "data/tiny had findings applied; none are applied now" in without.err


def test_a_run_of_all_images_judges_each_by_the_others(finished, productrec):
    audited = productrec("audit", "runs/tiny", "--no-duplicates", "--shown", "0")
    assert audited.code == 0, audited.err
    suspects = [row for row in read_findings(finished / "data/tiny.audit") if row["kind"] == "wrong_label"]
    assert suspects
    assert not any("out of fold" in row["detail"] for row in suspects)
    assert not (finished / "data/tiny.audit/suspects.jpg").exists()


def test_a_page_is_written_beside_findings_that_were_there_already_and_is_no_part_of_them(finished, productrec):
    folder = finished / "data/tiny.audit"
    assert productrec("audit", "runs/tiny", "--no-duplicates").code == 0
    assert not (folder / "audit.html").exists()
    audited = productrec("audit", "runs/tiny", "--no-duplicates", "--html")
    applies = "--out data/tiny --format fgvc_json --apply findings.csv"
    assert "unchanged" in audited.err and f"{applies}` then applies it" in audited.err, audited.err
    page = (folder / "audit.html").read_text(encoding="utf-8")
    suspect = next(row for row in read_findings(folder) if row["kind"] == "wrong_label")
    assert f'data-id="{suspect["image_id"]}"' in page and "Audit of tiny" in page and applies in page
    assert "unchanged" in productrec("audit", "runs/tiny", "--no-duplicates").err
    (finished / "data/tiny.audit/findings.csv").write_text("image_id,action\n")
    assert "was edited" in productrec("audit", "runs/tiny", "--no-duplicates", "--html").err


def test_what_cannot_be_audited_is_told_in_a_line(finished, productrec):
    for arguments, code, said in (
        (["data/tiny", "runs/tiny"], 2, "must be named alone"),
        (["data/tiny", "train.epochs=3"], 2, "train.epochs=3 have no effect on a table; only data.images=FOLDER"),
        (["data/tiny", "--mark", "burn"], 2, "mark must be one of drop, relabel, weight"),
        (["nowhere"], 2, "nowhere"),
        (["data/tiny", "--out", "runs/tiny"], 4, "must hold the findings|is no findings"),
    ):
        outcome = productrec("audit", *arguments)
        assert outcome.code == code, outcome.err
        assert re.search(said, outcome.err), outcome.err
        assert outcome.err.strip().count("\n") == 0
    bad = finished / "bad.csv"
    bad.write_text("image_id,action\nnobody,drop\n")
    source = json.loads((finished / "tiny.yaml").read_text())["data"]["source"]
    before = (finished / "data/tiny/images.parquet").read_bytes()
    outcome = productrec("ingest", source, "--out", "data/tiny", "--apply", bad)
    assert outcome.code == 3
    assert "nobody" in outcome.err
    assert (finished / "data/tiny/images.parquet").read_bytes() == before
    other = ("name=left", "data.table=data/tiny", "train.fold=0")
    assert productrec("train", finished / "tiny.yaml", *TINY, *other).code == 3


def test_one_product_under_two_names_is_told_shown_and_merged(place, drawn, productrec):
    source = place / "source"
    shutil.copytree(drawn, source)
    for split in ("train", "val"):
        listed = json.loads((source / f"{split}.json").read_text())
        own = [entry for entry in listed["images"] if entry["class"] == 0]
        for entry in own[::2]:
            entry["class"] = 6
        (source / f"{split}.json").write_text(json.dumps(listed))
    tree = json.loads((source / "product_tree.json").read_text())
    for level in tree.values():
        for members in level.values():
            if "0" in members or 0 in members:
                members.append(type(members[0])(6))
    (source / "product_tree.json").write_text(json.dumps(tree))
    recipe = write_recipe(place, source)
    assert productrec("ingest", source, "--out", "data/tiny").code == 0
    # Colours tell the drawn products apart without training; a head that learned to part the two would hide them.
    settings = [*TINY, "train.epochs=1", "train.learning_rate=1e-6", "model.pooling=average"]
    assert productrec("train", recipe, *settings).code == 0
    audited = productrec("audit", "runs/tiny", "--out", "data/tiny.audit")
    assert audited.code == 0, audited.err
    pairs = [row for row in read_findings(place / "data/tiny.audit") if row["kind"] == "same_product"]
    assert {("0", "6")} <= {(row["new_label"], row["label"]) for row in pairs}
    assert (place / "data/tiny.audit/twins.jpg").exists()
    path = place / "data/tiny.audit/findings.csv"
    told = re.compile(r"^,same_product,,6,([^,]*),0,", re.MULTILINE)
    path.write_text(told.sub(r",same_product,merge,6,\1,0,", path.read_text()))
    applied = productrec("ingest", source, "--out", "data/tiny", "--apply", path)
    assert applied.code == 0 and "1 classes merged into others" in applied.err, applied.err
    labels = pd.read_parquet("data/tiny/images.parquet")["label"].dropna()
    assert 6 not in set(labels) and (labels == 0).sum() > 8
