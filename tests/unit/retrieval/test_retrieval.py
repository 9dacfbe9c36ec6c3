"""Retrieval: embedding sets that refuse to be mixed, and FAISS that agrees with a plain matrix product."""

import json

import numpy as np
import pytest

from productrec.errors import ArtifactError
from productrec.retrieval.embedding_set import join_embedding_sets, load_embedding_set, write_embedding_set
from productrec.retrieval.engine import move_to_gpu
from productrec.retrieval.index import load_index, save_index, search_index
from productrec.retrieval.neighbours import load_neighbours, save_neighbours

MADE = {"class_ids": [1, 2, 3], "views": ["plain"], "weights_digest": "w"}


def draw(count, dim=8, seed=0):
    values = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def save(folder, embeddings, *, prefix="i", logits=True, broken=None, **made):
    ids = [f"{prefix}{row}" for row in range(len(embeddings))]
    with write_embedding_set(
        folder,
        ids,
        keep_logits=logits,
        **{"dim": embeddings.shape[1], "inputs": {}, "settings": {}, **MADE, **made},
    ) as writer:
        for start in range(0, len(ids), 5):
            rows = np.arange(start, min(start + 5, len(ids)))
            bad = {int(row): "damaged" for row in rows if row in (broken or ())}
            writer.write(rows, embeddings[rows], np.full((len(rows), 3), 1e6))
            writer.mark_broken(bad)
    return load_embedding_set(folder)


def test_an_embedding_set_comes_back_without_its_broken_rows(tmp_path):
    embeddings = draw(12)
    loaded = save(tmp_path / "set", embeddings, broken={3, 11})
    kept = [row for row in range(12) if row not in (3, 11)]
    assert loaded.ids == [f"i{row}" for row in kept]
    np.testing.assert_array_equal(loaded.embeddings, embeddings[kept])
    assert loaded.broken == {"i3": "damaged", "i11": "damaged"}
    assert loaded.logits is not None
    assert np.isfinite(loaded.logits).all()  # a logit beyond half precision's range stays finite


def test_a_set_says_of_what_it_is(tmp_path):
    plain = save(tmp_path / "set", draw(4))
    assert (plain.modality, plain.tower) == ("image", "image")
    titles = save(tmp_path / "titles", draw(4), modality="title", tower="text")
    assert (titles.modality, titles.tower) == ("title", "text") and titles.fingerprint
    manifest = json.loads((tmp_path / "set/manifest.json").read_text())
    del manifest["notes"]["modality"], manifest["notes"]["tower"]  # as an earlier version wrote it
    (tmp_path / "set/manifest.json").write_text(json.dumps(manifest))
    assert load_embedding_set(tmp_path / "set").modality == "image"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"weights_digest": "other"}, r"one network \(weights\); got w and other"),
        ({"modality": "title"}, "one modality; got image and title"),
        ({"tower": "text"}, "one tower; got image and text"),
        ({"settings": {"side_px": 64}}, r"one preprocessing \(side_px\); got 32 and 64"),
        ({"views": ["plain", "flip"]}, "one list of views"),
        ({"class_ids": [1, 3, 2]}, "one class order"),
        ({"dim": 6}, "one size; got 8 and 6"),
    ],
)
def test_parts_of_a_gallery_that_were_made_otherwise_are_refused_by_name(tmp_path, changes, what):
    made = {"settings": {"side_px": 32}}
    first = save(tmp_path / "a", draw(4), **made)
    same = save(tmp_path / "b", draw(3, seed=1), prefix="j", **made)
    assert len(join_embedding_sets([first, same], keep_logits=True).ids) == 7
    other = save(tmp_path / "c", draw(3, changes.get("dim", 8)), prefix="j", **{**made, **changes})
    with pytest.raises(ArtifactError, match=what):
        join_embedding_sets([first, other], keep_logits=True)
    if "class_ids" in changes:
        assert join_embedding_sets([first, other], keep_logits=False).logits is None


def test_a_gallery_has_no_logits(tmp_path):
    assert save(tmp_path / "set", draw(4), logits=False).logits is None


def test_an_artefact_of_an_earlier_version_is_told(tmp_path):
    gallery = save(tmp_path / "g", draw(4))
    save_index(tmp_path / "index", gallery, [1, 2, 3, 1], inputs={}, settings={})
    for folder, load in ((tmp_path / "g", load_embedding_set), (tmp_path / "index", load_index)):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["notes"]["space"] = manifest["notes"].pop("weights_digest")
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ArtifactError, match="earlier version of productrec. Remove it, and predict"):
            load(folder)


def test_search_equals_a_matrix_product(tmp_path):
    gallery, queries = save(tmp_path / "g", draw(50)), save(tmp_path / "q", draw(20, seed=1))
    save_index(tmp_path / "index", gallery, list(range(50)), inputs={}, settings={})
    index = load_index(tmp_path / "index")
    rows, similarities = search_index(index, queries, 7)
    expected = queries.embeddings @ gallery.embeddings.T
    order = np.argsort(-expected, axis=1)[:, :7]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(similarities, np.take_along_axis(expected, order, axis=1), atol=1e-6)
    save_neighbours(tmp_path / "n", index, queries, 7, inputs={}, settings={})
    found = load_neighbours(tmp_path / "n")
    assert found.ids == queries.ids
    np.testing.assert_array_equal(found.labels, order)


def test_asking_for_more_than_the_gallery_gives_all_of_it(tmp_path):
    save_index(tmp_path / "index", save(tmp_path / "g", draw(3)), [7, 8, 9], inputs={}, settings={})
    rows, _ = search_index(load_index(tmp_path / "index"), save(tmp_path / "q", draw(2, seed=1)), 50)
    assert rows.shape == (2, 3)
    assert rows.min() >= 0


def test_queries_of_other_weights_are_refused(tmp_path):
    save_index(tmp_path / "index", save(tmp_path / "g", draw(3)), [7, 8, 9], inputs={}, settings={})
    with pytest.raises(ArtifactError, match="network that made the gallery"):
        search_index(load_index(tmp_path / "index"), save(tmp_path / "q", draw(2), weights_digest="other"), 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_embeddings_that_cannot_be_compared_are_refused_by_id(tmp_path, bad):
    embeddings = draw(5)
    embeddings[2] = bad
    broken = save(tmp_path / "g", embeddings)
    with pytest.raises(ArtifactError, match="i2"):
        save_index(tmp_path / "index", broken, [1] * 5, inputs={}, settings={})
    save_index(tmp_path / "good", save(tmp_path / "h", draw(5)), [1] * 5, inputs={}, settings={})
    with pytest.raises(ArtifactError, match="i2"):
        search_index(load_index(tmp_path / "good"), broken, 1)
    assert not (tmp_path / "index").exists()


def test_an_empty_gallery_is_refused_and_no_queries_are_fine(tmp_path):
    empty = save(tmp_path / "e", draw(6), broken=set(range(6)))
    assert empty.ids == []
    with pytest.raises(ArtifactError, match="at least one"):
        save_index(tmp_path / "index", empty, [], inputs={}, settings={})
    save_index(tmp_path / "index", save(tmp_path / "g", draw(5)), [1] * 5, inputs={}, settings={})
    rows, similarities = search_index(load_index(tmp_path / "index"), empty, 2)
    assert rows.shape == similarities.shape == (0, 2)


def test_without_a_gpu_the_index_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("productrec.retrieval.engine.count_gpus", lambda: 0)
    engine = object()
    assert move_to_gpu(engine) is engine
