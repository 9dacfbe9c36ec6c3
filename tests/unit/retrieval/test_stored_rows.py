"""Embeddings in fewer bits: how far they are off, that bad rows stay bad, and that neighbours stay the same."""

import numpy as np
import pytest

from productrec.errors import ArtifactError
from productrec.retrieval.embedding_set import count_set_bytes, load_embedding_set, write_embedding_set
from productrec.retrieval.engine import search_rows
from productrec.retrieval.index import load_index, save_index
from productrec.retrieval.stored_rows import StoredRows, encode_rows

FEWER = ("float16", "int8")


def draw_clusters(count, dim=64, classes=100, spread=0.6, seed=0):
    """Unit rows around the centres of classes, as a trained network gives them."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, dim))
    rows = centres[random.integers(0, classes, count)] + spread * random.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def save(folder, embeddings, stored):
    ids = [f"i{row}" for row in range(len(embeddings))]
    made = {"class_ids": [0, 1], "views": ["plain"], "weights_digest": "w", "inputs": {}, "settings": {}}
    options = {"dim": embeddings.shape[1], "keep_logits": True, "stored": stored}
    with write_embedding_set(folder, ids, **made, **options) as writer:
        for start in range(0, len(ids), 100):
            rows = np.arange(start, min(start + 100, len(ids)))
            writer.write(rows, embeddings[rows], np.full((len(rows), 2), 1e5 + 1 / 3))
    return load_embedding_set(folder)


@pytest.mark.parametrize("stored", FEWER)
def test_rows_come_back_as_unit_rows_within_the_error_that_is_promised(tmp_path, stored):
    embeddings = draw_clusters(300)
    embeddings[0] = 0.0
    embeddings[0, 3] = -1.0  # the largest number there is
    loaded = save(tmp_path / "set", embeddings, stored)
    whole = np.asarray(loaded.embeddings)
    assert whole.dtype == np.float32 and loaded.embeddings.shape == whole.shape == embeddings.shape
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-6)
    error = 5e-4 if stored == "float16" else np.sqrt(64) * np.abs(embeddings).max(axis=1) / 254
    assert (np.linalg.norm(whole - embeddings, axis=1) <= error * (1 + error**2)).all()
    assert np.abs(whole - embeddings).max() > 0
    for rows in (slice(10, 20), np.array([5, 3]), np.arange(300) % 7 == 0, 4):
        np.testing.assert_array_equal(loaded.embeddings[rows], whole[rows])
    assert loaded.logits.dtype == np.float32 and loaded.logits[0, 0] == np.float32(1e5 + 1 / 3)
    bytes_ = {"float16": 2, "int8": 1}[stored]
    assert np.load(tmp_path / "set/embeddings.npy", mmap_mode="r").dtype == stored
    assert count_set_bytes(300, 64, 2, stored) == 300 * (64 * bytes_ + 2 * 4)


@pytest.mark.parametrize("stored", FEWER)
def test_only_what_is_asked_for_is_read(stored):
    class Watched(np.ndarray):
        taken = 0

        def __getitem__(self, rows):
            part = super().__getitem__(rows)
            Watched.taken += part.size
            return part

    embeddings = draw_clusters(100)
    rows = StoredRows(encode_rows(embeddings, np.dtype(stored)).view(Watched))
    assert rows[10:12].shape == (2, 64) and Watched.taken == 2 * 64
    assert len(rows) == 100 and rows.ndim == 2 and rows.dtype == np.float32 and Watched.taken == 2 * 64


@pytest.mark.parametrize(("stored", "recall"), [("float16", 0.998), ("int8", 0.97)])
def test_ten_nearest_of_clustered_rows_stay_nearly_the_same(tmp_path, stored, recall):
    gallery, queries = draw_clusters(3000, seed=1), draw_clusters(300, seed=2)
    exact, _ = search_rows(queries, gallery, 10)
    kept, kept_queries = save(tmp_path / "g", gallery, stored), save(tmp_path / "q", queries, stored)
    found, similarities = search_rows(kept_queries.embeddings, kept.embeddings, 10)
    shared = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(exact, found, strict=True)])
    assert recall <= shared < 1.0
    rms = np.sqrt(np.mean((np.asarray(kept.embeddings) @ queries[0] - gallery @ queries[0]) ** 2))
    assert rms < (2e-4 if stored == "float16" else np.abs(gallery).max() / 440)
    save_index(tmp_path / "index", kept, [0] * 3000, inputs={}, settings={})
    assert load_index(tmp_path / "index").searcher.get_embeddings().dtype == np.float32
    assert similarities.max() <= 1.0 + 1e-5


def test_float32_is_what_it_was(tmp_path):
    embeddings = draw_clusters(20)
    loaded = save(tmp_path / "set", embeddings, "float32")
    assert isinstance(loaded.embeddings, np.memmap)
    np.testing.assert_array_equal(loaded.embeddings, embeddings)


@pytest.mark.parametrize("stored", FEWER)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 2.0])
def test_a_row_that_cannot_be_compared_does_not_become_one_that_can(tmp_path, stored, bad):
    embeddings = draw_clusters(5)
    embeddings[2] = bad
    loaded = save(tmp_path / "set", embeddings, stored)
    assert not loaded.embeddings[2].any()
    with pytest.raises(ArtifactError, match="i2"):
        save_index(tmp_path / "index", loaded, [0] * 5, inputs={}, settings={})
