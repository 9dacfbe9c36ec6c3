"""Concatenation and averaging: what comes out, what is refused by name, and when a warning tells of other spaces."""

import numpy as np
import pytest

from productrec.ensembling.averaging import average_embeddings, measure_alignment
from productrec.ensembling.concatenation import concatenate_embeddings
from productrec.errors import ArtifactError

IDS = [f"{row}.jpg" for row in range(30)]


def draw(dim, seed, count=30):
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def cosine(values):
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    return unit @ unit.T


@pytest.mark.parametrize("weights", [None, [3, 1], [1, 0]])
def test_the_inner_product_is_the_weighted_mean_of_similarities(weights):
    members = [draw(4, 0), 5 * draw(7, 1)]
    joined = concatenate_embeddings(["a", "b"], [IDS, IDS], members, weights=weights)
    shares = np.array(weights or [1, 1]) / sum(weights or [1, 1])
    expected = shares[0] * cosine(members[0]) + shares[1] * cosine(members[1])
    assert joined.shape == (30, 11) and joined.dtype == np.float32
    np.testing.assert_allclose(joined @ joined.T, expected, atol=1e-5)


def test_memory_maps_are_read_and_filled_block_by_block(tmp_path):
    members = []
    for name, dim in (("a", 4), ("b", 6)):
        np.save(tmp_path / f"{name}.npy", draw(dim, dim).astype(np.float16))
        members.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, (30, 10))
    assert concatenate_embeddings(["a", "b"], [IDS, IDS], members, out=out, block_rows=7) is out
    np.testing.assert_array_equal(out, concatenate_embeddings(["a", "b"], [IDS, IDS], members))


def test_an_array_that_does_not_fit_is_refused():
    with pytest.raises(ArtifactError, match=r"must be float32 of shape \(30, 8\)"):
        concatenate_embeddings(["a", "b"], [IDS, IDS], [draw(4, 0)] * 2, out=np.empty((30, 9), np.float32))


@pytest.mark.parametrize("join", [concatenate_embeddings, average_embeddings])
@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_rows_without_a_direction_are_refused_by_their_ids(join, bad):
    members = [draw(4, 0), draw(4, 1)]
    members[1][[3, 5]] = bad
    with pytest.raises(ArtifactError, match=r"b: .*2 \(3.jpg, 5.jpg\) are not"):
        join(["a", "b"], [IDS, IDS], members)


@pytest.mark.parametrize("join", [concatenate_embeddings, average_embeddings])
def test_other_images_and_another_order_are_refused_by_name(join):
    members = [draw(4, 0), draw(4, 1)]
    with pytest.raises(ArtifactError, match="b differs from a: the same ones stand in another order"):
        join(["a", "b"], [IDS, IDS[::-1]], members)
    with pytest.raises(ArtifactError, match=r"2 \(0.jpg, x.jpg\) stand in only one of them"):
        join(["a", "b"], [IDS, ["x.jpg", *IDS[1:]]], members)
    with pytest.raises(ArtifactError, match="b: embeddings must be one row for each of 30 images"):
        join(["a", "b"], [IDS, IDS], [members[0], members[1][:29]])


def test_the_mean_of_epochs_is_their_direction_and_tells_nothing(capfd):
    first = draw(16, 0)
    epochs = [first, first + 0.1 * draw(16, 1), first + 0.1 * draw(16, 2)]
    averaged = average_embeddings(["1", "2", "3"], [IDS] * 3, epochs, block_rows=8)
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in epochs]
    expected = sum(units) / np.linalg.norm(sum(units), axis=1, keepdims=True)
    np.testing.assert_allclose(averaged, expected, atol=1e-5)
    assert "do not embed into one space" not in capfd.readouterr().err


def test_models_that_were_trained_apart_are_warned_of_with_figures(capfd):
    first = draw(16, 0)
    turn = np.linalg.qr(draw(16, 5, count=16))[0]  # the same similarities in another space
    measured = measure_alignment(first, first @ turn)
    assert not measured.is_aligned and measured.agreement < 0.5
    assert measure_alignment(first, first).is_aligned
    average_embeddings(["a", "b"], [IDS, IDS], [first, first @ turn])
    told = capfd.readouterr().err
    assert "b and a do not embed into one space" in told and f"{measured.agreement:.0%}" in told


def test_figures_of_alignment_are_means_over_images_and_pairs():
    first, second = draw(6, 0), draw(6, 1)
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (first, second)]
    cosines = units[0] @ units[1].T
    measured = measure_alignment(first, second)
    assert measured.same == pytest.approx(np.trace(cosines) / 30, abs=1e-5)
    assert measured.different == pytest.approx((cosines.sum() - np.trace(cosines)) / (30 * 29), abs=1e-5)


def test_a_mean_of_other_sizes_or_of_opposites_is_refused():
    with pytest.raises(ArtifactError, match="one size; got a 4, b 6. Concatenate them"):
        average_embeddings(["a", "b"], [IDS, IDS], [draw(4, 0), draw(6, 0)])
    opposite = draw(4, 0)
    opposite[7] *= -1
    with pytest.raises(ArtifactError, match=r"1 \(7.jpg\) do"):
        average_embeddings(["a", "b"], [IDS, IDS], [draw(4, 0), opposite])
