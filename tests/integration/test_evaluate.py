"""productrec evaluate: protocols, intervals, files, and a run whose head knows no class of the validation images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from productrec.data.table import load_table, save_table
from productrec.metrics.retrieval import compute_retrieval
from productrec.retrieval.embedding_set import load_embedding_set
from tests.integration.conftest import TINY


def test_a_run_is_evaluated_against_its_gallery_and_kept(finished, productrec):
    shutil.rmtree("runs/tiny/embeddings/plain/val")  # embedded again where it is missing
    done = productrec("evaluate", "runs/tiny", "--bootstrap", "50", "--json", "out/figures.json")
    assert done.code == 0, done.err
    for name in ("recall@1", "map@r", "gap", "nmi", "head_top_1_error", "head_macro_f1", "95 % interval"):
        assert name in done.out
    assert "the split asks the gallery splits" in done.out
    assert "18 queries, 0 of them without a positive, 48 gallery rows" in done.err
    kept = json.loads((finished / "out/figures.json").read_text())["tiny"]
    images = pd.read_parquet("data/tiny/images.parquet").set_index("image_id")["label"]
    val, train = (load_embedding_set(finished / f"runs/tiny/embeddings/plain/{split}") for split in ("val", "train"))
    found = compute_retrieval(
        val.embeddings, images[val.ids].to_numpy(np.int64), train.embeddings, images[train.ids].to_numpy(np.int64)
    ).measure()
    assert {name: kept["figures"][name] for name in ("recall@1", "map@r", "mrr", "gap")} == pytest.approx(
        {name: found[name] for name in ("recall@1", "map@r", "mrr", "gap")}
    )
    low, high = kept["intervals"]["recall@1"]
    assert 0 <= low <= kept["figures"]["recall@1"] <= high <= 1 and low < high
    artefact = finished / "runs/tiny/evaluations/plain/val"
    written = (artefact / "evaluation.json").stat().st_mtime_ns
    again = productrec("evaluate", "runs/tiny/embeddings/plain/val", "--bootstrap", "50")
    assert again.code == 0, again.err
    assert again.out == done.out
    assert (artefact / "evaluation.json").stat().st_mtime_ns == written  # unchanged, so not made again
    other = productrec(
        "evaluate", "runs/tiny", "--bootstrap", "0", "--protocol", "self", "--k", "1,3", "--no-clustering"
    )
    assert "every image asks all others" in other.out and "recall@3" in other.out and "nmi" not in other.out
    assert "18 queries, 0 of them without a positive, 18 gallery rows" in other.err


def test_what_cannot_be_evaluated_is_said(finished, productrec):
    unlabelled = productrec("evaluate", "runs/tiny", "--split", "test", "--protocol", "self")
    assert unlabelled.code == 3
    assert "no test image has a label" in unlabelled.err
    assert productrec("evaluate", "runs/tiny", "--protocol", "all").code == 2
    shutil.copytree("runs/tiny/embeddings/plain/val", "alone/plain/val")
    lonely = productrec("evaluate", "alone/plain/val")
    assert lonely.code == 4
    assert "must lie in its run folder" in lonely.err


def change_table(change):
    """The drawn table with other rows."""
    table = load_table(Path("data/tiny"))
    shutil.rmtree("data/tiny")
    save_table(
        Path("data/tiny"),
        change(table.images).reset_index(drop=True),
        table.classes,
        root=table.root,
        sample=None,
        inputs={},
        settings={},
    )


def test_a_split_without_images_is_said(finished, productrec):
    change_table(lambda images: images[images["split"] != "test"])
    empty = productrec("evaluate", "runs/tiny", "--split", "test")
    assert empty.code == 3, empty.err
    assert "the table has no readable test images" in empty.err and "Name another split" in empty.err
    assert productrec("evaluate", "runs/tiny", "--split", "tset").code == 2


def test_a_split_is_not_in_its_own_gallery(finished, productrec):
    options = ("--protocol", "gallery", "--split", "train", "--bootstrap", "0", "--no-clustering")
    both = productrec("evaluate", "runs/tiny", "predict.gallery_splits=[train,val]", *options)
    assert both.code == 0, both.err
    assert "48 queries, 0 of them without a positive, 18 gallery rows" in both.err
    manifest = json.loads((finished / "runs/tiny/evaluations/plain/train/manifest.json").read_text())
    assert set(manifest["inputs"]) == {"table", "train", "gallery val"}
    alone = productrec("evaluate", "runs/tiny", *options)
    assert alone.code == 3, alone.err
    assert "the gallery of train must be another split" in alone.err


def test_embeddings_of_another_table_are_refused(finished, productrec):
    def move(images):
        val = images["split"] == "val"
        return images.assign(label=images["label"].where(~val, (images["label"] + 1) % 6))

    change_table(move)
    stale = productrec("evaluate", "runs/tiny/embeddings/plain/val", "--bootstrap", "0")
    assert stale.code == 4, stale.err
    assert "changed since these images were embedded" in stale.err and "run `productrec evaluate " in stale.err
    assert productrec("evaluate", "runs/tiny", "--bootstrap", "0").code == 0
    assert productrec("evaluate", "runs/tiny/embeddings/plain/val", "--bootstrap", "0").code == 0


def test_arrays_are_evaluated(place, productrec):
    rows = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    labels = np.repeat(np.arange(4), 3)
    labels[0] = 9  # alone in its class, and as sure of its neighbour as the others
    np.savez("some.npz", embeddings=rows, labels=labels)
    done = productrec("evaluate", "some.npz", "--bootstrap", "20", "--json", "some.json")
    assert done.code == 0, done.err
    assert "12 queries, 1 of them without a positive, 12 gallery rows" in done.err
    figures = json.loads((place / "some.json").read_text())["some.npz"]["figures"]
    assert figures["recall@1"] == pytest.approx(9 / 11) and figures["gap"] < 9 / 11  # two find it instead
    is_query = np.arange(12) % 3 == 0
    np.savez("roles.npz", embeddings=rows, labels=labels, is_query=is_query)
    roles = productrec("evaluate", "roles.npz", "--bootstrap", "0")
    assert "4 queries, 1 of them without a positive, 8 gallery rows" in roles.err
    np.save("rows.npy", rows)
    bare = productrec("evaluate", "rows.npy")
    assert bare.code == 3
    assert "--labels" in bare.err
    np.save("labels.npy", labels)
    assert productrec("evaluate", "rows.npy", "--labels", "labels.npy", "--bootstrap", "0").code == 0


def test_flags_of_queries_may_be_integers_and_must_fit(place, productrec):
    arrays = {"embeddings": np.repeat(np.eye(4, dtype=np.float32), 3, axis=0), "labels": np.repeat(np.arange(4), 3)}
    is_query = (np.arange(12) % 3 == 0).astype(np.int64)
    np.savez("integers.npz", **arrays, is_query=is_query)
    done = productrec("evaluate", "integers.npz", "--bootstrap", "0")
    assert "4 queries, 0 of them without a positive, 8 gallery rows" in done.err
    for wrong in (is_query[:11], is_query * 2):
        np.savez("wrong.npz", **arrays, is_query=wrong)
        refused = productrec("evaluate", "wrong.npz")
        assert refused.code == 3, refused.err
        assert "is_query must be 12 values" in refused.err or "is_query of booleans" in refused.err


def test_broken_array_files_are_refused(place, productrec):
    np.savez("whole.npz", embeddings=np.eye(4, dtype=np.float32), labels=np.arange(4))
    cut = (place / "whole.npz").read_bytes()
    (place / "cut.npz").write_bytes(cut[: len(cut) // 2])
    np.savez("pickled.npz", embeddings=np.eye(4, dtype=np.float32), labels=np.array(list("abcd"), dtype=object))
    (place / "empty.npz").write_bytes(b"")
    for name in ("cut.npz", "pickled.npz", "empty.npz", "absent.npz"):
        broken = productrec("evaluate", name)
        assert broken.code == 3, broken.err
        assert f"{name}: cannot be read as NumPy arrays" in broken.err


def test_options_without_effect_are_refused(finished, productrec):
    np.savez("some.npz", embeddings=np.repeat(np.eye(2, dtype=np.float32), 2, axis=0), labels=np.array([0, 0, 1, 1]))
    embedded = "runs/tiny/embeddings/plain/val"
    for target, *idle in (
        ("some.npz", "device=cpu"),
        ("some.npz", "--split", "val"),
        ("some.npz", "--views", "plain"),
        ("some.npz", "--protocol", "self"),
        (embedded, "--split", "val"),
        (embedded, "--views", "plain"),
        (embedded, "--labels", "labels.npy"),
        ("runs/tiny", "--labels", "labels.npy"),
    ):
        refused = productrec("evaluate", target, *idle, "--bootstrap", "0")
        assert refused.code == 2, (target, idle, refused.err)
        assert f"{idle[0]} would have no effect" in refused.err


def write_products(folder, drawn):
    """The drawn images as Stanford Online Products lists them: four classes to train on, two others to test on."""
    document = json.loads((drawn / "train.json").read_text())["images"]
    lists = {"train": [], "test": []}
    (folder / "shelf_final").mkdir(parents=True)
    for number, image in enumerate(document, start=1):
        name = f"shelf_final/{number}.jpg"
        (folder / name).write_bytes((drawn / "images" / image["id"]).read_bytes())
        lists["train" if image["class"] < 4 else "test"].append(f"{number} {image['class'] + 1} 1 {name}")
    for split, lines in lists.items():
        text = "\n".join(["image_id class_id super_class_id path", *lines])
        (folder / f"Ebay_{split}.txt").write_text(text + "\n")


def test_classes_the_head_does_not_know_are_judged_by_recall(place, drawn, productrec):
    write_products(place / "shop", drawn)
    recipe = {"name": "sop", "competition": "plain", "data": {"source": str(place / "shop"), "table": "data/sop"}}
    (place / "sop.yaml").write_text(json.dumps(recipe))
    held = ("--hold-out", "classes", "--validation-fraction", "0.5")
    assert productrec("ingest", "shop", "--out", "data/sop", *held).code == 0
    trained = productrec("train", "sop.yaml", *TINY)
    assert trained.code == 0, trained.err
    assert "recall@1 decides" in trained.err
    assert "best checkpoint: recall@1" in trained.err
    assert "top_1_accuracy" not in (place / "runs/sop/metrics.jsonl").read_text()
    predicted = productrec("predict", "runs/sop")
    assert predicted.code == 0, predicted.err
    assert "knows no class of the validation images" in predicted.err
    assert "recall@1" in predicted.out and "every image asks all others" in predicted.out
    assert "head alone" not in predicted.out
    assert not (place / "runs/sop/evaluations").exists()
    done = productrec("evaluate", "runs/sop", "--bootstrap", "20")
    assert done.code == 0, done.err
    kept = (place / "runs/sop/evaluations/plain/val/evaluation.json").read_bytes()
    assert "every image asks all others" in done.out and "head_" not in done.out and "nearest_macro_f1" in done.out
    assert productrec("predict", "runs/sop").code == 0
    assert (place / "runs/sop/evaluations/plain/val/evaluation.json").read_bytes() == kept
    # One validation image a class, so that nobody has a positive; the others become test images with labels.
    table = load_table(Path("data/sop"))
    images, val = table.images, table.images["split"] == "val"
    images.loc[val & images["label"].duplicated(), "split"] = "test"
    save_table(Path("data/lone"), images, table.classes, root=table.root, sample=None, inputs={}, settings={})
    lone = productrec("predict", "runs/sop", "data.table=data/lone")
    assert lone.code == 0, lone.err
    assert "no retrieval figures of its validation images" in lone.err
    assert "test, labels of the source" not in lone.out
    assert (place / "runs/sop/predictions/plain/test").exists()
