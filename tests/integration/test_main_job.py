"""The main job from a source folder to a CSV, in one command and in four, for each loss and layout."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from productrec.data.transforms import MEAN_COLOUR
from productrec.recognition.classifier import build_classifier, fuse
from productrec.recognition.classifier_file import load_classifier
from productrec.recognition.probabilities import load_probabilities
from productrec.retrieval.embedding_set import load_embedding_set
from tests.integration.conftest import TINY, write_recipe


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_recipe_runs_to_a_csv_in_the_samples_order(trained, drawn):
    rows = read_rows(trained / "submissions" / "tiny.csv")
    sample = read_rows(drawn / "sample_submission.csv")
    assert [row["id"] for row in rows] == [row["id"] for row in sample]
    assert all(len(set(row["predicted"].split())) == 3 for row in rows)
    ledger = read_rows(trained / "submissions" / "ledger.csv")
    assert [row["file"] for row in ledger] == ["tiny.csv"]
    assert ledger[0]["validation_metric"] == "top_3_error"


def test_a_second_run_skips_everything(finished, productrec):
    recipe = finished / "tiny.yaml"
    before = {path: path.stat().st_mtime_ns for path in (finished / "runs").rglob("*") if path.is_file()}
    again = productrec("run", recipe, *TINY)
    assert again.code == 0, again.err
    assert "unchanged" in again.err
    assert "is finished already" in again.err
    assert {path: path.stat().st_mtime_ns for path in (finished / "runs").rglob("*") if path.is_file()} == before
    assert len(read_rows(finished / "submissions" / "ledger.csv")) == 1


def test_parts_are_kept_beside_what_they_are_fused_to(finished, productrec):
    before = load_probabilities(finished / "runs/tiny/predictions/plain/test")
    done = productrec("predict", "runs/tiny", "predict.keep_parts=true")
    assert done.code == 0, done.err
    for split in ("val", "test"):
        folder = finished / "runs/tiny/predictions/plain"
        fused = load_probabilities(folder / split)
        names = ("head", "nearest", "vote", "prototypes")
        parts = {name: load_probabilities(folder / "parts" / name / split) for name in names}
        classifier = build_classifier(fused.made["classifier"])
        opinions = {name: part.values for name, part in parts.items()}
        mixed = fuse(opinions, classifier, load_classifier(finished / "runs/tiny/classifier/plain").categories)
        np.testing.assert_allclose(fused.values, mixed, atol=1e-6)
        assert all(part.made["part"] == name and part.ids == fused.ids for name, part in parts.items())
        logits = load_embedding_set(finished / "runs/tiny/embeddings/plain" / split).logits
        assert (parts["head"].values.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert load_probabilities(finished / "runs/tiny/predictions/plain/test").fingerprint == before.fingerprint


def test_four_commands_with_views_and_soft_triple(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    settings = [*TINY, "loss.metric=soft_triple", "loss.metric.centres_per_class=2"]
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    trained = productrec("train", recipe, *settings)
    assert trained.code == 0, trained.err
    predicted = productrec("predict", "runs/tiny", "--views", "five_crops")
    assert predicted.code == 0, predicted.err
    for title in ("head alone", "nearest neighbour", "vote", "fused", "with TTA"):
        assert title in predicted.out
    submitted = productrec("submit", "runs/tiny", "--competition", "imaterialist2019", "--out", "out/x.csv")
    assert submitted.code == 0, submitted.err
    assert len(read_rows(place / "out" / "x.csv")) == len(read_rows(drawn / "sample_submission.csv"))
    lines = [json.loads(line) for line in (place / "runs/tiny/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert {"top_1_accuracy", "top_3_error", "recall@1", "map@r", "train_metric", "train_classification"} <= set(
        lines[0]
    )


def test_centres_are_kept_merged_and_measured(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    settings = [*TINY, "loss.metric=soft_triple", "train.epochs=1"]
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    assert productrec("train", recipe, *settings).code == 0
    early = productrec("centres", "runs/tiny")
    assert early.code == 4
    assert "run productrec predict runs/tiny first" in early.err
    assert productrec("predict", "runs/tiny").code == 0
    outcome = productrec("centres", "runs/tiny", "--distance", "2")
    assert outcome.code == 0, outcome.err
    assert "6 of 60 centres left, 1.00 a class" in outcome.err + outcome.out
    folder = place / "runs" / "tiny" / "prototypes"
    assert np.load(folder / "centres.npy").shape == (6, 1, 16)
    notes = json.loads((folder / "manifest.json").read_text())["notes"]
    assert 0 <= notes["top_1_accuracy"] <= 1
    assert notes["images"] == 18
    kept = productrec("centres", "runs/tiny", "--distance", "0")
    assert "60 of 60 centres left" in kept.err + kept.out


def test_a_preview_shows_each_image_and_its_epochs(finished, productrec):
    outcome = productrec("preview", "tiny.yaml", *TINY, "--out", "out/sheet.png", "--images", "3", "--epochs", "2")
    assert outcome.code == 0, outcome.err
    sheet = cv2.imread(str(finished / "out" / "sheet.png"))
    assert sheet.shape == (3 * 36, 3 * 36, 3)
    assert productrec("preview", "tiny.yaml", *TINY, "--out", "sheet.gif").code == 2
    banded = productrec("preview", "tiny.yaml", *TINY, "train.bands=2", "--out", "out/bands.png", "--images", "3")
    assert banded.code == 0, banded.err
    same = productrec("preview", "tiny.yaml", *TINY, "train.bands=0", "--out", "out/plain.png", "--images", "3")
    assert same.code == 0, same.err
    bands, plain = (cv2.imread(str(finished / "out" / f"{name}.png")) for name in ("bands", "plain"))
    changed = (bands != plain).any(axis=2)
    assert (bands[changed] == tuple(reversed(MEAN_COLOUR))).all()  # OpenCV reads blue first
    assert not changed[:, :36].any() and changed[:, 36:].mean() > 0.1  # the images as they are stand first


def test_an_archive_is_ingested_and_explained(place, drawn, productrec):
    archive = shutil.make_archive(str(place / "set"), "zip", drawn)
    told = productrec("ingest", archive, "--explain")
    assert told.code == 0, told.err
    assert "format fgvc_json" in told.err + told.out
    assert not (place / "data" / "set").exists()
    outcome = productrec("ingest", archive)
    assert outcome.code == 0, outcome.err
    assert "image table data/set written" in outcome.err
    assert "unchanged" in productrec("ingest", archive).err


def test_a_packed_table_without_copies_is_trained_on_alone(place, drawn, productrec):
    source = place / "source"
    shutil.copytree(drawn, source)
    document = json.loads((source / "train.json").read_text())
    first = document["images"][0]
    picture = next(path for path in source.rglob(f"{first['id']}*") if path.is_file())
    (picture.parent / f"copy{picture.suffix}").write_bytes(picture.read_bytes())
    document["images"].append(first | {"id": f"copy{Path(first['id']).suffix}"})
    (source / "train.json").write_text(json.dumps(document))
    arguments = ["--out", "data/tiny", "--pack", "--max-side", "40", "--dedup", "drop", "--folds", "2"]
    outcome = productrec("ingest", source, *arguments)
    assert outcome.code == 0, outcome.err
    assert "near-duplicates" in outcome.err
    images = pd.read_parquet(place / "data" / "tiny" / "images.parquet").set_index("image_id")
    copy = images.loc[document["images"][-1]["id"]]
    assert (copy["status"], copy["reason"]) == ("dropped", f"is a near-duplicate of {first['id']}")
    assert set(images.loc[images["split"] == "train", "fold"].dropna()) == {0, 1}
    assert "unchanged" in productrec("ingest", source, *arguments).err
    shutil.rmtree(place / "data" / "tiny.packed")  # lost: it is made again, not taken for granted
    assert "written" in productrec("ingest", source, *arguments).err
    shutil.rmtree(source)  # never needed again
    recipe = write_recipe(place, source)
    assert productrec("train", recipe, *TINY, "train.epochs=1").code == 0
    assert productrec("predict", "runs/tiny").code == 0


def test_a_loss_without_centres_has_none_to_merge(finished, productrec):
    outcome = productrec("centres", "runs/tiny")
    assert outcome.code == 4
    assert "its metric loss (multi_similarity) learns none" in outcome.err


def test_tta_alone_takes_its_default_and_plain_predictions_stay(finished, productrec):
    plain = load_probabilities(finished / "runs/tiny/predictions/plain/test").values.copy()
    assert productrec("predict", "runs/tiny", "--tta").code == 0
    views = load_probabilities(finished / "runs/tiny/predictions/zoom/test")
    np.testing.assert_array_equal(load_probabilities(finished / "runs/tiny/predictions/plain/test").values, plain)
    assert not np.array_equal(views.values, plain)
    submitted = productrec("submit", "runs/tiny", "--out", "submissions/views.csv")
    assert submitted.code == 0, submitted.err
    assert "zoom" in read_rows(finished / "submissions" / "ledger.csv")[-1]["source"]


def test_members_are_trained_and_ensembled(place, drawn, productrec):
    members = {"a": {"seed": 1}, "b": {"loss": {"metric": {"name": "soft_triple", "centres_per_class": 2}}}}
    recipe = write_recipe(place, drawn, members=members, predict={"member_weights": {"a": 3.0}})
    done = productrec("run", recipe, *TINY, "train.epochs=1", "--jobs", "1")
    assert done.code == 0, done.err
    assert "ensembled" in done.out
    parts = [load_probabilities(place / f"runs/tiny/{name}/predictions/plain/test").values for name in "ab"]
    blended = load_probabilities(place / "runs/tiny/predictions/plain/test").values
    expected = 0.75 * parts[0].astype(np.float32) + 0.25 * parts[1]
    np.testing.assert_allclose(blended, expected, atol=2e-3)
    (place / "submissions/tiny.csv").rename(place / "first.csv")
    assert productrec("submit", "runs/tiny").code == 0
    assert (place / "submissions/tiny.csv").read_bytes() == (place / "first.csv").read_bytes()
    (place / "runs/tiny").rename(place / "moved")
    predicted = productrec("predict", "moved", "--views", "flip")
    assert predicted.code == 0, predicted.err
    assert (place / "moved/predictions/flip/test").is_dir()
    (place / "moved").rename(place / "runs/tiny")
    again = productrec("ensemble", "runs/tiny/a", "runs/tiny/b", "--out", "runs/even")
    assert again.code == 0, again.err
    assert productrec("submit", "runs/even").code == 0
    assert (place / "submissions/even.csv").is_file()
    refused = productrec("ensemble", "runs/tiny/a", "runs/tiny/b", "--out", "runs/tiny/a")
    assert refused.code != 0
    assert "holds a trained run" in refused.err


def test_several_runs_are_ensembled_by_predict(finished, productrec):
    shutil.copytree("runs/tiny", "runs/twin")
    done = productrec("predict", "runs/tiny", "runs/twin", "--weights", "1,1")
    assert done.code == 0, done.err
    mean = load_probabilities(finished / "runs/tiny+twin/predictions/plain/test").values
    np.testing.assert_allclose(
        mean, load_probabilities(finished / "runs/tiny/predictions/plain/test").values, atol=1e-3
    )


def test_class_folders_and_a_plain_contract(place, drawn, productrec):
    train = json.loads((drawn / "train.json").read_text())["images"]
    test = json.loads((drawn / "test.json").read_text())["images"]
    for image in train:
        target = place / "shop" / "train" / f"sku {image['class']}" / image["id"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn / "images" / image["id"], target)
    (place / "shop" / "test").mkdir()
    for image in test:
        shutil.copy(drawn / "images" / image["id"], place / "shop" / "test" / image["id"])
    recipe = write_recipe(place, place / "shop", competition="plain")
    done = productrec("run", recipe, *TINY, "train.epochs=1", "data.validation_fraction=0.25")
    assert done.code == 0, done.err
    rows = read_rows(place / "submissions" / "tiny.csv")
    assert {row["id"] for row in rows} == {image["id"] for image in test}
    assert all(row["label"].startswith("sku ") for row in rows)


def test_the_demo_plays_to_the_end_and_goes_on_where_it_was(place, productrec):
    small = ["--skus", "4", "--train-images", "4", "--val-images", "2", "--test-images", "2"]
    settings = [
        "train.epochs=1",
        "train.side_px=32",
        "train.first_side_px=0",
        "train.batch_size=8",
        "train.workers=0",
        "model.embedding_dim=8",
    ]
    done = productrec("demo", "--out", "play", *small, *settings, "--jobs", "2")
    assert done.code == 0, done.err
    assert "pairs: epoch 1 " in done.err and "centres: epoch 1 " in done.err
    for title in ("head alone", "nearest neighbour", "vote", "fused", "with TTA", "ensembled"):
        assert title in done.out
    assert len(read_rows(place / "play" / "submission.csv")) == 8
    again = productrec("demo", "--out", "play", *small, *settings)
    assert again.code == 0
    assert again.out == done.out
    other = productrec("demo", "--out", "play", "--skus", "5")
    assert other.code == 4
    assert "other options" in other.err


@pytest.mark.parametrize("command", [["settings", "loss"], ["doctor"], ["--version"]])
def test_small_commands_answer(command, place, productrec):
    done = productrec(*command)
    assert done.code == 0, done.out + done.err
    assert done.out.strip()


def test_every_way_to_train_runs_and_leaves_curves(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    ways = {
        "soup": ["train.soup=2", "train.freeze_epochs=1", "train.epochs=3", "train.ema_decay=0.5"],
        "grown": ["train.first_side_px=16", "train.mix_up=0.5", "train.chunk_size=5", "train.patience=1"],
        "mixed": ["train.sampler=mixed", "train.schedule=flat", "train.optimizer=lamb"],
        "puzzled": ["train.jigsaw.parts=4", "train.side_px=64", "train.track=[tensorboard]", "train.cut_mix=0.3"],
        "sharded": ["train.shard_head=true", "train.negative_share=0.5", "train.ema_decay=0.5", "train.soup=2"],
        "rooted": ["train.sampler=square_root", "train.schedule=step", "train.optimizer=nadamw"],
    }
    for name, settings in ways.items():
        done = productrec("train", recipe, *TINY, f"name={name}", "data.table=data/tiny", *settings)
        assert done.code == 0, done.err
        assert (place / "runs" / name / "curves.png").read_bytes().startswith(b"\x89PNG")
    checkpoints = sorted(path.name for path in (place / "runs/soup/checkpoints").iterdir())
    assert checkpoints == ["before", "best", "last", "recent-000001", "recent-000002"]
    lines = [json.loads(line) for line in (place / "runs/soup/metrics.jsonl").read_text().splitlines()]
    assert {"raw_top_1_accuracy", "embedding_similarity", "active_pairs"} <= set(lines[-1])
    notes = json.loads((place / "runs/soup/manifest.json").read_text())["notes"]
    best = max(line["top_1_accuracy"] for line in lines)
    assert notes["figures"]["top_1_accuracy"] == max(best, notes["soup"]["top_1_accuracy"])
    assert productrec("predict", "runs/soup").code == 0
    assert productrec("predict", "runs/sharded").code == 0
    assert any((place / "runs/puzzled/tensorboard").iterdir())
    puzzled = [json.loads(line) for line in (place / "runs/puzzled/metrics.jsonl").read_text().splitlines()]
    assert {"train_jigsaw_adversarial", "train_jigsaw_alignment"} <= set(puzzled[-1])


def test_a_training_that_must_end_in_time_is_usable_and_goes_on(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    short = productrec("train", recipe, *TINY, "train.epochs=500", "--max-minutes", "0.03")
    assert short.code == 0, short.err
    assert "stopped after" in short.err
    assert productrec("predict", "runs/tiny").code == 0
    assert "--resume" in productrec("train", recipe, *TINY, "train.epochs=500").err
    again = productrec("train", recipe, *TINY, "train.epochs=500", "--resume", "--max-minutes", "0.03")
    assert again.code == 0, again.err
    assert "resuming" in again.err


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    whole = productrec("train", recipe, *TINY, "train.epochs=3", "name=whole", "data.table=data/tiny")
    assert whole.code == 0, whole.err
    assert productrec("train", recipe, *TINY, "train.epochs=3").code == 0
    run = place / "runs/tiny"
    (run / "manifest.json").unlink()  # as if it had been killed before its end
    state = run / "checkpoints/last/state.pt"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(bytes(data))
    resumed = productrec("train", recipe, *TINY, "train.epochs=3", "--resume")
    assert resumed.code == 0, resumed.err
    assert "Going on from the checkpoint before it" in resumed.err
    assert "at epoch 3, batch 1" in resumed.err
    weights = "checkpoints/last/weights.safetensors"
    assert (run / weights).read_bytes() == (place / "runs/whole" / weights).read_bytes()
    for name in ("last", "before"):
        shutil.rmtree(run / "checkpoints" / name / "state.pt", ignore_errors=True)
        (run / "checkpoints" / name / "state.pt").unlink()
    (run / "manifest.json").unlink()
    refused = productrec("train", recipe, *TINY, "train.epochs=3", "--resume")
    assert refused.code == 4
