"""Query: photos asked about from the command line and in a process that stays."""

import json
import shutil

import cv2
import numpy as np
import pytest

import productrec as library
from productrec.errors import DataError
from productrec.recognition.probabilities import load_probabilities
from tests.integration.test_photos import alone  # noqa: F401  a run without its table, and photos


def read_lines(out):
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def test_answers_are_those_of_predict_and_name_the_nearest_products(finished, drawn, productrec):
    known = load_probabilities(finished / "runs/tiny/predictions/plain/test")
    photos = [drawn / "images" / image_id for image_id in known.ids[:4]]
    done = productrec("query", "runs/tiny", *photos, "--json", "--nearest", "2")
    assert done.code == 0, done.err
    lines = read_lines(done.out)
    assert [line["photo"] for line in lines] == known.ids[:4]
    for line, row in zip(lines, known.values, strict=False):
        assert line["most_probable"]["class_id"] == known.keys[int(row.argmax())]
        assert line["confidence"] == pytest.approx(float(row.max()), abs=2e-4)
        near = line["nearest"]
        assert len({one["class_id"] for one in near}) == 2 and near[0]["similarity"] >= near[1]["similarity"]
    assert all(line["class"] == line["most_probable"]["class"] for line in lines)
    doubted = read_lines(productrec("query", "runs/tiny", *photos, "--json", "--nearest", "2", "--unknown").out)
    for line, other in zip(lines, doubted, strict=True):
        assert other == line | ({"class": "unknown", "class_id": None} if line["is_known"] is False else {})
    told = productrec("query", "runs/tiny", photos[0])
    assert told.code == 0 and lines[0]["most_probable"]["class"] in told.out and "as fitted" in told.err


def test_a_strip_shows_the_photo_beside_pictures_of_its_neighbours(finished, drawn, productrec):
    photo = sorted((drawn / "images").iterdir())[0]
    done = productrec("query", "runs/tiny", photo, "--strip", "strip.png", "--nearest", "3")
    assert done.code == 0, done.err
    strip = cv2.imread("strip.png")
    assert strip.shape[1] == 4 * 164
    tiles = [strip[18:178, start : start + 160].astype(float) for start in range(0, 4 * 164, 164)]
    assert all(tile.std() > 5 for tile in tiles)  # pictures, not grey
    again = productrec("query", "runs/tiny", photo, "--strip", "strip.png")
    assert again.code == 4 and "is there already" in again.err
    assert productrec("query", "runs/tiny", photo, "--strip", "strip.png", "--replace").code == 0


def test_without_the_training_images_neighbours_are_named_and_shown_grey(alone, productrec):  # noqa: F811
    done = productrec("query", "tiny", "photos", "--strip", "strip.png", "--json")
    assert done.code == 0, done.err
    assert all(line.get("nearest") for line in read_lines(done.out) if "reason" not in line)
    assert (cv2.imread("strip.png")[18:178, 164:324] == 200).all()


def test_a_box_asks_about_a_part_of_the_photo(finished, drawn, productrec):
    inner = cv2.imread(str(sorted((drawn / "images").iterdir())[0]))
    height, width = inner.shape[:2]
    scene = np.random.default_rng(0).integers(0, 256, (height + 60, width + 90, 3), dtype=np.uint8)
    scene[20 : 20 + height, 50 : 50 + width] = inner
    cv2.imwrite("inner.png", inner)
    cv2.imwrite("scene.png", scene)
    whole = read_lines(productrec("query", "runs/tiny", "inner.png", "--json").out)[0]
    part = read_lines(productrec("query", "runs/tiny", "scene.png", "--box", f"50,20,{width},{height}", "--json").out)[
        0
    ]
    assert part | {"photo": ""} == whole | {"photo": ""}
    for box in ("1,2,3", "0,0,0,5", "a,b,c,d"):
        refused = productrec("query", "runs/tiny", "scene.png", "--box", box)
        assert refused.code == 2 and "--box: must be x,y,width,height" in refused.err


def test_what_is_no_photo_is_told_and_the_others_are_answered(finished, drawn, productrec):
    photo = sorted((drawn / "images").iterdir())[0]
    shutil.copy(photo, "good.jpg")
    with open("bad.jpg", "wb") as file:
        file.write(b"no photo")
    done = productrec("query", "runs/tiny", "good.jpg", "bad.jpg", "--json")
    assert done.code == 0, done.err
    good, bad = read_lines(done.out)
    assert "confidence" in good and bad["photo"] == "bad.jpg" and bad["reason"]
    alone_bad = productrec("query", "runs/tiny", "bad.jpg")
    assert alone_bad.code == 3 and "not one of 1 photos can be read" in alone_bad.err
    missing = productrec("query", "runs/tiny", "nowhere.jpg")
    assert missing.code == 3 and "must be a folder of photos, or a photo" in missing.err


def test_a_loaded_run_answers_pictures_and_files_and_finds_what_was_added_since(finished, drawn, productrec):
    files = sorted((drawn / "images").iterdir())[:3]
    run = library.load("runs/tiny")
    pictures = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    by_file, by_picture = run.recognise(files), run.recognise(pictures)
    for one, other in zip(by_file, by_picture, strict=True):
        assert (one.key, one.nearest) == (other.key, other.nearest)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-6)
    assert run.recognise([]) == []
    with pytest.raises(DataError, match="must all be pictures, or all be files"):
        run.recognise([files[0], pictures[0]])
    with pytest.raises(DataError, match="must be \\(H, W, 3\\) uint8"):
        run.recognise([pictures[0][:, :, 0]])

    stripes = np.tile(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8).repeat(40, axis=1), (20, 1, 1))
    (finished / "new/striped thing").mkdir(parents=True)
    cv2.imwrite(str(finished / "new/striped thing/one.png"), stripes)
    assert run.recognise([stripes])[0].name != "striped thing"
    assert productrec("index", "grow", "runs/tiny", "new").code == 0
    found = run.recognise([cv2.cvtColor(stripes, cv2.COLOR_BGR2RGB)])[0]
    assert found.nearest[0].name == "striped thing" and found.nearest[0].similarity > 0.99
    assert found.name == "striped thing" and "striped thing" in run.class_names
