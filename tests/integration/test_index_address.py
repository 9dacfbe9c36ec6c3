"""A run whose catalogue lies in a Milvus server: copied there, asked, grown, and copied back, as a user types it."""

import json
import shutil

import pytest

from productrec.demo.drawn.competition import draw_competition
from productrec.retrieval.catalogue import Catalogue
from tests.integration.test_photos import read_rows

on_server = pytest.mark.xdist_group("milvus")


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    """Photos of three products that the run never saw: one each in ``new/PRODUCT``, others in ``asked``."""
    folder = tmp_path_factory.mktemp("later")
    draw_competition(folder / "drawn", skus=3, train_images=3, val_images=1, test_images=1, max_side_px=48, seed=77)
    for image in json.loads((folder / "drawn/train.json").read_text())["images"]:
        new = folder / "new" / f"product {image['class']}"
        target = folder / "asked" if new.exists() else new
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "drawn/images" / image["id"], target)
    return folder


def read_answers(done):
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]


@on_server
def test_a_copied_index_answers_grows_and_comes_back(finished, later, drawn, productrec, milvus):
    photos = sorted((drawn / "images").iterdir())[:4]
    known = read_answers(productrec("query", "runs/tiny", *photos, "--json"))
    done = productrec("index", "copy", "runs/tiny", milvus)
    assert done.code == 0, done.err
    address = f"{milvus}/productrec_tiny_plain"
    assert f"copied to {address}: " in done.err and "the same on both sides" in done.err
    shutil.rmtree("runs/tiny/neighbours")
    shutil.move("runs/tiny/index", "index")  # the run answers without its files
    asking = ("query", "runs/tiny", f"predict.index_address={milvus}", "--json")
    done = productrec(*asking, *photos)
    assert f"the catalogue is at {address}" in done.err
    for one, other in zip(read_answers(done), known, strict=True):
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)
        assert one["class"] == other["class"] and one["nearest"][0]["class_id"] == other["nearest"][0]["class_id"]
    shutil.copytree(later / "new", "new")
    named = f"predict.index_address={address}"
    done = productrec("index", "grow", "runs/tiny", "new", named)
    assert done.code == 0 and "3 photos more, 3 new classes" in done.err, done.err
    done = productrec("index", "grow", "runs/tiny", "new", named)
    assert done.code == 0 and "0 photos more, 0 new classes; 3 were there already" in done.err
    done = productrec("predict", "runs/tiny", "--images", "new", "--out", "own.csv", named)
    assert done.code == 0 and "3 images more" in done.err, done.err
    for name, row in read_rows(finished / "own.csv").items():
        assert name.split("/")[0] in (row["class"], row["next_class"]), row
    done = productrec("index", "remove", address, "1", "product 0")
    assert done.code == 0 and "of 2 classes removed" in done.err
    done = productrec("index", "remove", address, "product 0")
    assert done.code == 3 and "1 (product 0) are not" in done.err
    done = productrec("index", "show", address)
    assert done.code == 0 and "flat" in done.out and "milvus_lite" in done.out
    asked = sorted((later / "asked").iterdir())
    answers = read_answers(productrec(*asking, *asked))
    assert not {"1", "product 0"} & {answer["class_id"] for answer in answers}
    shutil.move("index", "runs/tiny/index")
    done = productrec("index", "copy", address, "runs/tiny")
    assert done.code == 0 and "the same on both sides" in done.err, done.err
    here = read_answers(productrec("query", "runs/tiny", "--json", *asked))
    for one, other in zip(here, answers, strict=True):
        # Neighbours as near as rounding tells may change places.
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-3) and one["class"] == other["class"]
    assert Catalogue(finished / "runs/tiny/index/plain").removed == {"1", "product 0"}
    done = productrec("index", "copy", address, "elsewhere")
    assert done.code == 0, done.err
    assert len(Catalogue(finished / "elsewhere")) == len(Catalogue(finished / "runs/tiny/index/plain"))


@on_server
def test_an_index_of_another_network_or_time_is_refused_by_name(finished, drawn, productrec, milvus):
    photo = next((drawn / "images").iterdir())
    named = f"predict.index_address={milvus}/other"
    done = productrec("query", "runs/tiny", photo, named)
    assert done.code == 4 and "no catalogue of this name" in done.err
    assert productrec("index", "copy", "runs/tiny", f"{milvus}/other", "--kind", "hnsw").code == 0
    for path, key, words in (
        ("index/plain", "weights_digest", "weights must be those of runs/tiny"),
        ("classifier/plain", None, "the index that the classifier was fitted with"),
    ):
        manifest = finished / "runs/tiny" / path / "manifest.json"
        whole = manifest.read_text()
        told = json.loads(whole)
        if key is not None:
            told["notes"][key] = "retrained"
            manifest.write_text(json.dumps(told))
            assert productrec("index", "copy", "runs/tiny", f"{milvus}/other").code == 0
        else:
            told["inputs"]["index"] = "of before"
            manifest.write_text(json.dumps(told))
        done = productrec("query", "runs/tiny", photo, named)
        assert done.code == 4 and words in done.err, done.err
        manifest.write_text(whole)
        assert productrec("index", "copy", "runs/tiny", f"{milvus}/other").code == 0
    assert productrec("query", "runs/tiny", photo, named).code == 0


def test_what_names_no_copy_is_refused(finished, productrec):
    for source, target, code, words in (
        ("runs/tiny", "elsewhere", 2, "one of SOURCE and TARGET must be http://HOST:PORT/NAME"),
        ("http://127.0.0.1:1/a", "http://127.0.0.1:1/b", 2, "one of SOURCE and TARGET"),
        ("http://127.0.0.1:1", "elsewhere", 2, "must end in the name of an index"),
        ("runs/tiny", "http://127.0.0.1:1/a-b", 2, "NAME of letters, digits and _"),
        ("nowhere", "http://127.0.0.1:1/a", 4, "has no index yet"),
    ):
        done = productrec("index", "copy", source, target)
        assert done.code == code and words in done.err, done.err
    done = productrec("index", "show", "http://127.0.0.1:1")
    assert done.code == 2 and "must end in the name of an index" in done.err


def test_a_server_that_is_not_there_is_told_in_one_line(finished, drawn, productrec):
    pytest.importorskip("pymilvus")
    named = "predict.index_address=http://127.0.0.1:1"
    for arguments in (
        ("index", "copy", "runs/tiny", "http://127.0.0.1:1/a"),
        ("index", "show", "http://127.0.0.1:1/a"),
        ("query", "runs/tiny", next((drawn / "images").iterdir()), named),
    ):
        done = productrec(*arguments)
        assert done.code == 6 and "no Milvus server answers here" in done.err, done.err
        assert sum(line.startswith("error: ") for line in done.err.splitlines()) == 1
