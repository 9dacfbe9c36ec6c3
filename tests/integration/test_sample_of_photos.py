"""`predict --images --sample`: the submission of a folder of images, with the sample's ids in its order."""

import csv
import json
import shutil

import numpy as np
import pytest

from productrec.recognition.probabilities import load_probabilities
from productrec.retrieval.catalogue import Catalogue


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write_sample(path, ids, header=("id", "predicted")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([one, "0 1 2"] for one in ids)])
    return path


@pytest.fixture
def ids(finished, drawn):
    """The test ids, whose images lie in ``images/monday``."""
    listed = [image["id"] for image in json.loads((drawn / "test.json").read_text())["images"]]
    (finished / "images/monday").mkdir(parents=True)
    for image_id in listed:
        shutil.copy(drawn / "images" / image_id, finished / "images/monday" / image_id)
    return listed


def ask(productrec, *more, out="new.csv", run="runs/tiny"):
    return productrec("predict", run, "--images", "images", "--sample", "sample.csv", "--out", out, *more)


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name,
        lambda name: name.removesuffix(".jpg"),
        lambda name: f"monday/{name}",
        lambda name: f"monday/{name.removesuffix('.jpg')}",
    ],
    ids=["name", "name without its ending", "path", "path without its ending"],
)
def test_ids_are_the_sample_s_in_its_order(finished, ids, productrec, change):
    own = load_probabilities(finished / "runs/tiny/predictions/plain/test")
    best = dict(zip(own.ids, np.argmax(own.values, axis=1).tolist(), strict=True))
    wanted = sorted(ids)[::-1]
    write_sample(finished / "sample.csv", [change(name) for name in wanted])
    done = ask(productrec)
    assert done.code == 0, done.err
    rows = read_csv(finished / "new.csv")
    assert rows[0] == ["id", "predicted"] and [row[0] for row in rows[1:]] == [change(name) for name in wanted]
    assert [row[1].split()[0] for row in rows[1:]] == [str(own.class_ids[best[name]]) for name in wanted]


def test_an_image_that_cannot_be_read_gets_the_share_of_each_class(finished, ids, productrec):
    catalogue = Catalogue(finished / "runs/tiny/index/plain")
    shares = np.bincount(catalogue.get_classes(catalogue.list_alive()), minlength=6)
    (finished / "images/monday" / ids[0]).write_bytes(b"no picture")
    (finished / "images/notes.txt").write_text("not listed")
    write_sample(finished / "sample.csv", ids)
    done = ask(productrec)
    assert done.code == 0, done.err
    assert f"1 ({ids[0]}:" in done.err and "the share of each class in the gallery" in done.err
    assert "1 files are left out" in done.err
    likeliest = sorted(catalogue.keys, key=lambda key: (-shares[catalogue.keys.index(key)], int(key)))[:3]
    assert read_csv(finished / "new.csv")[1] == [ids[0], " ".join(likeliest)]


def test_ids_without_an_image_are_named_or_filled(finished, ids, productrec):
    write_sample(finished / "sample.csv", [*ids, "gone.jpg", "lost.jpg"])
    done = ask(productrec)
    assert done.code == 3 and "2 (gone.jpg, lost.jpg)" in done.err and "--fill-missing" in done.err
    assert not (finished / "new.csv").exists()
    done = ask(productrec, "--fill-missing")
    assert done.code == 0 and "ids without an image get" in done.err
    assert [row[0] for row in read_csv(finished / "new.csv")[1:]] == [*ids, "gone.jpg", "lost.jpg"]
    again = ask(productrec, "--fill-missing")
    assert again.code == 4 and "--replace" in again.err
    assert ask(productrec, "--fill-missing", "--replace").code == 0
    write_sample(finished / "sample.csv", ["gone.jpg"])
    done = ask(productrec, "--fill-missing", out="none.csv")
    assert done.code == 3 and "1 (gone.jpg)" in done.err


def test_what_does_not_fit_is_refused(finished, ids, productrec):
    write_sample(finished / "sample.csv", ids, header=("image", "hotel_id"))
    done = ask(productrec)
    assert done.code == 5 and "columns must be id,predicted" in done.err and "--competition" in done.err
    done = ask(productrec, "--competition", "plain")  # which takes its form from the sample
    assert done.code == 0, done.err
    assert read_csv(finished / "new.csv")[0] == ["image", "hotel_id"]
    (finished / "images/tuesday").mkdir()
    shutil.copy(finished / "images/monday" / ids[0], finished / "images/tuesday" / ids[0])
    write_sample(finished / "sample.csv", ids)
    done = ask(productrec, out="two.csv")
    assert done.code == 3 and f"got {ids[0]} for 2 (monday/{ids[0]}, tuesday/{ids[0]})" in done.err


def test_options_go_with_what_they_belong_to(finished, productrec):
    for options in (["--sample", "sample.csv"], ["--replace"]):
        done = productrec("predict", "runs/tiny", *options)
        assert done.code == 2 and "goes with --images" in done.err
    for options in (["--fill-missing"], ["--competition", "plain"]):
        done = productrec("predict", "runs/tiny", "--images", "images", "--out", "new.csv", *options)
        assert done.code == 2 and "goes with --sample" in done.err
