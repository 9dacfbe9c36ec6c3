"""Export: any layout becomes ONNX that answers as the network does, whatever the batch; or says in a line why not."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from productrec.errors import ArtifactError
from productrec.exported import ExportedModel
from productrec.models.agreement import compare_answers
from productrec.models.backbone import spell_out_attention
from productrec.models.export import (
    BATCH,
    NOTES_FILE,
    OPSET,
    export_onnx,
    export_program,
    load_program,
    save_program,
)
from productrec.models.export_notes import ExportNotes
from productrec.models.onnx_file import quantise, write_onnx
from productrec.models.recognizer import build_recognizer

onnx = pytest.importorskip("onnx")
CLASSES = 3


def build(backbone="resnet10t", pooling="gem", side_px=32):
    torch.manual_seed(0)
    settings = {"pretrained": False, "gem_power": 3.0, "embedding_dim": 8, "class_count": CLASSES}
    network = build_recognizer(backbone=backbone, pooling=pooling, side_px=side_px, **settings)
    for module in network.modules():  # as after training: batch norms that shift, batches that would show it
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def describe(side_px=32, backbone="resnet10t"):
    names = ["cola", "jam \u00e9", "tea"]
    return ExportNotes([7, 3, 5], names, names, side_px, "digest", "mine", backbone, "float32", "0.1")


def draw(count, side_px=32):
    return np.random.default_rng(0).integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)


def recognise_by(network):
    def recognise(images):
        with torch.inference_mode():
            embeddings, logits = network(torch.from_numpy(images))
            return embeddings.numpy(), logits.softmax(dim=1).numpy()

    return recognise


def write(network, path, side_px=32):
    write_onnx(export_onnx(network, side_px, name="resnet10t"), path, describe(side_px), batch=BATCH)
    return ExportedModel(path, threads=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network and its file."""
    network = build()
    path = tmp_path_factory.mktemp("exported") / "mine.onnx"
    write(network, path)
    return network, path


def check_answers(network, model, side_px):
    for count in (1, 2, 5):
        images = draw(count, side_px)
        agreement = compare_answers(recognise_by(network), model.recognise, images, 16)
        assert agreement.is_within(1e-5), agreement
        assert agreement.same_answers == count
        embeddings, probabilities = model.recognise(images)
        assert embeddings.shape == (count, 8) and probabilities.shape == (count, CLASSES)
        assert embeddings.dtype == probabilities.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_convolutional_network_answers_the_same_whatever_the_batch(exported):
    network, path = exported
    check_answers(network, ExportedModel(path, threads=1), 32)


def test_a_transformer_with_average_pooling_too(tmp_path):
    network = build("vit_tiny_patch16_224", "average")
    network.backbone.network.blocks = network.backbone.network.blocks[:2]  # the others are like these
    path = tmp_path / "mine.onnx"
    check_answers(network, write(network, path), 32)
    quantise(path, path, describe(), iter([draw(8)]))  # in its own place
    graph = onnx.load(path).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    sides = [
        {made[name] == "DequantizeLinear" for name in node.input} for node in graph.node if node.op_type == "MatMul"
    ]
    assert sides.count({True}) == 8 and sides.count({False}) == 4  # four layers a block; attention's two products
    right, _ = recognise_by(network)(draw(5))
    assert (ExportedModel(path, threads=1).recognise(draw(5)).embeddings * right).sum(axis=1).min() > 0.98


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("backbone", "side_px"),
    [
        ("vit_tiny_patch16_224", 48),
        ("swin_s3_tiny_224", 64),
        ("maxvit_rmlp_pico_rw_256", 128),
        ("beit_base_patch16_224", 32),
        ("levit_128s", 64),
        ("convnext_atto", 32),
        ("tf_efficientnet_lite0", 64),
    ],
)
def test_other_kinds_of_network(backbone, side_px, tmp_path):
    network = build(backbone, "gem", side_px)
    check_answers(network, write(network, tmp_path / "mine.onnx", side_px), side_px)


def test_attention_is_fused_again_after_it_was_spelled_out():
    network = build("vit_tiny_patch16_224")
    fused = [module for module in network.modules() if getattr(module, "fused_attn", False)]
    assert fused
    with pytest.raises(ZeroDivisionError), spell_out_attention(network):
        assert not any(module.fused_attn for module in fused)
        raise ZeroDivisionError
    assert all(module.fused_attn for module in fused)


def test_the_file_tells_what_it_is_and_nothing_of_the_machine(exported):
    _, path = exported
    model = onnx.load(path)
    assert {entry.domain or "ai.onnx": entry.version for entry in model.opset_import} == {"ai.onnx": OPSET}
    (images,), (embedding, probabilities) = model.graph.input, model.graph.output
    assert [value.name for value in (images, embedding, probabilities)] == ["images", "embedding", "probabilities"]
    for value in (images, embedding, probabilities):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert ExportedModel(path).notes == describe()
    held = path.read_bytes()
    assert b".py" not in held and b"class_hierarchy" not in held


def test_a_program_answers_the_same_and_carries_its_notes(exported, tmp_path):
    network, _ = exported
    path = tmp_path / "mine.pt2"
    save_program(export_program(network, 32, name="resnet10t"), path, describe())
    recognise, notes = load_program(path)
    assert notes == describe()
    agreement = compare_answers(recognise_by(network), recognise, draw(5), 3)
    assert agreement.is_within(1e-6) and agreement.same_answers == 5
    extra = {NOTES_FILE: ""}
    plain = torch.export.load(path, extra_files=extra)
    assert json.loads(extra[NOTES_FILE])["run"] == "mine"
    assert plain.module()(torch.from_numpy(draw(1)))[1].shape == (1, CLASSES)
    assert not any(b".py" in text for text in path.read_bytes().split(b"\n"))


def test_a_damaged_program_is_one_clear_error(tmp_path):
    (tmp_path / "mine.pt2").write_bytes(b"nothing of that kind")
    with pytest.raises(ArtifactError, match="must be a program"):
        load_program(tmp_path / "mine.pt2")


class OwnNetwork(nn.Module):
    """A network that does something special to its logits."""

    def __init__(self, special):
        super().__init__()
        self.special = special
        self.linear = nn.Linear(3, CLASSES)

    def forward(self, images):
        features = self.linear(images.float().mean(dim=(1, 2)))
        return features, self.special(features)


def test_what_onnx_cannot_say_is_one_line(capfd):
    network = OwnNetwork(torch.special.bessel_j0).eval()
    with pytest.raises(ArtifactError) as caught:
        export_onnx(network, 8, name="odd_net")
    said = str(caught.value)
    assert "odd_net" in said and "bessel_j0" in said and "--to torch" in said and "\n" not in said
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_traced_is_one_line(capfd):
    network = OwnNetwork(lambda features: features * 2 if features.sum() > 0 else features).eval()
    with pytest.raises(ArtifactError) as caught:
        export_program(network, 8, name="odd_net")
    said = str(caught.value)
    assert "odd_net" in said and "cannot be traced" in said and "\n" not in said
    assert capfd.readouterr() == ("", "")


def test_a_network_of_one_batch_length_alone_is_refused():
    network = OwnNetwork(lambda features: features.reshape(2, CLASSES)).eval()
    with pytest.raises(ArtifactError, match="batches of any length"):
        export_onnx(network, 8, name="odd_net")


def test_a_network_too_large_for_one_file_is_refused():
    network = nn.Module()
    network.weight = nn.Parameter(torch.empty(600_000_000, device="meta"))
    with pytest.raises(ArtifactError, match="at most 2 GB.*2.4.*--to torch"):
        export_onnx(network, 8, name="huge")


def test_int8_answers_nearly_the_same_and_the_picture_is_read_in_float32(exported, tmp_path):
    network, source = exported
    path = tmp_path / "int8.onnx"
    quantise(source, path, describe(), iter([draw(8)]))
    model = ExportedModel(path, threads=1)
    embeddings, _ = model.recognise(draw(5))
    right, _ = recognise_by(network)(draw(5))
    assert (embeddings * right).sum(axis=1).min() > 0.98
    assert path.stat().st_size < 0.3 * source.stat().st_size
    graph = onnx.load(path).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert [made.get(node.input[1], "weight") for node in convolutions].count("weight") == 1  # the picture's alone
    scales = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    per_channel = [scales[node.input[1]] for node in graph.node if node.op_type == "DequantizeLinear"]
    assert any(len(dims) == 1 and dims[0] > 1 for dims in per_channel)


def test_a_network_that_cannot_be_quantised_is_one_line(exported, tmp_path):
    _, source = exported
    with pytest.raises(ArtifactError, match="cannot be quantised.*--int8"):
        quantise(source, tmp_path / "int8.onnx", describe(), iter([np.zeros((2, 8, 8, 3), np.uint8)]))
