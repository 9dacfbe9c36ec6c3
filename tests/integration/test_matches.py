"""Competitions that ask which images are of one product, from the source to the CSV; and a protocol without one."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.integration.conftest import TINY, run_in

PLAY = [*TINY, "train.keep_best_by=recall@1", "predict.reranking=[neighbourhood_blending]"]
TRAIN_CLASSES, TEST_CLASSES, SIZE = 9, 4, 4


def draw_image(path: Path, label: int, number: int) -> None:
    """An image of its class's colour, with noise of its own."""
    colour = np.random.default_rng(label).integers(40, 216, 3)
    noise = np.random.default_rng([label, number]).integers(-30, 30, (24, 24, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(path)


def draw_shopee(folder: Path) -> dict[str, int]:
    """Shopee's layout, with groups of its columns' names; the classes of the test postings by id."""
    lines = {split: ["posting_id,image,image_phash,title,label_group"] for split in ("train", "test")}
    hidden = {}
    for label in range(TRAIN_CLASSES + TEST_CLASSES):
        split = "train" if label < TRAIN_CLASSES else "test"
        for number in range(SIZE):
            posting, name = f"{split}_{7919 * (10 * label + number) % 10007}", f"{label}{number}c07da0.png"
            draw_image(folder / f"{split}_images" / name, label, number)
            lines[split].append(f"{posting},{name},94974f93,Title {label},{249114794 + label}")
            if split == "test":
                hidden[posting] = label
    lines["test"] = [line.rpartition(",")[0] for line in lines["test"]]
    for split, rows in lines.items():
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    ids = sorted(hidden)
    sample = [f"{name},{name}" for name in ids[:-1]] + [f"{ids[-1]},{ids[-1]} {ids[0]}"]  # of differing numbers
    (folder / "sample_submission.csv").write_text("posting_id,matches\n" + "\n".join(sample) + "\n")
    return hidden


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A folder in which a recipe of the competition was played; copy it before changing it."""
    folder = tmp_path_factory.mktemp("played")
    (folder / "shopee").mkdir()
    hidden = draw_shopee(folder / "shopee")
    (folder / "hidden.json").write_text(json.dumps(hidden))
    data = {"source": "shopee", "hold_out": "classes", "validation_fraction": 0.4}
    recipe = {"name": "tiny", "competition": "shopee2021", "data": data}
    (folder / "tiny.yaml").write_text(json.dumps(recipe))
    run_in(folder, "run", "tiny.yaml", *PLAY)
    return folder


@pytest.fixture
def own(played, tmp_path, monkeypatch):
    folder = tmp_path / "own"
    shutil.copytree(played, folder)
    monkeypatch.chdir(folder)
    return folder


def read_csv(path: Path) -> dict[str, list[str]]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["posting_id", "matches"]
    return {name: cell.split(" ") for name, cell in rows[1:]}


def test_a_recipe_ends_in_the_csv_of_matches(own):
    hidden = json.loads((own / "hidden.json").read_text())
    rows = read_csv(own / "submissions/tiny.csv")
    assert list(rows) == sorted(hidden)  # the sample's order
    for name, listed in rows.items():
        assert listed[0] == name and len(set(listed)) == len(listed) <= 50 and set(listed) <= set(hidden)
    fitted = json.loads((own / "runs/tiny/matches/plain/test/fitted.json").read_text())
    assert [step["name"] for step in fitted["steps"]] == [
        "titles",
        "at_least_two",
        "both_ways",
        "neighbourhood_blending",
    ]
    assert 0 < fitted["f1"] <= 1 and fitted["interval"][0] <= fitted["f1"] <= fitted["interval"][1]
    assert fitted["pool_images"] == fitted["labelled_images"] == TEST_CLASSES * SIZE == len(hidden)
    assert f",matches_f1,{fitted['f1']}" in (own / "submissions/ledger.csv").read_text()


def test_what_is_unchanged_is_skipped_and_submit_writes_the_same(played, productrec, monkeypatch):
    monkeypatch.chdir(played)
    before = (played / "submissions/tiny.csv").read_bytes()
    manifest = played / "runs/tiny/matches/plain/test/manifest.json"
    made = manifest.stat().st_mtime_ns
    done = productrec("run", "tiny.yaml", *PLAY)
    assert done.code == 0, done.err
    assert manifest.stat().st_mtime_ns == made
    assert productrec("submit", "runs/tiny", "--out", "again/tiny.csv").code == 0
    assert (played / "again/tiny.csv").read_bytes() == before
    shutil.rmtree(played / "again")


def test_titles_join_where_they_gain_and_are_left_out_where_they_shall_not(own, productrec):
    hidden = json.loads((own / "hidden.json").read_text())
    fitted = json.loads((own / "runs/tiny/matches/plain/test/fitted.json").read_text())
    assert fitted["steps"][0]["is_kept"] and fitted["rule"]["titles"]["title"] > 0
    for name, listed in read_csv(own / "submissions/tiny.csv").items():  # the titles name the products
        assert {hidden[other] for other in listed} == {hidden[name]} and len(listed) == SIZE
    done = productrec("predict", "runs/tiny", "match.titles=none")
    assert done.code == 0 and "probability by image and title" not in done.err
    fitted = json.loads((own / "runs/tiny/matches/plain/test/fitted.json").read_text())
    assert fitted["rule"]["titles"] is None
    assert "titles" not in {step["name"] for step in fitted["steps"]}


def test_titles_that_no_test_posting_has_are_not_fitted(own, productrec):
    lines = (own / "shopee/test.csv").read_text().splitlines()
    bare = [lines[0], *(line.rpartition(",")[0] + "," for line in lines[1:])]
    (own / "shopee/test.csv").write_text("\n".join(bare) + "\n")
    done = productrec("run", "tiny.yaml", *PLAY, "name=bare", "data.table=data/bare", "train.epochs=1")
    assert done.code == 0, done.err
    fitted = json.loads((own / "runs/bare/matches/plain/test/fitted.json").read_text())
    assert "titles" not in {step["name"] for step in fitted["steps"]}


def test_a_threshold_of_ones_own_needs_no_labels(own, productrec):
    done = productrec("predict", "runs/tiny", "match.threshold=1", "match.steps=[at_least_two]", "predict.reranking=[]")
    assert done.code == 0, done.err
    assert "similarity of at least 1.0000, at least two" in done.err
    assert productrec("submit", "runs/tiny", "--out", "mine.csv").code == 0
    assert {len(listed) for listed in read_csv(own / "mine.csv").values()} == {2}


def test_views_and_several_runs_are_matched_together(own, productrec):
    shutil.copytree("runs/tiny", "runs/other")
    done = productrec("predict", "runs/tiny", "runs/other", "--views", "flip", "--out", "runs/both")
    assert done.code == 0, done.err
    done = productrec("submit", "runs/both")
    assert done.code == 0, done.err
    assert set(read_csv(own / "submissions/both-flip.csv")) == set(read_csv(own / "submissions/tiny.csv"))


def test_a_posting_whose_image_is_broken_matches_itself_alone(own, productrec):
    broken = sorted((own / "shopee/test_images").iterdir())[0]
    broken.write_bytes(b"no image")
    with (own / "shopee/test.csv").open(newline="") as file:
        posting = next(row["posting_id"] for row in csv.DictReader(file) if row["image"] == broken.name)
    done = productrec("run", "tiny.yaml", "--replace-table", *PLAY, "name=anew", "data.table=data/anew")
    assert done.code == 0, done.err
    assert "1 test images cannot be read" in done.err
    rows = read_csv(own / "submissions/anew.csv")
    assert rows[posting] == [posting]
    assert sum(posting in listed for listed in rows.values()) == 1


def test_classes_that_were_trained_on_are_warned_of_before_and_after_training(own, productrec):
    seen = ["name=seen", "data.table=data/seen", "data.hold_out=images", "train.epochs=1"]
    done = productrec("run", "tiny.yaml", *PLAY, *seen)
    assert done.code == 0, done.err
    assert "data.hold_out=classes holds whole classes out" in done.err.partition("training seen")[0]
    assert "threshold and F1 flatter" in done.err


def test_what_cannot_be_done_is_told(own, productrec):
    for method in ("label_aware", "{name: database_augmentation, same_class: true}"):
        refused = productrec("predict", "runs/tiny", f"predict.reranking=[{method}]")
        assert refused.code == 2 and "must name methods that change embeddings and need no labels" in refused.err
    two = productrec(
        "predict", "runs/tiny", "match.threshold=0.5", "predict.reranking=[whitening,neighbourhood_blending]"
    )
    assert two.code == 2 and "one method at most beside match.threshold" in two.err
    shutil.rmtree("runs/tiny/matches")
    none = productrec("submit", "runs/tiny")
    assert none.code == 4 and "Run `productrec predict runs/tiny` first" in none.err


def test_matches_of_another_state_of_the_table_are_not_submitted(own, productrec):
    manifest = own / "data/shopee/manifest.json"
    manifest.write_text(manifest.read_text().replace('"inputs": {', '"inputs": {"more": "x",', 1))
    refused = productrec("submit", "runs/tiny")
    assert refused.code == 4 and "the image table has changed since" in refused.err


def test_images_held_out_of_no_class_leave_nothing_to_fit_by(own, productrec):
    done = productrec("run", "tiny.yaml", *PLAY, "name=bare", "data.table=data/bare", "data.validation_fraction=0")
    assert done.code == 3 and "or name a threshold with match.threshold" in done.err


def test_a_protocol_ends_in_its_table_and_has_no_csv(place, productrec):
    source = place / "Stanford_Online_Products"
    for name, labels in (("train", range(1, 7)), ("test", range(20, 24))):
        lines = ["image_id class_id super_class_id path"]
        for label in labels:
            for number in range(SIZE):
                path = f"bicycle_final/{label}_{number}.jpg"
                draw_image(source / path, label, number)
                lines.append(f"{len(lines)} {label} 1 {path}")
        (source / f"Ebay_{name}.txt").write_text("\n".join(lines) + "\n")
    data = {"source": str(source), "hold_out": "classes", "validation_fraction": 0.3}
    recipe = {"name": "sop", "competition": "stanford_online_products", "data": data}
    (place / "sop.yaml").write_text(json.dumps(recipe))
    done = productrec("run", "sop.yaml", *TINY, "train.keep_best_by=recall@1")
    assert done.code == 0, done.err
    assert "recall@1000" in done.out and "16 queries" in done.err and "is a research protocol" in done.err
    assert not (place / "submissions").exists()
    kept = json.loads((place / "runs/sop/evaluations/plain/test/evaluation.json").read_text())
    assert kept["protocol"] == "every image asks all others" and "recall@1" in kept["intervals"]
    refused = productrec("submit", "runs/sop")
    assert refused.code == 5 and "which has no CSV. `productrec evaluate runs/sop --split test` makes" in refused.err
