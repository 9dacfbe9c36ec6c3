"""An exported file is asked as its run is: from the command line, in a process, over HTTP, where there is no torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import productrec as library
from productrec.errors import ArtifactError, RecipeError
from productrec.exported import ExportedModel
from tests.integration.test_bad_input import check_line
from tests.integration.test_export import FILE, list_photos
from tests.integration.test_query import read_lines

pytest.importorskip("onnx")
pytestmark = pytest.mark.xdist_group("export")
BLOCK = "import sys\nfor name in ('torch', 'timm', 'safetensors', 'albumentations'):\n    sys.modules[name] = None\n"


def check_same(answer, other):
    assert (answer.key, answer.is_known, answer.reason) == (other.key, other.is_known, other.reason)
    assert answer.confidence == pytest.approx(other.confidence, abs=1e-3)
    assert [near.image_id for near in answer.nearest] == [near.image_id for near in other.nearest]
    for near, far in zip(answer.nearest, other.nearest, strict=True):
        assert near.similarity == pytest.approx(far.similarity, abs=1e-4)


def rewrite_notes(path, **changes):
    import onnx

    model = onnx.load(path)
    for note in model.metadata_props:
        note.value = changes.get(note.key, note.value)
    onnx.save(model, path)


@pytest.mark.parametrize("views", [None, "plain"])
def test_it_answers_as_its_run_with_index_and_classifier(copy, drawn, views):
    photos = list_photos(drawn)[:6]
    run, file = library.load("runs/tiny", views=views), library.load(FILE, views=views)
    assert file.way == run.way and "as fitted" in file.way and file.weights_digest == run.weights_digest
    assert file.class_names == run.class_names and file.folder == FILE
    for answer, other in zip(file.recognise(photos), run.recognise(photos), strict=True):
        assert answer.nearest
        check_same(answer, other)
    prepared = file.prepare(photos[0].read_bytes(), name="a")
    (again,) = file.recognise_prepared([prepared])
    assert again.key == file.recognise(photos[:1])[0].key


def test_mirrored_and_turned_views_are_those_of_the_run(copy, drawn):
    photos = list_photos(drawn)[:4]
    for views in ("flip", "turns", "five_crops"):
        run, file = library.load("runs/tiny", views=views), library.load(FILE, views=views)
        assert file.way == run.way and "the head alone" in file.way
        for answer, other in zip(file.recognise(photos), run.recognise(photos), strict=True):
            check_same(answer, other)
    plain, turned = (library.load(FILE, views=views).recognise(photos)[0].confidence for views in ("plain", "turns"))
    assert abs(plain - turned) > 1e-6


def test_alone_it_answers_by_its_head_and_with_an_index_by_all(copy, drawn, productrec):
    shutil.copy(FILE, "mine.onnx")
    photo = list_photos(drawn)[0]
    done = productrec("query", "mine.onnx", photo, "--json")
    assert done.code == 0, done.err
    (line,) = read_lines(done.out)
    model = ExportedModel("mine.onnx", threads=1)
    (probabilities,) = model.recognise([model.read_photo(photo)]).probabilities
    assert line["class"] == model.class_names[int(probabilities.argmax())]
    assert line["confidence"] == pytest.approx(float(probabilities.max()), abs=1e-4)
    assert line["nearest"] == [] and line["is_known"] is None and "the head alone" in done.err
    whole = read_lines(productrec("query", FILE, photo, "--json").out)
    named = productrec("query", "mine.onnx", photo, "--json", "--index", "runs/tiny/index/plain", "--strip", "a.png")
    assert named.code == 0, named.err
    assert read_lines(named.out) == whole and whole[0]["nearest"] and "as fitted" in named.err
    strip = cv2.imread("a.png")
    assert strip[18:178, 164:324].astype(float).std() > 5  # a picture of the run's gallery
    shutil.rmtree("runs/tiny/classifier")
    unfitted = productrec("query", "mine.onnx", photo, "--json", "--index", "runs/tiny/index/plain")
    (beside,) = read_lines(unfitted.out)
    assert "no classifier was fitted" in unfitted.err
    told = [near | {"probability": None} for near in whole[0]["nearest"]]  # which the classifier alone can tell
    assert beside["nearest"] == told and beside["confidence"] == line["confidence"]


def test_where_torch_cannot_be_imported_the_command_answers(copy, drawn):
    photo = list_photos(drawn)[0]
    code = BLOCK + "from productrec.cli import main\nmain(sys.argv[1:])\n"
    command = [sys.executable, "-c", code, "query", str(FILE), str(photo), "--json", "--strip", "strip.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = read_lines(done.stdout)
    (other,) = library.load("runs/tiny").recognise([photo])
    assert line["most_probable"]["class_id"] == other.key and line["nearest"][0]["image"] == other.nearest[0].image_id
    assert Path("strip.png").is_file()


def test_where_torch_cannot_be_imported_a_process_and_a_server_answer(copy, drawn):
    photo = list_photos(drawn)[0]
    code = BLOCK + (
        "import threading, http.client, json, pathlib, productrec\n"
        "run = productrec.load(sys.argv[1])\n"
        "print(run.recognise([sys.argv[2]])[0].key)\n"
        "from productrec.runtime import StopRequest\n"
        "from productrec.serving.limits import Limits\n"
        "from productrec.serving.server import serve_run\n"
        "stop = StopRequest()\n"
        "def ask(port):\n"
        "    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)\n"
        "    connection.request('POST', '/recognise', body=pathlib.Path(sys.argv[2]).read_bytes(),\n"
        "                       headers={'Content-Type': 'image/jpeg'})\n"
        "    print(json.loads(connection.getresponse().read())['answers'][0]['most_probable']['class_id'])\n"
        "    stop.wanted = True\n"
        "tell = lambda port: threading.Thread(target=ask, args=(port,)).start()\n"
        "print(serve_run(run, host='127.0.0.1', port=0, limits=Limits(), stop=stop, tell=tell))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(FILE), str(photo)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    key, served, count = done.stdout.split()
    assert key == served and count == "1"


def test_other_weights_precision_and_views_are_refused_by_name(copy, drawn, productrec):
    photo, index = list_photos(drawn)[0], "runs/tiny/index/plain"
    shutil.copy(FILE, "other.onnx")
    rewrite_notes("other.onnx", weights_digest="f" * 64)
    check_line(productrec("query", "other.onnx", photo, "--index", index), 4, index, "weights", "ffffffffffff")
    shutil.copy("other.onnx", FILE)  # as after another training of the run
    done = productrec("query", FILE, photo, "--json")
    assert done.code == 0 and "the head alone, since its index is of an earlier time" in done.err
    rewrite_notes("other.onnx", precision="int8", weights_digest=library.load("runs/tiny").weights_digest)
    check_line(productrec("query", "other.onnx", photo, "--index", index), 4, index, "file of int8")
    shutil.copy("other.onnx", FILE)
    assert "embeddings of a file of int8 are others" in library.load(FILE).way
    for arguments, code, words in (
        ([FILE, photo, "--views", "zoom"], 2, ["views", "32 pixels", "got centre_zoomed", "turns"]),
        ([FILE, photo, "--views", "nothing"], 2, ["nothing"]),
        ([FILE, photo, "--index", "runs/tiny/index/flip"], 4, ["runs/tiny/index/flip"]),
        ([FILE, photo, "device=cpu"], 2, ["device=cpu: has no effect"]),
        (["runs/tiny", photo, "--index", index], 2, ["--index: goes with an exported file"]),
        (["nowhere.onnx", photo], 4, ["nowhere.onnx: must be a file that `productrec export` wrote"]),
    ):
        check_line(productrec("query", *arguments), code, *words)


def test_a_recipe_of_views_that_the_file_cannot_have_leaves_the_plain_one(copy):
    recipe = Path("runs/tiny/recipe.yaml")
    held = recipe.read_text()
    assert "tta: plain" in held
    recipe.write_text(held.replace("tta: plain", "tta: zoom", 1))
    assert "through the views plain" in library.load(FILE).way
    recipe.write_text(held.replace("tta: plain", "tta: turns", 1))
    assert "through the views turns" in library.load(FILE).way


def test_without_its_library_the_extra_is_named(copy, drawn, productrec, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "productrec.exported", raising=False)
    monkeypatch.delitem(sys.modules, "productrec.assembly.exported_photos", raising=False)
    check_line(productrec("query", FILE, list_photos(drawn)[0]), 2, "onnxruntime", "productrec[export]")


def test_a_grown_product_is_found_by_the_file(copy, productrec):
    file = library.load(FILE)
    stripes = np.tile(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8).repeat(40, axis=1), (20, 1, 1))
    (copy / "new/striped thing").mkdir(parents=True)
    cv2.imwrite("new/striped thing/one.png", stripes[:, :, ::-1])
    assert file.recognise([stripes])[0].name != "striped thing"
    assert productrec("index", "grow", "runs/tiny", "new").code == 0
    answer = file.recognise([stripes])[0]
    assert answer.name == "striped thing" and answer.nearest[0].similarity > 0.99


@pytest.mark.parametrize("target", ["runs/tiny", str(FILE)])
def test_hostile_files_get_a_reason_and_the_others_an_answer(copy, drawn, productrec, bad_images, target):
    assert bad_images.main([str(copy / "bad")]) == 0
    files = json.loads(Path("bad/manifest.json").read_text())["files"]
    (Path("bad") / "manifest.json").unlink()
    done = productrec("query", target, "bad", list_photos(drawn)[0], "--json", "--nearest", "1")
    assert done.code == 0 and "Traceback" not in done.err, done.err
    lines = {line["photo"]: line for line in read_lines(done.out)}
    counts = {"ok": 0, "reject": 0, "either": 0}
    for name, entry in files.items():
        line = lines[name]
        counts[entry["expect"]] += 1
        assert ("reason" in line) == (entry["expect"] == "reject") or entry["expect"] == "either", (name, line)
        assert line.get("reason") or line["nearest"]
    assert min(counts["ok"], counts["reject"]) > 20
    assert lines[list_photos(drawn)[0].name]["confidence"] > 0


def test_an_index_is_refused_in_a_process_too(copy):
    with pytest.raises(RecipeError, match="goes with an exported file"):
        library.load("runs/tiny", index="runs/tiny/index/plain")
    rewrite_notes(FILE, weights_digest="0" * 64)
    with pytest.raises(ArtifactError, match="must be of the network that was exported"):
        library.load(FILE, index="runs/tiny/index/plain")
