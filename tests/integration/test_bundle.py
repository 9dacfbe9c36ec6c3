"""A bundle: one folder that answers as its run does, where neither the run nor a network is."""

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from productrec.competitions.contract import load_contract
from productrec.competitions.explain import format_contract
from productrec.stages import bundle as stage
from tests.integration.conftest import write_recipe
from tests.integration.test_photos import read_rows
from tests.integration.test_query_exported import BLOCK

NO_NETWORK = ["unshare", "--user", "--map-root-user", "--net"]


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def check_digests(folder):
    about = json.loads((folder / stage.NAME).read_text())
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(about["files"]) == names - {stage.NAME}
    return about


def list_leaks(folder, *words):
    """Files of a bundle, and of the wheels in it, that hold one of some words."""
    held = [(path, path.read_bytes()) for path in folder.rglob("*") if path.is_file()]
    for path in folder.rglob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            held += [(path / name, wheel.read(name)) for name in wheel.namelist()]
    return [str(path) for path, content in held for word in words if str(word).encode() in content]


@pytest.fixture
def away(finished, drawn, productrec, monkeypatch):
    """A folder with ``bundle`` and the test images alone; the run's own answers beside it, and the run gone."""
    done = productrec("bundle", "runs/tiny", "--to", "bundle")
    assert done.code == 0, done.err
    away = finished.parent / "away"
    away.mkdir()
    (finished / "bundle").rename(away / "bundle")
    shutil.copy(finished / "submissions/tiny.csv", away / "expected.csv")
    shutil.copy(drawn / "sample_submission.csv", away / "sample_submission.csv")
    for image in json.loads((drawn / "test.json").read_text())["images"]:
        (away / "images").mkdir(exist_ok=True)
        shutil.copy(drawn / "images" / image["id"], away / "images" / image["id"])
    assert productrec("predict", "runs/tiny", "--images", away / "images", "--out", away / "named.csv").code == 0
    shutil.rmtree(finished)
    monkeypatch.chdir(away)
    return away


ASK = ("--images", "images", "--sample", "sample_submission.csv", "--out", "new.csv")


def test_a_bundle_answers_as_its_run_did(away, drawn, productrec):
    about = check_digests(away / "bundle")
    assert about["model"] == "run" and about["views"] == "plain" and about["competition"] == "imaterialist2019"
    assert not list((away / "bundle").rglob("state.pt"))
    done = productrec("predict", "bundle", *ASK)
    assert done.code == 0, done.err
    assert "as fitted on validation" in done.err and "agrees with sample_submission.csv" in done.err
    assert (away / "new.csv").read_bytes() == (away / "expected.csv").read_bytes()
    assert [row[0] for row in read_csv(away / "new.csv")] == [
        row[0] for row in read_csv(away / "sample_submission.csv")
    ]
    assert productrec("predict", "bundle", "--images", "images", "--out", "again.csv").code == 0
    assert read_rows(away / "again.csv") == read_rows(away / "named.csv")
    asked = productrec("query", "bundle", "images", "--json")
    assert asked.code == 0 and len(asked.out.splitlines()) == 18
    check_digests(away / "bundle")  # nothing was written into it


def test_no_path_of_the_machine_goes_along(away, drawn, trained):
    assert list_leaks(away / "bundle", drawn, trained, away.parent, Path.home()) == []
    assert list_leaks(away / "bundle", "mobilenetv3_small_050")  # what is there would be found


@pytest.mark.parametrize(
    "around",
    [pytest.param([], id="here", marks=pytest.mark.exhaustive), pytest.param(NO_NETWORK, id="without a network")],
)
def test_its_own_file_runs_it(away, around):
    if around and (shutil.which(around[0]) is None or subprocess.run([*around, "true"], check=False).returncode):
        pytest.skip("this machine lets no process make a network namespace of its own")
    done = subprocess.run(
        [*around, sys.executable, "bundle/run.py", *ASK, "device=cpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (away / "new.csv").read_bytes() == (away / "expected.csv").read_bytes()


@pytest.mark.parametrize("name", ["contract.yaml", "checkpoints/best/weights.safetensors"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_damaged_or_half_bundle_is_refused(away, name, is_there):
    path = away / "bundle" / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if is_there:
        content[-2] ^= 1
        path.write_bytes(content)
    done = subprocess.run([sys.executable, "bundle/run.py", *ASK], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"1 are missing or damaged, the first {name}" in done.stderr
    assert not (away / "new.csv").exists()


def test_a_bundle_without_its_list_of_files_is_refused(away):
    (away / "bundle/bundle.json").write_text("half")
    done = subprocess.run([sys.executable, "bundle/run.py", *ASK], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "must list the bundle's files" in done.stderr


def test_a_path_of_the_machine_in_a_text_is_refused(finished, productrec):
    noted = finished / "runs/tiny/classifier/plain/manifest.json"
    noted.write_text(json.dumps(json.loads(noted.read_text()) | {"notes": {"made in": str(finished)}}))
    done = productrec("bundle", "runs/tiny", "--to", "mine")
    assert done.code == 4 and "mine/classifier/plain/manifest.json: must name no path of this machine" in done.err
    assert not (finished / "mine").exists()


def test_a_target_that_is_there_is_refused(finished, productrec):
    (finished / "mine").mkdir()
    done = productrec("bundle", "runs/tiny", "--to", "mine")
    assert done.code == 4 and "mine: must not be there yet" in done.err
    assert list((finished / "mine").iterdir()) == []


def test_an_interrupted_bundle_leaves_nothing(finished, productrec, monkeypatch):
    def stop(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "collect_wheels", stop)
    before = sorted(finished.iterdir())
    with pytest.raises(KeyboardInterrupt):
        stage.run_bundle(*load(finished), finished / "mine")
    assert sorted(finished.iterdir()) == before


def load(folder):
    from productrec.pipeline.select import load_runs

    selected = load_runs([folder / "runs/tiny"], [], command="photos")
    return folder / "runs/tiny", selected.runs, selected.recipe


def test_what_cannot_go_along_is_told(finished, productrec):
    for options, code, words in (
        (["--views", "flip"], 4, "productrec predict runs/tiny --views flip"),
        (["--wheels", "some"], 2, "--wheels: must be one of none, productrec, light, all; got 'some'"),
        (["--model", "tflite"], 2, "--model: must be one of run, onnx; got 'tflite'"),
        (["--model", "onnx"], 4, "productrec export"),
    ):
        done = productrec("bundle", "runs/tiny", *options, "--to", "mine")
        assert done.code == code and words in done.err and not (finished / "mine").exists(), done.err
    manifest = finished / "runs/tiny/classifier/plain/manifest.json"
    noted = json.loads(manifest.read_text())
    noted["inputs"]["index"] = "of an earlier time"
    manifest.write_text(json.dumps(noted))
    done = productrec("bundle", "runs/tiny", "--to", "mine")
    assert done.code == 4 and "the head alone, since its index is of an earlier time" in done.err
    own = {"views": {"mirrored": {"transform": {"__class_fullname__": "HorizontalFlip", "p": 1.0}}}}
    (finished / "shelf.yaml").write_text(yaml.safe_dump(own))
    done = productrec("bundle", "runs/tiny", "--views", "shelf.yaml", "--to", "mine")
    assert done.code == 2 and "shelf, of your own" in done.err


def test_limits_are_told_and_what_is_beyond_them_is_warned_of(finished, drawn, productrec):
    done = productrec("bundle", "runs/tiny", "--wheels", "none", "--to", "mine", "--count", "2000000000")
    assert done.code == 0, done.err
    assert "warning: beyond what a notebook allows: time: 2,000,000,000 images at" in done.err
    assert "disk: 0.00 GiB; a data set holds" in done.err
    assert not (finished / "mine/wheels").exists()
    shutil.rmtree(finished / "data")
    done = productrec("bundle", "runs/tiny", "--wheels", "none", "--to", "other")
    assert done.code == 0 and "time: not known, since no image was at hand to time" in done.err
    done = productrec("bundle", "runs/tiny", "--wheels", "none", "--to", "timed", "--images", drawn / "images")
    assert done.code == 0 and "it is not known how many are to be predicted" in done.err


def test_what_was_grown_goes_along_without_its_paths(finished, drawn, productrec, monkeypatch):
    photos = sorted((drawn / "images").iterdir())[:4]
    for number, photo in enumerate(photos):
        (finished / f"new/product {number // 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, finished / f"new/product {number // 2}/{number}.jpg")
    assert productrec("index", "grow", "runs/tiny", "new/product 0/..").code == 0
    assert productrec("index", "compact", "runs/tiny").code == 0
    (finished / "new/product 0/more.jpg").write_bytes(photos[3].read_bytes())
    assert productrec("index", "grow", "runs/tiny", "new").code == 0
    assert productrec("query", "runs/tiny", "new", "--json").out.count("product 0") > 0
    own = productrec("query", "runs/tiny", "new", "--json").out
    assert productrec("bundle", "runs/tiny", "--to", "mine").code == 0
    assert list_leaks(finished / "mine", finished) == []
    assert productrec("query", "mine", "new", "--json").out == own


def test_an_ensemble_goes_along_with_all_its_members(finished, drawn, productrec, monkeypatch):
    contract = load_contract("imaterialist2019").model_copy(update={"name": "own"})
    (finished / "own.yaml").write_text(format_contract(contract))
    for name in ("a", "b"):
        shutil.copytree(finished / "runs/tiny", finished / "runs/both" / name)
    members = {"a": {}, "b": {"data": {"findings": str(finished / "findings.csv")}}}
    competition = str(finished / "own.yaml")
    recipe = write_recipe(finished / "runs/both", drawn, "recipe", members=members, competition=competition)
    assert "own.yaml" in recipe.read_text()
    done = productrec("bundle", "runs/both", "--to", "mine")
    assert done.code == 0, done.err
    assert {path.name for path in (finished / "mine").iterdir()} >= {"a", "b", "recipe.yaml", "contract.yaml"}
    assert list_leaks(finished / "mine", finished, drawn) == []
    assert productrec("query", "mine/b", drawn / "images", "--json").code == 0
    sample = finished / "data/tiny/sample_submission.csv"
    (finished / "own.yaml").unlink()
    done = productrec("predict", "mine", "--images", drawn / "images", "--sample", sample, "--out", "new.csv")
    assert done.code == 0, done.err
    assert read_csv(finished / "new.csv") == read_csv(finished / "submissions/tiny.csv")
    (finished / "blend").mkdir()
    shutil.copy(finished / "runs/tiny/recipe.yaml", finished / "blend/recipe.yaml")
    done = productrec("bundle", "blend", "--to", "other")
    assert done.code == 4 and "bundle each of its runs" in done.err


@pytest.mark.xdist_group("export")
def test_an_exported_file_goes_along_instead_of_the_weights(copy, drawn, productrec):
    pytest.importorskip("onnx")
    done = productrec("bundle", "runs/tiny", "--model", "onnx", "--to", "mine")
    assert done.code == 0, done.err
    assert not (copy / "mine/checkpoints").exists() and (copy / "mine/export/tiny.onnx").is_file()
    sample = copy / "data/tiny/sample_submission.csv"
    for target, out in (("mine", "one.csv"), ("mine/export/tiny.onnx", "two.csv")):
        done = productrec("predict", target, "--images", drawn / "images", "--sample", sample, "--out", out)
        assert done.code == 0, done.err
        # Logarithms of its probabilities stand for logits, so that the last of nearly equal classes may differ.
        assert [row[0] for row in read_csv(copy / out)] == [row[0] for row in read_csv(sample)]
        ours, theirs = read_csv(copy / out)[1:], read_csv(copy / "submissions/tiny.csv")[1:]
        assert sum(one[1].split()[0] == other[1].split()[0] for one, other in zip(ours, theirs, strict=True)) >= 17
    assert productrec("query", "mine", drawn / "images", "--json").code == 0
    arguments = ["predict", "mine", "--images", str(drawn / "images"), "--sample", str(sample), "--out", "three.csv"]
    done = subprocess.run(
        [sys.executable, "-c", f"{BLOCK}from productrec.cli import main\nmain({arguments})"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (copy / "three.csv").read_bytes() == (copy / "one.csv").read_bytes()
