"""The shares of cells in a similarity: they sum to it, and are what each cell brings where that is exact."""

import numpy as np
import pytest
import torch
from torch import nn

from productrec.errors import DataError
from productrec.models.backbone import Normalisation
from productrec.models.pooling import AveragePooling, GeMPooling
from productrec.models.recognizer import EmbeddingNeck, Recognizer
from productrec.models.similarity_shares import compute_similarity_shares


def build(pooling: str, neck: str):
    """A recognizer on a convolution of 16 by 16 pixels instead of a backbone: another untrained one says much alike."""
    torch.manual_seed(0)
    network = Recognizer(
        nn.Conv2d(3, 12, 16, stride=16),
        GeMPooling(3.0) if pooling == "gem" else AveragePooling(),
        EmbeddingNeck(12, 8, batch_norm=neck == "batch_norm"),
        nn.Identity(),
        Normalisation((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
    )
    if neck == "batch_norm":  # as after some training
        norm = network.neck.norm
        with torch.no_grad():
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 2.0)
            norm.weight.uniform_(0.5, 2.0)
            norm.bias.normal_(std=0.1)
    return network.eval()


@pytest.fixture
def squares():
    generator = np.random.default_rng(1)
    cells = generator.integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)  # of one colour each
    return list(cells.repeat(16, axis=1).repeat(16, axis=2))


def embed(network, squares):
    with torch.inference_mode():
        return network(torch.from_numpy(np.stack(squares))).embeddings.numpy()


@pytest.mark.parametrize("pooling", ["average", "gem"])
@pytest.mark.parametrize("neck", ["linear", "batch_norm"])
def test_shares_sum_to_the_similarity(squares, pooling, neck):
    network = build(pooling, neck)
    embeddings = embed(network, squares)
    pairs = [(0, 1), (1, 0), (2, 0)]
    shares = compute_similarity_shares(network, squares, pairs, batch_size=2)
    assert [share.shape for share in shares] == [(2, 2)] * 3
    for (one, other), share in zip(pairs, shares, strict=True):
        assert share.sum() == pytest.approx(float(embeddings[one] @ embeddings[other]), abs=1e-5)


def test_with_average_pooling_and_a_linear_neck_a_cell_brings_exactly_its_own_part(squares):
    network = build("average", "linear")
    share = compute_similarity_shares(network, squares, [(0, 1)])[0]
    other = embed(network, squares)[1]
    with torch.inference_mode():
        maps = network.extract_maps(torch.from_numpy(squares[0][None]))[0].numpy()
        weight = network.neck.linear.weight.numpy()
    length = np.linalg.norm(weight @ maps.mean(axis=(1, 2)))
    for row in range(2):
        for column in range(2):
            expected = (weight @ maps[:, row, column]) @ other / 4 / length
            assert share[row, column] == pytest.approx(expected, abs=1e-5)


def test_a_split_that_leaves_a_cell_out_does_not_sum_to_the_similarity(squares, monkeypatch):
    def split_badly(self, features):
        parts = features.float() / (features.shape[2] * features.shape[3])
        parts[:, :, 0, 0] = 0
        return parts

    monkeypatch.setattr(AveragePooling, "split", split_badly)
    network = build("average", "batch_norm")
    embeddings = embed(network, squares)
    share = compute_similarity_shares(network, squares, [(0, 1)])[0]
    assert share.sum() != pytest.approx(float(embeddings[0] @ embeddings[1]), abs=1e-3)


def test_images_of_two_sizes_are_refused(squares):
    with pytest.raises(DataError, match=r"must be \(S, S, 3\) of one size"):
        compute_similarity_shares(build("average", "linear"), [squares[0], squares[1][:16, :16]], [(0, 1)])
