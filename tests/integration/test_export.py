"""Export as a user types it: a run leaves as one file that answers as the run does, where torch cannot be imported."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from productrec.exported import ExportedModel
from productrec.models.recognizer import Recognized
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.training.run.checkpoint import load_checkpoint
from tests.integration.conftest import write_recipe
from tests.integration.test_bad_input import check_line

pytest.importorskip("onnx")
ROOT = Path(__file__).resolve().parents[2]
FILE = Path("runs/tiny/export/tiny.onnx")


pytestmark = pytest.mark.xdist_group("export")  # one export for all of them


def list_photos(drawn, split="val"):
    return [drawn / "images" / image["id"] for image in json.loads((drawn / f"{split}.json").read_text())["images"]]


def test_the_file_answers_as_the_run_has_embedded(left, drawn):
    model = ExportedModel(left / FILE, threads=1)
    checkpoint = load_checkpoint(left / "runs/tiny/checkpoints/best")
    assert model.class_names == checkpoint.class_names and model.class_ids == checkpoint.class_ids
    assert model.class_keys == checkpoint.class_keys
    assert model.notes.weights_digest == checkpoint.weights_digest
    assert (model.notes.run, model.notes.backbone, model.side_px) == ("tiny", "mobilenetv3_small_050", 32)
    known = load_embedding_set(left / "runs/tiny/embeddings/plain/val")
    by_name = {path.name: path for path in list_photos(drawn)}
    answers = model.recognise([model.read_photo(by_name[image_id]) for image_id in known.ids])
    np.testing.assert_allclose(answers.embeddings, known.embeddings, atol=1e-4)
    order = [model.class_ids.index(class_id) for class_id in known.class_ids]
    logits = torch.from_numpy(np.array(known.logits))
    np.testing.assert_allclose(answers.probabilities[:, order], logits.softmax(dim=1).numpy(), atol=1e-4)


def test_it_recognises_where_torch_cannot_be_imported(left, drawn, tmp_path):
    """Nor Pillow, for arrays; nor anything else that a server has no use for."""
    code = (
        "import sys\n"
        "for name in ('torch', 'timm', 'pandas', 'pydantic', 'rich', 'typer', 'yaml', 'onnx', 'scipy', 'faiss',\n"
        "             'albumentations', 'pyarrow', 'safetensors', 'PIL'):\n"
        "    sys.modules[name] = None\n"
        "import cv2, numpy as np\n"
        "from productrec.exported import ExportedModel\n"
        "model = ExportedModel(sys.argv[1], threads=1)\n"
        "answers = model.recognise([cv2.imread(sys.argv[2], cv2.IMREAD_COLOR_RGB)])\n"
        "del sys.modules['PIL']\n"
        "photo = model.read_photo(sys.argv[2])\n"
        "np.savez(sys.argv[3], photo=photo, **answers._asdict())\n"
    )
    photo, out = list_photos(drawn)[0], tmp_path / "answers.npz"
    command = [sys.executable, "-c", code, str(left / FILE), str(photo), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model, held = ExportedModel(left / FILE, threads=1), np.load(out)
    np.testing.assert_array_equal(held["photo"], model.read_photo(photo))
    np.testing.assert_allclose(held["embeddings"], model.recognise([held["photo"]]).embeddings, atol=1e-6)


def test_the_lines_in_the_docs_do_it_without_productrec(left, drawn, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/exporting.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "import onnxruntime" in block]
    photo = list_photos(drawn)[0]
    shutil.copy(left / FILE, tmp_path / "mine.onnx")
    shutil.copy(photo, tmp_path / "photo.jpg")
    blocked = "import sys\nsys.modules['torch'] = sys.modules['productrec'] = None\n"
    done = subprocess.run([sys.executable, "-c", blocked + code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model = ExportedModel(left / FILE, threads=1)
    (probabilities,) = model.recognise([model.read_photo(photo)]).probabilities
    name, _, said = done.stdout.strip().rpartition(" ")
    assert name == model.class_names[probabilities.argmax()]
    assert float(said) == pytest.approx(float(probabilities.max()), abs=1e-6)


def test_an_int8_file_tells_what_it_loses(copy, productrec):
    done = productrec("export", "runs/tiny", "--int8")
    assert done.code == 0, done.err
    assert "checked against the run on 18 validation images" in done.err and "18 of 18 top-1 answers agree" in done.err
    assert "int8 beside float32: 18 labelled validation images" in done.out
    assert "int8 (calibrated on training images)" in done.err
    assert re.search(r"float32 +\d\.\d +\d+\.\d %", done.out) and re.search(
        r"int8 +\d\.\d +\d+\.\d % +\d+ of 18", done.out
    )
    model = ExportedModel(copy / "runs/tiny/export/tiny-int8.onnx", threads=1)
    assert model.notes.precision == "int8"
    assert (copy / "runs/tiny/export/tiny-int8.onnx").stat().st_size < (copy / FILE).stat().st_size
    assert sorted(path.name for path in (copy / "runs/tiny/export").iterdir()) == ["tiny-int8.onnx", "tiny.onnx"]
    lines = [line for line in done.err.splitlines() if line]
    assert len(lines) == 5, done.err  # beginning, comparison, check, file, next: libraries' own noise is not shown


def test_a_program_of_torch_is_checked_on_photos_where_the_table_is_gone(copy, drawn, productrec):
    shutil.rmtree(copy / "data")
    shutil.copytree(drawn / "images", copy / "photos")
    done = productrec("export", "runs/tiny", "--to", "torch", "--out", "server/mine.pt2", "--images", "photos")
    assert done.code == 0, done.err
    assert "checked against the run on 64 photos of photos" in done.err and "noise" not in done.err
    extra = {"productrec.json": ""}
    module = torch.export.load(copy / "server/mine.pt2", extra_files=extra).module()
    notes = json.loads(extra["productrec.json"])
    assert json.loads(notes["class_names"]) == ExportedModel(copy / FILE).class_names
    for count in (1, 3):
        images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)
        embedding, probabilities = module(images)
        known = ExportedModel(copy / FILE, threads=1).recognise(images.numpy())
        np.testing.assert_allclose(embedding.detach().numpy(), known.embeddings, atol=1e-4)
        np.testing.assert_allclose(probabilities.detach().numpy(), known.probabilities, atol=1e-4)


def test_without_images_it_is_checked_on_noise_and_says_so(copy, productrec, monkeypatch):
    write_as_before(copy, monkeypatch)
    shutil.rmtree(copy / "data")
    done = productrec("export", "runs/tiny", "--replace")
    assert done.code == 0, done.err
    assert "warning: checked on noise alone" in done.err and "data/tiny: no image table here" in done.err
    assert "--images" in done.err and "on 16 images of noise" in done.err
    check_line(productrec("export", "runs/tiny", "--int8"), 3, "images to calibrate on", "--images")


def write_as_before(folder, monkeypatch, change=lambda model: None):
    """Let the exporter say what it said before, which takes seconds, after a ``change``."""
    import onnx

    model = onnx.load(folder / FILE)
    change(model)
    held = model.SerializeToString()
    monkeypatch.setattr("productrec.stages.export.export_onnx", lambda *arguments, **options: held)


def test_a_file_that_answers_otherwise_is_not_kept(copy, productrec, monkeypatch):
    def shift(model):
        (bias,) = [tensor for tensor in model.graph.initializer if tensor.name.endswith("head.linear.bias")]
        bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + np.arange(6, dtype=np.float32) / 100).tobytes()

    before = (copy / FILE).read_bytes()
    write_as_before(copy, monkeypatch, shift)
    check_line(productrec("export", "runs/tiny", "--replace"), 4, "must answer as the run does", "0.0001", "not kept")
    assert (copy / FILE).read_bytes() == before
    check_line(productrec("export", "runs/tiny", "--out", "new/mine.onnx"), 4, "new/mine.onnx")
    assert not list((copy / "new").iterdir())


def test_what_onnx_cannot_say_is_one_line(copy, productrec, monkeypatch):
    class Odd(nn.Module):
        def forward(self, images):
            features = images.float().mean(dim=(1, 2))
            return Recognized(features, torch.special.bessel_j0(features))

    monkeypatch.setattr("productrec.stages.export.load_network", lambda checkpoint: Odd().eval())
    done = productrec("export", "runs/tiny", "--out", "new.onnx")
    check_line(done, 4, "mobilenetv3_small_050", "bessel_j0", "another backbone", "--to torch")
    assert not (copy / "new.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["runs/tiny"], 4, ["runs/tiny/export/tiny.onnx: is there already", "--replace"]),
        (["runs/tiny", "--to", "tflite"], 2, ["--to: must be onnx or torch; got 'tflite'"]),
        (["runs/tiny", "--to", "torch", "--int8"], 2, ["--int8", "--to onnx"]),
        (["runs/tiny", "--out", "x.onnx", "--images", "nowhere"], 3, ["nowhere: must be a folder"]),
        (["runs/tiny", "--out", "x.onnx", "--images", "submissions"], 3, ["submissions: must hold photos"]),
        (["runs/tinny"], 2, ["runs/tinny: no such run", "runs/tiny"]),
        (["runs/tiny", "--out", "x.onnx", "predict.tta=flip"], 2, ["predict.tta", "belongs to predict"]),
        (["runs/tiny", "--out", "x.onnx", "train.side_px=64"], 2, ["train.side_px", "belongs to train"]),
        (["runs/tiny", "--out", "x.onnx", "predict.checkpoint=first"], 2, ["predict.checkpoint", "best"]),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(copy, productrec, monkeypatch, arguments, code, words):
    monkeypatch.setattr("productrec.stages.export.load_network", lambda checkpoint: pytest.fail("work was begun"))
    before = sorted(copy.rglob("*"))
    check_line(productrec("export", *arguments), code, *words)
    assert sorted(copy.rglob("*")) == before


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_a_library_that_is_not_installed_is_named_before_any_work(copy, productrec, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr("productrec.stages.export.load_checkpoint", lambda folder: pytest.fail("work was begun"))
    done = productrec("export", "runs/tiny", "--out", "x.onnx")
    check_line(done, 2, f"not installed: {library}. ", "uv pip install 'productrec[export]'")


def test_a_recipe_of_several_models_is_exported_one_by_one(copy, drawn, productrec):
    write_recipe(copy / "runs/tiny", drawn, "recipe", members={"small": {}, "large": {}})
    check_line(productrec("export", "runs/tiny"), 2, "several models", "runs/tiny/small", "runs/tiny/large")


def test_a_run_without_its_checkpoint_is_refused(copy, productrec):
    shutil.rmtree(copy / "runs/tiny/checkpoints")
    check_line(productrec("export", "runs/tiny", "--replace"), 4, "checkpoints/best", "no checkpoint")
