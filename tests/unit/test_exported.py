"""Exported models: images of any size are recognised; what is no image, and what is no such file, is refused."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from productrec.data.views import resize_square
from productrec.errors import ArtifactError, DataError
from productrec.exported import ExportedModel
from productrec.models.export import BATCH, export_onnx
from productrec.models.export_notes import ExportNotes
from productrec.models.onnx_file import write_onnx

onnx = pytest.importorskip("onnx")
SIDE_PX = 8
NOTES = ExportNotes([7, 3], ["7", "3"], ["cola", "jam"], SIDE_PX, "digest", "mine", "own", "float32", "0.1")


class MeanColour(nn.Module):
    """A network whose embedding is the mean colour."""

    def forward(self, images):
        means = images.float().mean(dim=(1, 2))
        return nn.functional.normalize(means, dim=1), means[:, :2]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "mine.onnx"
    write_onnx(export_onnx(MeanColour().eval(), SIDE_PX, name="own"), path, NOTES, batch=BATCH)
    return path


@pytest.fixture(scope="module")
def model(path):
    return ExportedModel(path, threads=1)


def draw(*sizes):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


def test_a_model_knows_its_classes(model):
    assert (model.class_names, model.class_ids, model.class_keys) == (["cola", "jam"], [7, 3], ["7", "3"])
    assert model.side_px == SIDE_PX and model.notes == NOTES


def test_images_of_any_size_are_resized_as_the_run_has_learned_from_them(model):
    images = draw((20, 30), (5, 30), (SIDE_PX, SIDE_PX))
    answers = model.recognise(images)
    squares = np.stack([resize_square(image, SIDE_PX) for image in images])
    again = model.recognise(squares)
    np.testing.assert_array_equal(answers.embeddings, again.embeddings)
    np.testing.assert_array_equal(answers.probabilities, again.probabilities)
    means, logits = MeanColour()(torch.from_numpy(squares))
    np.testing.assert_allclose(answers.embeddings, means.numpy(), atol=1e-6)
    np.testing.assert_allclose(answers.probabilities, logits.softmax(dim=1).numpy(), atol=1e-6)


def test_a_photo_is_read_as_the_run_reads_it(model, tmp_path):
    (image,) = draw((20, 30))
    cv2.imwrite(str(tmp_path / "photo.png"), image[..., ::-1])
    np.testing.assert_array_equal(model.read_photo(tmp_path / "photo.png"), resize_square(image, SIDE_PX))
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(DataError, match="not a picture"):
        model.read_photo(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "at least one"),
        ([np.zeros((4, 4), np.uint8)], r"got \(4, 4\) uint8"),
        ([np.zeros((4, 4, 4), np.uint8)], r"got \(4, 4, 4\) uint8"),
        ([np.zeros((4, 4, 3), np.float32)], r"got \(4, 4, 3\) float32"),
        (np.zeros((4, 4, 3), np.uint8), r"got \(4, 3\) uint8"),
        (["photo.jpg"], "got str"),
    ],
)
def test_what_is_no_image_is_refused(model, images, words):
    with pytest.raises(ValueError, match=words):
        model.recognise(images)


def test_what_is_no_exported_file_is_refused(path, tmp_path):
    with pytest.raises(ArtifactError, match="none of that name"):
        ExportedModel(tmp_path / "none.onnx")
    (tmp_path / "damaged.onnx").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="cannot be loaded by ONNX Runtime"):
        ExportedModel(tmp_path / "damaged.onnx")
    foreign = onnx.load(path)
    foreign.ClearField("metadata_props")
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ArtifactError, match="that `productrec export` wrote"):
        ExportedModel(tmp_path / "foreign.onnx")
