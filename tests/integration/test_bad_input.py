"""Each thing a user can get wrong: one clear line, its exit code, and nothing lost."""

import errno
import json
import shutil

import pytest

from productrec.recognition.probabilities import load_probabilities
from productrec.retrieval.embedding_set import load_embedding_set
from tests.integration.conftest import TINY, write_recipe


def check_line(outcome, code, *words):
    """One line that starts with ``error:``, holds the words, and is no traceback."""
    lines = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert outcome.code == code, outcome.err
    assert len(lines) == 1, outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture
def source(drawn, tmp_path):
    """A copy of the competition to spoil."""
    folder = tmp_path / "source"
    shutil.copytree(drawn, folder)
    return folder


def change(path, edit):
    document = json.loads(path.read_text())
    edit(document["images"])
    path.write_text(json.dumps(document))


def test_unknown_recipe_key(place, drawn, productrec):
    check_line(productrec("train", write_recipe(place, drawn), "loss.metrik=none"), 2, "loss.metrik", "loss.metric")


def test_wrong_type(place, drawn, productrec):
    check_line(productrec("train", write_recipe(place, drawn), "train.epochs=many"), 2, "train.epochs", "many")


def test_missing_files(place, drawn, productrec):
    check_line(productrec("train", "none.yaml"), 2, "none.yaml")
    check_line(productrec("ingest", "nowhere"), 3, "nowhere")
    check_line(productrec("train", write_recipe(place, drawn), *TINY), 4, "image table")
    check_line(productrec("predict", "runs/none"), 2, "none")
    check_line(productrec("submit", place, "--competition", "imaterialist2019"), 4, "no predictions")


def test_image_folder_without_images(place, source, productrec):
    shutil.rmtree(source / "images")
    (source / "images").mkdir()
    check_line(productrec("ingest", source, "--out", "table"), 3, "none of the", "--images")
    assert not (place / "table").exists()


def test_class_folders_without_images(place, productrec):
    (place / "shop" / "apples").mkdir(parents=True)
    check_line(productrec("ingest", "shop", "--out", "table"), 3, "no image")


def test_ids_without_files_stay_and_are_counted(place, source, productrec):
    gone = json.loads((source / "test.json").read_text())["images"][0]["id"]
    (source / "images" / gone).unlink()
    done = productrec("ingest", source, "--out", "table")
    assert done.code == 0
    assert "1 (" in done.err
    assert gone in done.err
    assert "missing" in done.err


def test_a_label_only_in_validation(place, source, productrec):
    change(
        source / "train.json", lambda images: images.__setitem__(slice(None), [i for i in images if i["class"] != 2])
    )
    done = productrec("ingest", source, "--out", "data/tiny")
    assert done.code == 0
    assert "cannot be predicted" in done.err
    run = productrec("run", write_recipe(place, source), *TINY, "train.epochs=1")
    assert run.code == 0, run.err
    assert load_probabilities(place / "runs/tiny/predictions/plain/test").class_ids == [0, 1, 3, 4, 5]


def test_a_class_with_one_image(place, source, productrec):
    def keep_one(images):
        first = next(image for image in images if image["class"] == 4)
        images[:] = [image for image in images if image["class"] != 4 or image is first]

    change(source / "train.json", keep_one)
    done = productrec("run", write_recipe(place, source), *TINY, "train.epochs=1")
    assert done.code == 0, done.err
    assert "single training image" in done.err


@pytest.mark.parametrize("split", ["train", "test"])
def test_duplicate_ids(place, source, productrec, split):
    change(source / f"{split}.json", lambda images: images.append(images[0]))
    check_line(productrec("ingest", source, "--out", "table"), 3, "unique", "1 (")
    assert not (place / "table").exists()


def test_broken_test_images_keep_their_rows(place, source, productrec):
    ids = [image["id"] for image in json.loads((source / "test.json").read_text())["images"]]
    path = source / "images" / ids[0]
    path.write_bytes(path.read_bytes()[:200])
    (source / "images" / ids[1]).unlink()
    done = productrec("run", write_recipe(place, source), *TINY, "train.epochs=1")
    assert done.code == 0, done.err
    assert "class prior" in done.err
    probabilities = load_probabilities(place / "runs/tiny/predictions/plain/test")
    assert probabilities.ids == ids
    assert sorted(probabilities.fallback) == sorted(ids[:2])
    assert (probabilities.values[0] == probabilities.values[1]).all()
    assert (place / "submissions/tiny.csv").read_text().count("\n") == len(ids) + 1


def test_an_image_that_breaks_after_ingest_is_told_and_falls_back(place, source, productrec):
    recipe = write_recipe(place, source)
    assert productrec("ingest", source, "--out", "data/tiny").code == 0
    assert productrec("train", recipe, *TINY, "train.epochs=1").code == 0
    broken = json.loads((source / "test.json").read_text())["images"][2]["id"]
    (source / "images" / broken).write_bytes(b"no image")
    done = productrec("predict", "runs/tiny")
    assert done.code == 0, done.err
    assert broken in done.err
    assert load_probabilities(place / "runs/tiny/predictions/plain/test").fallback == [broken]


def test_a_training_image_that_breaks_after_ingest_is_named(place, source, productrec):
    recipe = write_recipe(place, source)
    assert productrec("ingest", source, "--out", "data/tiny").code == 0
    for image in json.loads((source / "train.json").read_text())["images"]:
        (source / "images" / image["id"]).write_bytes(b"no image")
    check_line(productrec("train", recipe, *TINY), 3, "16 images of a batch", "Ingest again", "data.images")


def test_runs_of_other_classes_are_not_combined(finished, drawn, source, productrec):
    change(
        source / "train.json", lambda images: images.__setitem__(slice(None), [i for i in images if i["class"] != 2])
    )
    done = productrec("run", write_recipe(finished, source, name="other"), *TINY, "train.epochs=1")
    assert done.code == 0, done.err
    check_line(productrec("predict", "runs/tiny", "runs/other"), 4, "class order", "other")
    check_line(productrec("ensemble", "runs/tiny", "runs/other", "--out", "runs/both"), 4, "class order")
    assert not (finished / "runs/both").exists()


def test_a_checkpoint_of_other_classes_than_the_table(finished, source, productrec):
    classes = sorted({image["class"] for image in json.loads((source / "train.json").read_text())["images"]})
    for split in ("train", "val"):
        change(
            source / f"{split}.json", lambda images: [image.update({"class": image["class"] + 100}) for image in images]
        )
    (source / "product_tree.json").unlink()
    assert productrec("ingest", source, "--out", "data/renumbered").code == 0
    outcome = productrec("predict", "runs/tiny", "data.table=data/renumbered")
    check_line(outcome, 4, "classes must be in the image table", str(classes[0]))


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda text: text.replace("id,predicted", "id,label"), "header"),
        (lambda text: "\n".join(text.splitlines()[:-1]) + "\n", "1 ("),
        (lambda text: text + "unheard.jpg,0 1 2\n", "unheard.jpg"),
        (lambda text: "id,predicted\n", "sample"),
    ],
)
def test_a_sample_submission_that_does_not_match(finished, drawn, productrec, spoil, word):
    older = (finished / "submissions/tiny.csv").read_bytes()
    (finished / "sample.csv").write_text(spoil((drawn / "sample_submission.csv").read_text()))
    outcome = productrec("submit", "runs/tiny", "--sample", "sample.csv", "--out", "submissions/tiny.csv")
    check_line(outcome, 5, word)
    assert (finished / "submissions/tiny.csv").read_bytes() == older


def test_no_space_left_keeps_the_earlier_artefact(finished, source, productrec, monkeypatch):
    earlier = (finished / "data/tiny/manifest.json").read_bytes()
    change(source / "train.json", lambda images: images.pop())

    def refuse(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("productrec.artifacts._flush", refuse)
    check_line(productrec("ingest", source, "--out", "data/tiny", "--replace"), 6, "no space left")
    check_line(productrec("submit", "runs/tiny", "--out", "submissions/new.csv"), 6, "no space left")
    monkeypatch.undo()
    assert (finished / "data/tiny/manifest.json").read_bytes() == earlier
    assert not (finished / "submissions/new.csv").exists()
    assert not list((finished / "data").glob(".*"))


def test_an_output_folder_that_holds_another_run(finished, productrec):
    before = (finished / "runs/tiny/manifest.json").read_bytes()
    check_line(productrec("train", finished / "tiny.yaml", *TINY, "seed=7"), 4, "another run", "seed")
    assert (finished / "runs/tiny/manifest.json").read_bytes() == before


def test_an_output_folder_of_another_source(finished, source, productrec):
    before = (finished / "data/tiny/manifest.json").read_bytes()
    change(source / "train.json", lambda images: images.pop())
    check_line(productrec("ingest", source, "--out", "data/tiny"), 4, "another source", "--replace")
    assert (finished / "data/tiny/manifest.json").read_bytes() == before
    assert productrec("ingest", source, "--out", "data/tiny", "--replace").code == 0


def test_folders_with_other_files_are_not_touched(finished, drawn, productrec):
    (finished / "thesis").mkdir()
    (finished / "thesis" / "chapter.txt").write_text("precious")
    check_line(productrec("ingest", drawn, "--out", "thesis"), 4, "thesis")
    check_line(
        productrec("train", finished / "tiny.yaml", *TINY, "runs=.", "name=thesis", "data.table=data/tiny"), 4, "no run"
    )
    assert (finished / "thesis" / "chapter.txt").read_text() == "precious"


def test_training_on_val_is_refused_unless_forced(finished, productrec):
    settings = [*TINY, "train.epochs=1", "train.splits=[train, val]", "name=forbidden", "data.table=data/tiny"]
    check_line(productrec("train", finished / "tiny.yaml", *settings), 3, "val")
    done = productrec("train", finished / "tiny.yaml", *settings, "train.force_splits=true")
    assert done.code == 0, done.err


def test_a_gallery_that_holds_its_own_queries_is_refused(finished, productrec):
    check_line(productrec("predict", "runs/tiny", "predict.gallery_splits=[train, val]"), 4, "gallery")


def test_a_damaged_embedding_set_is_refused_not_used(finished, productrec):
    path = finished / "runs/tiny/embeddings/plain/test/embeddings.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(bytes(data))
    check_line(productrec("predict", "runs/tiny", "predict.neighbours=7"), 4, "damaged")
    shutil.rmtree(path.parent)
    assert productrec("predict", "runs/tiny", "predict.neighbours=7").code == 0
    assert load_embedding_set(path.parent).ids


def test_weights_and_presets_that_do_not_exist(finished, productrec):
    check_line(productrec("predict", "runs/tiny", "--views", "upside_down"), 2, "upside_down", "five_crops")
    assert productrec("predict", "runs/tiny", "--weights", "a,b").code == 2
    check_line(productrec("submit", "runs/tiny", "--competition", "imaterialist2091"), 5, "imaterialist2019")


def test_images_that_moved_are_one_clear_error_with_its_mend(place, source, productrec):
    recipe = write_recipe(place, source)
    assert productrec("ingest", source, "--out", "data/tiny").code == 0
    assert productrec("train", recipe, *TINY, "train.epochs=1").code == 0
    shutil.move(source, place / "elsewhere")
    check_line(productrec("predict", "runs/tiny"), 3, "not one of", "data.images")
    check_line(productrec("train", recipe, *TINY, "name=again", "train.epochs=1"), 3, "not one of", "data.images")
    check_line(productrec("audit", "data/tiny"), 3, "not one of", "data.images")
    assert productrec("audit", "data/tiny", f"data.images={place / 'elsewhere'}").code == 0
    done = productrec("predict", "runs/tiny", f"data.images={place / 'elsewhere'}")
    assert done.code == 0, done.err
